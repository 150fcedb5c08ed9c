//! An entry of the journal of records: it is refused, or read whole.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some(again) = store::rewritten_journal_entry(body) {
        assert_eq!(again, body);
    }
});
