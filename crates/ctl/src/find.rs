//! From what a person writes to the thing that is meant: a whole id, the beginning of one, or a
//! name. More than one that fits is an error, never a guess.

use cri_proto::v1;

use crate::error::Error;
use crate::link::{LOOK, Link, answer, within};

/// What has an id and a name.
pub trait Named {
    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

impl Named for v1::PodSandbox {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |m| &m.name)
    }
}

impl Named for v1::Container {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |m| &m.name)
    }
}

/// A pod or a container.
#[derive(Debug)]
pub enum Thing {
    Pod(v1::PodSandbox),
    Container(v1::Container),
}

impl Named for Thing {
    fn id(&self) -> &str {
        match self {
            Thing::Pod(pod) => pod.id(),
            Thing::Container(container) => container.id(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Thing::Pod(pod) => pod.name(),
            Thing::Container(container) => container.name(),
        }
    }
}

pub async fn pods(link: &Link) -> Result<Vec<v1::PodSandbox>, Error> {
    let request = within(LOOK, v1::ListPodSandboxRequest::default());
    Ok(answer("ListPodSandbox", link.runtime().list_pod_sandbox(request).await)?.items)
}

pub async fn containers(link: &Link) -> Result<Vec<v1::Container>, Error> {
    let request = within(LOOK, v1::ListContainersRequest::default());
    Ok(answer("ListContainers", link.runtime().list_containers(request).await)?.containers)
}

pub async fn container(link: &Link, wanted: &str) -> Result<v1::Container, Error> {
    pick(wanted, containers(link).await?, "container", "podbay ps -a")
}

/// A pod or a container.
pub async fn thing(link: &Link, wanted: &str) -> Result<Thing, Error> {
    let pods = pods(link).await?.into_iter().map(Thing::Pod);
    let containers = containers(link).await?.into_iter().map(Thing::Container);
    let things = pods.chain(containers).collect();
    pick(wanted, things, "pod or container", "podbay pods` and `podbay ps -a")
}

/// The one that is meant. A whole id wins over names, and names over beginnings of ids.
fn pick<T: Named>(
    wanted: &str,
    things: Vec<T>,
    kind: &'static str,
    see: &'static str,
) -> Result<T, Error> {
    let none = || Error::NoSuch { kind, wanted: wanted.to_owned(), see };
    if wanted.is_empty() {
        return Err(none());
    }
    let rank = |thing: &T| match thing {
        thing if thing.id() == wanted => Some(0),
        thing if thing.name() == wanted => Some(1),
        thing if thing.id().starts_with(wanted) => Some(2),
        _ => None,
    };
    let best = things.iter().filter_map(rank).min().ok_or_else(none)?;
    let mut found: Vec<T> = things.into_iter().filter(|thing| rank(thing) == Some(best)).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => Err(Error::Ambiguous {
            wanted: wanted.to_owned(),
            found: found.iter().map(|thing| thing.id().to_owned()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str) -> v1::Container {
        let metadata = v1::ContainerMetadata { name: name.to_owned(), attempt: 0 };
        v1::Container { id: id.to_owned(), metadata: Some(metadata), ..Default::default() }
    }

    fn picked(wanted: &str) -> Result<String, Error> {
        let things = vec![
            container("abc1", "web"),
            container("abc2", "abc1"),
            container("dd", "twin"),
            container("ee", "twin"),
            container("d", "x"),
        ];
        pick(wanted, things, "container", "podbay ps -a").map(|c| c.id)
    }

    #[test]
    fn a_whole_id_wins_over_a_name_and_a_beginning() {
        assert_eq!(picked("abc1").expect("it is there"), "abc1");
        assert_eq!(picked("d").expect("it is there"), "d");
    }

    #[test]
    fn a_name_or_a_beginning_is_enough() {
        assert_eq!(picked("web").expect("it is there"), "abc1");
        assert_eq!(picked("abc2").expect("it is there"), "abc2");
        assert_eq!(picked("e").expect("it is there"), "ee");
    }

    #[test]
    fn more_than_one_is_no_guess() {
        let error = picked("twin").expect_err("there are two");
        assert_eq!(error.to_string(), "twin may be each of dd, ee: give more of the id");
        assert!(matches!(picked("ab"), Err(Error::Ambiguous { .. })));
    }

    #[test]
    fn nothing_is_found_by_nothing() {
        assert!(matches!(picked(""), Err(Error::NoSuch { .. })));
        assert!(matches!(picked("zz"), Err(Error::NoSuch { .. })));
    }
}
