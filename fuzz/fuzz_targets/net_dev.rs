//! The kernel's table of a pod's network interfaces, in which whoever rules that network has chosen
//! the names. Whatever else is in it, an interface is found with what it has counted. The input is its
//! name, a newline, and what is in the table before it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sys::netdev::parse;

const COUNTERS: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, u64::MAX, 10, 11, 12, 13, 14, 15, 0];

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (name, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = parse(before);
    assert!(known.len() <= before.len() / 32, "every interface has its numbers");
    // As the kernel lets an interface be called (`dev_valid_name`).
    let forbidden = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0xb | 0xa0 | b'/');
    if name.is_empty() || name.len() > 15 || name.iter().any(forbidden) {
        return;
    }
    let numbers = COUNTERS.map(|counter| counter.to_string()).join(" ");
    let line = [b"\n  ", name, b": ", numbers.as_bytes(), b"\n"].concat();
    let all = parse(&[before, &line].concat());
    assert_eq!(all[..known.len()], known);
    let [found] = &all[known.len()..] else { panic!("{name:?} is hidden: {all:?}") };
    assert_eq!(found.name, String::from_utf8_lossy(name));
    let way = |way: &sys::netdev::Counters| [way.bytes, way.packets, way.errors, way.dropped];
    assert_eq!(way(&found.received), COUNTERS[..4]);
    assert_eq!(way(&found.sent), COUNTERS[8..12]);
});
