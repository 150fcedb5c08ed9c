//! A conf directory as administrators and network add-ons treat it.

use std::fs::{remove_file, rename, write};

use super::*;

fn list(name: &str) -> String {
    format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"bridge"}}]}}"#)
}

fn directory() -> (tempfile::TempDir, ConfDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = ConfDir::new(temp.path().to_owned());
    (temp, dir)
}

fn default(dir: &ConfDir) -> Result<String, String> {
    dir.default().map(|network| network.name().to_owned()).map_err(|e| e.reason)
}

#[test]
fn the_first_usable_file_is_the_default_and_others_go_by_name() {
    let (temp, dir) = directory();
    let at = |name: &str| temp.path().join(name);
    write(at("10-b.conflist"), list("b")).unwrap();
    write(at("20-c.conf"), r#"{"cniVersion":"1.0.0","name":"c","type":"ptp"}"#).unwrap();
    write(at("05-a.json"), r#"{"cniVersion":"1.0.0","name":"a","type":"ptp"}"#).unwrap();
    write(at("00-not-ours.conflist.bak"), list("z")).unwrap();
    std::fs::create_dir(at("01-directory.conflist")).unwrap();
    assert_eq!(default(&dir), Ok("a".to_owned()));
    assert_eq!(dir.named("c").unwrap().plugins()[0].kind(), "ptp");
    assert!(dir.named("z").is_none());
    assert_eq!(dir.networks().skipped, []);
}

#[test]
fn a_broken_file_is_skipped_and_named_with_the_reason() {
    let (temp, dir) = directory();
    let at = |name: &str| temp.path().join(name);
    write(at("00-torn.conflist"), &list("torn")[..40]).unwrap();
    write(at("01-list.conf"), list("a-list-in-a-conf")).unwrap();
    write(at("02-big.json"), vec![b' '; 1 + (1 << 20)]).unwrap();
    write(at("10-good.conflist"), list("good")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("03-pipe.conf"), rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(default(&dir), Ok("good".to_owned()));
    let told: Vec<_> = dir.networks().skipped.iter().map(Skipped::to_string).collect();
    assert!(told[0].starts_with("00-torn.conflist: it is not JSON: EOF"), "{told:?}");
    assert!(told[1].starts_with("01-list.conf: plugins must be in a .conflist"), "{told:?}");
    assert_eq!(told[2], "02-big.json: it is longer than 1048576 bytes");
    assert_eq!(told[3], "03-pipe.conf: it is not a regular file");
    assert_eq!(told.len(), 4);
}

#[test]
fn a_change_is_seen_at_the_next_look_and_no_change_is_not_read_again() {
    let (temp, dir) = directory();
    let at = |name: &str| temp.path().join(name);
    assert!(default(&dir).unwrap_err().contains("holds no"));
    write(at("10-x.conflist"), list("one")).unwrap();
    assert_eq!(default(&dir), Ok("one".to_owned()));
    write(at("10-x.conflist"), list("two")).unwrap();
    assert_eq!(default(&dir), Ok("two".to_owned()), "same size, same file, at once");
    write(at("new"), list("six")).unwrap();
    rename(at("new"), at("10-x.conflist")).unwrap();
    assert_eq!(default(&dir), Ok("six".to_owned()));
    write(at("10-x.conflist"), "{").unwrap();
    assert!(default(&dir).unwrap_err().starts_with("10-x.conflist: it is not JSON"));
    remove_file(at("10-x.conflist")).unwrap();
    assert!(default(&dir).unwrap_err().contains("holds no"));
}

#[test]
fn what_has_not_changed_for_a_while_is_not_read_again() {
    let (temp, dir) = directory();
    // A file of the system has not changed for long, and so is believed.
    let old = Path::new("/bin/sh").canonicalize().unwrap();
    std::os::unix::fs::symlink(old, temp.path().join("old.conflist")).unwrap();
    assert!(Arc::ptr_eq(&dir.networks(), &dir.networks()));
    write(temp.path().join("new.conflist"), list("new")).unwrap();
    assert!(!Arc::ptr_eq(&dir.networks(), &dir.networks()), "it may still be being written");
}

#[test]
fn a_directory_that_is_missing_says_so_and_may_come() {
    let (temp, _) = directory();
    let path = temp.path().join("net.d");
    let dir = ConfDir::new(path.clone());
    let e = dir.default().unwrap_err();
    assert!(e.to_string().contains("net.d: it cannot be read"), "{e}");
    std::fs::create_dir(&path).unwrap();
    write(path.join("x.conflist"), list("x")).unwrap();
    assert_eq!(default(&dir), Ok("x".to_owned()));
}
