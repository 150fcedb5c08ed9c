//! A file of the CNI configuration directory, as a list and as a single plugin: no plugin is more
//! than a file's name, and a list reads back from its record as it was.
#![no_main]

use cni::NetworkList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for list in [cni::parse_conflist(bytes), cni::parse_conf(bytes)].into_iter().flatten() {
        assert!(!list.name().is_empty() && !list.name().contains(['/', '\0', '\n']));
        assert!(!list.plugins().is_empty());
        for plugin in list.plugins() {
            let kind = plugin.kind();
            assert!(!matches!(kind, "" | "." | "..") && !kind.contains(['/', '\0']), "{kind:?}");
        }
        reads_back(&list);
    }
});

fn reads_back(list: &NetworkList) {
    let again = NetworkList::try_from(list.text().to_owned()).expect("a record of a good list");
    assert_eq!((again.name(), again.version()), (list.name(), list.version()));
    assert_eq!(again.disables_check(), list.disables_check());
    assert_eq!(again.disables_gc(), list.disables_gc());
    let kinds = |list: &NetworkList| -> Vec<String> {
        list.plugins().iter().map(|plugin| plugin.kind().to_owned()).collect()
    };
    assert_eq!(kinds(&again), kinds(list));
}
