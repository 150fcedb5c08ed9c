//! Who a process is: from the request, the image, and the container's own /etc/passwd and
//! /etc/group. Their bytes come from the caller; here nothing is opened.
//!
//! The files are an image's, and so a stranger's. Numbers are numbers or errors, never names
//! (CVE-2024-40635, CVE-2026-46680), and a name never becomes root by being unknown.

use crate::rejected::Rejected;

/// The ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the primary one included (else a group could be left to get at files that deny
    /// it: CVE-2022-36109), in order.
    pub groups: Vec<u32>,
    /// From /etc/passwd, if it has the user.
    pub home: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct UserAsk {
    pub run_as_user: Option<i64>,
    /// Empty is none.
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub policy: Policy,
    /// The image's: `user`, `uid`, `user:group`, with names or numbers. Empty is root.
    pub image_user: String,
}

/// Whether the image may add groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Those in which the image's /etc/group has the user, and those of the request.
    #[default]
    Merge,
    /// Those of the request alone.
    Strict,
}

/// A container's /etc/passwd. Lines that are none are passed over, as the C library does.
#[derive(Clone, Debug, Default)]
pub struct Passwd(Vec<Account>);

#[derive(Clone, Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: Option<String>,
}

impl Passwd {
    pub fn parse(bytes: &[u8]) -> Self {
        Self(lines(bytes).filter_map(account).collect())
    }

    fn by_name(&self, name: &str) -> Option<&Account> {
        self.0.iter().find(|account| account.name == name)
    }

    fn by_uid(&self, uid: u32) -> Option<&Account> {
        self.0.iter().find(|account| account.uid == uid)
    }
}

/// A container's /etc/group.
#[derive(Clone, Debug, Default)]
pub struct Groups(Vec<Group>);

#[derive(Clone, Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Groups {
    pub fn parse(bytes: &[u8]) -> Self {
        Self(lines(bytes).filter_map(group).collect())
    }

    fn with_member<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        let has = move |group: &&Group| group.members.iter().any(|member| member == name);
        self.0.iter().filter(has).map(|group| group.gid)
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
        .map(|line| line.trim_end_matches('\r').split(':').collect())
}

fn account(fields: Vec<&str>) -> Option<Account> {
    let [name, _, uid, gid, rest @ ..] = &fields[..] else { return None };
    let home = rest.get(1).filter(|home| is_home(home)).map(|home| (*home).to_owned());
    let name = Some((*name).to_owned()).filter(|name| !name.is_empty())?;
    Some(Account { name, uid: to_id(uid)?, gid: to_id(gid)?, home })
}

/// A home becomes a line of the environment, and in others' hands one of a file (CVE-2022-4318).
fn is_home(home: &str) -> bool {
    home.starts_with('/') && !home.chars().any(char::is_control)
}

fn group(fields: Vec<&str>) -> Option<Group> {
    let [name, _, gid, rest @ ..] = &fields[..] else { return None };
    let members = rest.first().unwrap_or(&"").split(',').filter(|member| !member.is_empty());
    let name = Some((*name).to_owned()).filter(|name| !name.is_empty())?;
    Some(Group { name, gid: to_id(gid)?, members: members.map(str::to_owned).collect() })
}

/// Digits, and no more than an id can be. The greatest number means "unchanged" to the kernel.
fn to_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| is_number(text) && *id != u32::MAX)
}

const SECURITY: &str = "config.linux.security_context";

