//! `hosts.toml`: a mirror has a URL that can be dialled, an error names a line that there is, and no
//! header of the file gets into what is printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::Host;

fuzz_target!(|text: &str| {
    match registry::parse_hosts(text) {
        Ok(hosts) => {
            assert!(hosts.mirrors.iter().all(|host| host.url.is_some()));
            hosts.mirrors.iter().chain([&hosts.server]).for_each(check);
            assert!(hosts.warnings.iter().all(|warning| is_line(text, warning.line)));
        }
        Err(bad) => assert!(is_line(text, bad.line), "line {} of {text:?}", bad.line),
    }
});

fn check(host: &Host) {
    if let Some(url) = &host.url {
        assert!(matches!(url.scheme_str(), Some("http" | "https")), "{url}");
        assert!(url.host().is_some_and(|name| !name.is_empty()), "{url}");
        assert!(url.query().is_none() && !url.path().split('/').any(|part| part == ".."), "{url}");
    }
    assert!(host.headers.values().all(|value| value.is_sensitive()));
    assert!(host.dial_timeout.is_none_or(|timeout| !timeout.is_zero()));
}

fn is_line(text: &str, line: usize) -> bool {
    (1..=text.matches('\n').count() + 1).contains(&line)
}
