//! What a client of a command sends over a WebSocket: however it is cut the same is heard, no more is
//! heard than was sent, and what is answered is frames of the server's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streaming::probe::hear;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, cut, bytes) = input;
    let (base64, closes) = (kind & 1 != 0, kind & 2 != 0);
    let whole = hear(base64, closes, &[bytes]);
    let parts: Vec<&[u8]> = bytes.chunks(usize::from(cut).max(1)).collect();
    assert_eq!(hear(base64, closes, &parts), whole);
    let Ok(heard) = whole else { return };
    assert!(heard.said.concat().len() <= bytes.len());
    assert!(heard.answers.len() <= bytes.len());
    assert_eq!(heard.goodbye, answers(&heard.answers));
});

/// Reads the answers, which are those to pings and at last the one to a close. Says whether that is
/// there.
fn answers(mut bytes: &[u8]) -> bool {
    while let [kind, length, rest @ ..] = bytes {
        let (said, more) = rest.split_at(usize::from(*length));
        match kind {
            0x8a => bytes = more,
            0x88 => {
                assert!(said.len() == 2 && more.is_empty(), "a number, and nothing after it");
                return true;
            }
            _ => panic!("{kind} is no answer"),
        }
    }
    assert!(bytes.is_empty());
    false
}
