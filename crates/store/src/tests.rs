use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    text: String,
}

fn row(text: &str) -> Row {
    Row { text: text.into() }
}

fn open(root: &Path) -> (Store, Records<Row>) {
    let store = Store::open(root, root).unwrap();
    let records = store.records("rows", 1);
    (store, records)
}

#[tokio::test]
async fn what_was_put_is_there_after_the_store_is_opened_again() {
    let root = tempfile::tempdir().unwrap();
    {
        let (_store, rows) = open(root.path());
        rows.put("a", &row("one")).await.unwrap();
        rows.put("b", &row("two")).await.unwrap();
        rows.put("a", &row("three")).await.unwrap();
        rows.erase("b").await.unwrap();
        rows.erase("never").await.unwrap();
    }
    let (_store, rows) = reopened(root.path());
    assert_eq!(rows.scan().await.unwrap(), [("a".to_owned(), row("three"))]);
}

/// The writer's thread lets go of the file a moment after the last handle is dropped.
fn reopened(root: &Path) -> (Store, Records<Row>) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match Store::open(root, root) {
            Ok(store) => return (store.clone(), store.records("rows", 1)),
            Err(Error::InUse(_)) if std::time::Instant::now() < deadline => {
                std::thread::yield_now()
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (_store, rows) = open(root.path());
    let writes = (0..200).map(|n| {
        let rows = rows.clone();
        tokio::spawn(async move { rows.put(&format!("{n:03}"), &row("x")).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    assert_eq!(rows.scan().await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_row_that_was_edited_or_moved_or_is_of_another_version_is_set_aside_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let (store, rows) = open(root.path());
    rows.put("good", &row("stays")).await.unwrap();
    rows.put("edited", &row("once")).await.unwrap();
    let sealed =
        |key: &str| store.rows("rows").unwrap().into_iter().find(|(k, _)| k == key).unwrap().1;
    let mut edited = sealed("edited");
    *edited.last_mut().unwrap() ^= 1;
    let moved = sealed("good");
    let foreign = store.inner.key.seal("rows", "newer", 9, br#"{"text":"x"}"#);
    for (key, row) in [("edited", edited), ("moved", moved), ("newer", foreign), ("empty", vec![])]
    {
        store.write(vec![Change::put("rows", key, row)]).await.unwrap();
    }

    assert_eq!(rows.scan().await.unwrap(), [("good".to_owned(), row("stays"))]);
    let names = |store: &Store| {
        store.quarantine().unwrap().iter().map(Quarantined::name).collect::<Vec<_>>()
    };
    assert_eq!(names(&store), ["rows/edited", "rows/empty", "rows/moved", "rows/newer"]);
    assert_eq!(rows.scan().await.unwrap().len(), 1);

    store.discard("rows/edited").await.unwrap();
    assert!(matches!(store.discard("rows/edited").await, Err(Error::NotInQuarantine(_))));
    assert_eq!(names(&store).len(), 3);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_and_a_new_one_begun() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("records.redb"), b"this is no database at all").unwrap();
    let (_store, rows) = open(root.path());
    rows.put("a", &row("one")).await.unwrap();
    assert!(root.path().join("records.redb.damaged").exists());
}

#[test]
fn two_daemons_cannot_share_a_root() {
    let root = tempfile::tempdir().unwrap();
    let _first = Store::open(root.path(), root.path()).unwrap();
    assert!(matches!(Store::open(root.path(), root.path()), Err(Error::InUse(_))));
}

#[test]
fn the_key_is_for_root_alone_and_a_short_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let _store = Store::open(root.path(), root.path()).unwrap();
    let key = root.path().join("records.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&key, b"short").unwrap();
    assert!(matches!(Store::open(root.path(), root.path()), Err(Error::BadKey(_))));
}

/// A tmpfs of one MiB and a half, unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3584k", "podbay-test"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success(), "a tmpfs needs root");
        Self(dir)
    }

    /// Leaves no room, until this file is removed.
    fn fill(&self) -> PathBuf {
        let filler = self.0.path().join("filler");
        let full = std::process::Command::new("dd")
            .args(["if=/dev/zero", "bs=4k", "status=none"])
            .arg(format!("of={}", filler.display()))
            .output();
        assert!(!full.unwrap().status.success(), "it must be full now");
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_who_asks_and_takes_erases_and_puts_again_when_there_is_room() {
    let (small, state) = (Small::new(), tempfile::tempdir().unwrap());
    let root = small.0.path();
    let store = Store::open(root, state.path()).unwrap();
    let rows = store.records("rows", 1);
    rows.put_synced("first", &row("stays")).await.unwrap().done().await.unwrap();
    rows.put_synced("second", &row("goes")).await.unwrap().done().await.unwrap();
    let filler = small.fill();
    let large = row(&"x".repeat(600 << 10));
    let refused = rows.put_synced("large", &large).await.unwrap().done().await.unwrap_err();
    assert_eq!(refused.class(), names::Class::ResourceExhausted, "{refused:?}");
    rows.put("promised", &large).await.unwrap();
    rows.erase("second").await.unwrap();
    let expected = [("first".to_owned(), row("stays")), ("promised".to_owned(), large)];
    assert_eq!(rows.scan().await.unwrap(), expected);
    std::fs::remove_file(filler).unwrap();
    rows.put_synced("third", &row("fits")).await.unwrap().done().await.unwrap();
    assert_eq!(rows.scan().await.unwrap().len(), 3);
}

/// Copies what a process that is killed now would leave.
fn as_left(root: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["records.key", "records.redb", "records.journal"] {
        std::fs::copy(root.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_was_put_outlives_a_kill_though_the_database_has_not_got_it() {
    let root = tempfile::tempdir().unwrap();
    let (_store, rows) = open(root.path());
    rows.put_synced("a", &row("one")).await.unwrap().done().await.unwrap();
    let database = as_left(root.path());
    rows.put("a", &row("two")).await.unwrap();
    rows.put("b", &row("three")).await.unwrap();
    rows.erase("b").await.unwrap();
    rows.put("c", &row("four")).await.unwrap();
    let killed = as_left(root.path());
    // As if none of the last four had reached it.
    std::fs::copy(database.path().join("records.redb"), killed.path().join("records.redb"))
        .unwrap();
    let (_store, rows) = open(killed.path());
    let expected = [("a".to_owned(), row("two")), ("c".to_owned(), row("four"))];
    assert_eq!(rows.scan().await.unwrap(), expected);
}

#[tokio::test]
async fn without_a_journal_every_put_waits_for_the_disk() {
    let (root, small) = (tempfile::tempdir().unwrap(), Small::new());
    let store = Store::open(root.path(), small.0.path()).unwrap();
    let rows = store.records("rows", 1);
    let filler = small.fill();
    rows.put("a", &row(&"x".repeat(8 << 10))).await.unwrap();
    assert_eq!(
        stored(&store.inner.database.read().unwrap().begin_read().unwrap(), "rows").unwrap().len(),
        1
    );
    std::fs::remove_file(filler).unwrap();
    rows.put("b", &row("x")).await.unwrap();
    assert_eq!(rows.scan().await.unwrap().len(), 2);
}

/// Each page in turn is overwritten, as a disk may do that has lied about what it had written. The
/// database would panic on most, which ends a daemon, and the next one, and so on.
#[tokio::test]
async fn damage_to_any_page_costs_records_at_the_most_and_never_the_daemon() {
    let whole = tempfile::tempdir().unwrap();
    let (store, rows) = open(whole.path());
    for n in 0..20 {
        rows.put(&n.to_string(), &row(&"x".repeat(700))).await.unwrap();
    }
    drop((store, rows));
    drop(reopened(whole.path()));
    // The writer's thread lets go of it a moment later; before, it is not as it is left.
    std::fs::File::open(whole.path().join("records.redb")).unwrap().lock().unwrap();
    let [file, key] =
        ["records.redb", "records.key"].map(|name| std::fs::read(whole.path().join(name)).unwrap());
    let mut lost = 0;
    for page in 0..file.len() / 4096 {
        let root = tempfile::tempdir().unwrap();
        let mut damaged = file.clone();
        damaged[page * 4096..][..4096].fill(0xa5);
        std::fs::write(root.path().join("records.redb"), &damaged).unwrap();
        std::fs::write(root.path().join("records.key"), &key).unwrap();
        let (_store, rows) = open(root.path());
        let read = rows.scan().await.unwrap().len();
        let aside = std::fs::read(root.path().join("records.redb.damaged"));
        match aside {
            Ok(kept) => assert_eq!((read, kept), (0, damaged), "page {page}"),
            Err(_) => assert_eq!(read, 20, "page {page}"),
        }
        lost += usize::from(read == 0);
        rows.put("new", &row("one")).await.unwrap();
    }
    assert!(lost > 5, "pages that matter are among them: {lost}");
}

#[test]
fn what_was_set_aside_is_kept_when_something_else_has_to_be() {
    let root = tempfile::tempdir().unwrap();
    for damage in ["one", "two", "three"] {
        // The last store's thread may still hold what is there.
        let _ = std::fs::remove_file(root.path().join("records.redb"));
        std::fs::write(root.path().join("records.redb"), damage).unwrap();
        drop(reopened(root.path()));
    }
    let kept = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
    let names = ["records.redb.damaged", "records.redb.damaged.2", "records.redb.damaged.3"];
    assert_eq!(names.map(kept), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_damaged_file_is_in_the_quarantine_until_it_is_removed() {
    let root = tempfile::tempdir().unwrap();
    for damage in ["one", "two"] {
        let _ = std::fs::remove_file(root.path().join("records.redb"));
        std::fs::write(root.path().join("records.redb"), damage).unwrap();
        drop(reopened(root.path()));
    }
    for other in ["records.redb.damaged.mine", "records.redb.damaged2", "a.redb.damaged"] {
        std::fs::write(root.path().join(other), "another's").unwrap();
    }
    let (store, _) = reopened(root.path());
    let names = || store.quarantine().unwrap().iter().map(Quarantined::name).collect::<Vec<_>>();
    let held = ["files/records.redb.damaged", "files/records.redb.damaged.2"];
    assert_eq!(names(), held);
    assert!(store.quarantine().unwrap().iter().all(|file| file.at > 0));
    store.discard(held[0]).await.unwrap();
    assert_eq!(names(), held[1..]);
    assert!(!root.path().join("records.redb.damaged").exists());
    assert!(matches!(store.discard(held[0]).await, Err(Error::NotInQuarantine(_))));
}