/// Who the process is to be.
///
/// # Errors
/// A name that the container does not know; a number that is no id; a group without a user, or two
/// users at once.
pub fn resolve_user(ask: &UserAsk, passwd: &Passwd, groups: &Groups) -> Result<User, Rejected> {
    let found = find_user(ask, passwd)?;
    let gid = find_group(ask, groups)?.unwrap_or(found.gid);
    let mut all = vec![gid];
    if let (Policy::Merge, Some(name)) = (ask.policy, &found.name) {
        all.extend(groups.with_member(name));
    }
    for (at, group) in ask.supplemental_groups.iter().enumerate() {
        all.push(number(*group, &format!("{SECURITY}.supplemental_groups[{at}]"))?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(User { uid: found.uid, gid, groups: all, home: found.home })
}

struct Found {
    uid: u32,
    gid: u32,
    /// `None` if the container has no name for the user.
    name: Option<String>,
    home: Option<String>,
}

/// The request's user, else the image's, else root.
fn find_user(ask: &UserAsk, passwd: &Passwd) -> Result<Found, Rejected> {
    let by_name = !ask.run_as_username.is_empty();
    match ask.run_as_user {
        Some(_) if by_name => {
            let why = "only one of run_as_user and run_as_username can be set";
            Err(Rejected::new(format!("{SECURITY}.run_as_username"), why))
        }
        Some(uid) => Ok(numbered(number(uid, &format!("{SECURITY}.run_as_user"))?, passwd)),
        None if by_name => {
            named(&ask.run_as_username, passwd, &format!("{SECURITY}.run_as_username"))
        }
        None if ask.run_as_group.is_some() => {
            let why = "a group without a user (run_as_user or run_as_username)";
            Err(Rejected::new(format!("{SECURITY}.run_as_group"), why))
        }
        None if ask.image_user.is_empty() => Ok(numbered(0, passwd)),
        None => {
            let user = ask.image_user.split_once(':').map_or(&ask.image_user[..], |(user, _)| user);
            named(user, passwd, IMAGE)
        }
    }
}

const IMAGE: &str = "image.config.user";

/// The request's group; the image's only if the image's user is used.
fn find_group(ask: &UserAsk, groups: &Groups) -> Result<Option<u32>, Rejected> {
    if let Some(gid) = ask.run_as_group {
        return number(gid, &format!("{SECURITY}.run_as_group")).map(Some);
    }
    let of_image = ask.run_as_user.is_none() && ask.run_as_username.is_empty();
    match ask.image_user.split_once(':') {
        Some((_, group)) if of_image && !group.is_empty() => {
            by_number_or_name(group, IMAGE, |name| {
                groups.0.iter().find(|group| group.name == name).map(|group| group.gid)
            })
            .map(Some)
        }
        _ => Ok(None),
    }
}

/// A number needs no account. Without one its group is root's, as Docker and containerd have it.
fn numbered(uid: u32, passwd: &Passwd) -> Found {
    match passwd.by_uid(uid) {
        Some(account) => of_account(account),
        None => Found { uid, gid: 0, name: None, home: None },
    }
}

fn of_account(account: &Account) -> Found {
    let Account { name, uid, gid, home } = account.clone();
    Found { uid, gid, name: Some(name), home }
}

fn named(text: &str, passwd: &Passwd, field: &str) -> Result<Found, Rejected> {
    let uid = |name: &str| passwd.by_name(name).map(|account| account.uid);
    let uid = by_number_or_name(text, field, uid)?;
    let account = passwd.by_name(text).filter(|_| !is_number(text));
    Ok(account.map_or_else(|| numbered(uid, passwd), of_account))
}

/// What looks like a number is one, or wrong.
fn by_number_or_name(
    text: &str,
    field: &str,
    find: impl FnOnce(&str) -> Option<u32>,
) -> Result<u32, Rejected> {
    let refuse = |why: String| Rejected::new(field, why);
    if is_number(text) {
        return to_id(text).ok_or_else(|| refuse(format!("{text:?} is no id")));
    }
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !starts_well || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refuse(format!("{text:?} is neither a name nor an id")));
    }
    find(text).ok_or_else(|| refuse(format!("the container knows nobody called {text:?}")))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn number(id: i64, field: &str) -> Result<u32, Rejected> {
    let id32 = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    id32.ok_or_else(|| Rejected::new(field, format!("{id} is no id")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        broken\n\
        web:x:1000:1001:Web:/srv/web:/bin/false\n\
        huge:x:4294967296:0::/:\n\
        again:x:1000:5::/again:\n\
        evil:x:7:7::/h\x01ome:\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:1001:\nlogs:x:50000:someone,web\nnone:x:6:webber\n";

    fn resolve(ask: &UserAsk) -> Result<User, Rejected> {
        resolve_user(ask, &Passwd::parse(PASSWD), &Groups::parse(GROUP))
    }

    fn image(user: &str) -> Result<User, Rejected> {
        resolve(&UserAsk { image_user: user.into(), ..UserAsk::default() })
    }

    fn ids(user: Result<User, Rejected>) -> (u32, u32, Vec<u32>) {
        let user = user.unwrap();
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn an_images_user_is_found_by_name_and_by_number() {
        assert_eq!(ids(image("")), (0, 0, vec![0]));
        for user in ["web", "1000"] {
            assert_eq!(ids(image(user)), (1000, 1001, vec![1001, 50000]), "{user}");
        }
        assert_eq!(ids(image("web:logs")), (1000, 50000, vec![50000]));
        assert_eq!(ids(image("web:9")), (1000, 9, vec![9, 50000]));
        assert_eq!(ids(image("1000:")), (1000, 1001, vec![1001, 50000]));
        assert_eq!(ids(image("4321")), (4321, 0, vec![0]));
        assert_eq!(image("web").unwrap().home.as_deref(), Some("/srv/web"));
        assert_eq!(image("evil").unwrap().home, None);
    }

    #[test]
    fn what_is_no_id_is_an_error_and_never_root() {
        let bad = [
            "-1",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "0x0",
            " 0",
            "\u{ff11}",
            "1 :0",
            "nobody",
            "huge",
            "web:nogroup",
            "web:-1",
            "web:4294967296",
            ":0",
            "+0",
            "0\0",
        ];
        for user in bad {
            let error = image(user).expect_err(user);
            assert_eq!(error.field(), IMAGE, "{user}");
        }
        assert_eq!(image("2147483648").unwrap().uid, 1 << 31, "is an exact u32");
    }

    #[test]
    fn a_number_never_reads_an_account_of_that_name() {
        let passwd = Passwd::parse(b"4294967296:x:0:0::/:\n1000:x:0:0::/:\n");
        for (user, expected) in [("4294967296", None), ("1000", Some(1000))] {
            let ask = UserAsk { image_user: user.into(), ..UserAsk::default() };
            let found = resolve_user(&ask, &passwd, &Groups::default()).ok().map(|user| user.uid);
            assert_eq!(found, expected, "{user}");
        }
    }

    #[test]
    fn the_request_goes_before_the_image() {
        let ask = UserAsk { image_user: "web:logs".into(), ..UserAsk::default() };
        let by_uid = UserAsk { run_as_user: Some(0), ..ask.clone() };
        assert_eq!(ids(resolve(&by_uid)), (0, 0, vec![0]), "without the image's group");
        let by_name = UserAsk { run_as_username: "web".into(), ..ask.clone() };
        assert_eq!(ids(resolve(&by_name)), (1000, 1001, vec![1001, 50000]));
        let with_group = UserAsk { run_as_group: Some(8), ..by_uid.clone() };
        assert_eq!(ids(resolve(&with_group)), (0, 8, vec![8]));
        let alone = UserAsk { run_as_group: Some(8), ..ask };
        assert!(resolve(&alone).unwrap_err().field().ends_with("run_as_group"));
        let twice = UserAsk { run_as_username: "web".into(), ..by_uid };
        assert!(resolve(&twice).is_err());
    }

    #[test]
    fn the_image_adds_groups_only_where_the_policy_lets_it() {
        let ask = UserAsk {
            run_as_user: Some(1000),
            supplemental_groups: vec![60000, 60000],
            ..UserAsk::default()
        };
        assert_eq!(resolve(&ask).unwrap().groups, [1001, 50000, 60000]);
        let strict = UserAsk { policy: Policy::Strict, ..ask.clone() };
        assert_eq!(resolve(&strict).unwrap().groups, [1001, 60000]);
        let bad = UserAsk { supplemental_groups: vec![1, -1], ..ask };
        assert!(resolve(&bad).unwrap_err().field().ends_with("supplemental_groups[1]"));
    }

    proptest! {
        #[test]
        fn any_files_and_any_user_are_read_without_a_panic(
            passwd in prop::collection::vec(any::<u8>(), 0..200),
            group in "([a-z0-9:,\n]|\\PC){0,80}",
            user in "([a-z0-9:]|\\PC){0,12}",
        ) {
            let ask = UserAsk { image_user: user, ..UserAsk::default() };
            let (passwd, groups) = (Passwd::parse(&passwd), Groups::parse(group.as_bytes()));
            if let Ok(user) = resolve_user(&ask, &passwd, &groups) {
                prop_assert!(user.groups.contains(&user.gid));
                prop_assert!(user.uid != u32::MAX && user.gid != u32::MAX);
            }
        }

        #[test]
        fn a_user_is_root_only_by_its_number_or_by_an_account_of_root(user in "\\PC{1,12}") {
            if let Ok(found) = image(&user) {
                let name = user.split(':').next().unwrap();
                let zeros = name.bytes().all(|b| b == b'0');
                prop_assert!(found.uid != 0 || name == "root" || zeros, "{}", user);
            }
        }
    }
}
