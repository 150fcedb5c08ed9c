//! What happens to pods and containers, told to whoever listens.
//!
//! An event is a change of what lists and status show, and is told in the moment of that change, with
//! all that is then shown of the pod. Nobody waits for a listener: one that is too slow loses the
//! oldest events, hears that it did, and must list again.

use std::sync::{Arc, Mutex, PoisonError};

use names::{Class, Nanos, PodId};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{Error, Inner, Pods, container::ContainerRecord, owner::Hears, pod::PodRecord, read};

/// How many events a listener may be behind. One that stalls costs no more than these.
const ROOM: usize = 1024;

/// What can be heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// The container, or the pod if it is about its sandbox.
    pub id: String,
    pub kind: Kind,
    pub at: Nanos,
    /// As the pod was shown then; none if it is gone.
    pub pod: Option<Arc<PodRecord>>,
    /// As the pod's containers were shown then, the newest first.
    pub containers: Vec<Arc<ContainerRecord>>,
}

/// Where all that happens is told; none when podbayd ends.
pub(crate) struct Events(Mutex<Option<broadcast::Sender<Arc<Event>>>>);

impl Default for Events {
    fn default() -> Self {
        Self(Mutex::new(Some(broadcast::Sender::new(ROOM))))
    }
}

impl Events {
    fn sender(&self) -> Option<broadcast::Sender<Arc<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Tells all kinds, in order. Without a listener the event is not even made.
    fn tell(&self, kinds: &[Kind], event: impl Fn(Kind) -> Event) {
        let Some(sender) = self.sender().filter(|sender| sender.receiver_count() > 0) else {
            return;
        };
        for kind in kinds {
            // The last listener may have gone this moment.
            let _ = sender.send(Arc::new(event(*kind)));
        }
    }
}

/// Hears of all that happens from its making on.
pub struct Listener(broadcast::Receiver<Arc<Event>>);

impl Listener {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// Of the class ResourceExhausted if events were lost, and Unavailable if podbayd ends. Both are
    /// for ever: what was missed can only be listed.
    pub async fn next(&mut self) -> Result<Arc<Event>, Error> {
        match self.0.recv().await {
            Ok(event) => Ok(event),
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "a listener was too slow, and has lost events");
                let why = format!(
                    "{lost} events were lost, since they were not read fast enough: list all, and listen again"
                );
                Err(Error::Refused { class: Class::ResourceExhausted, why })
            }
            Err(RecvError::Closed) => Err(ending()),
        }
    }
}

fn ending() -> Error {
    Error::Refused { class: Class::Unavailable, why: "podbayd ends".to_owned() }
}

impl Pods {
    /// Begins to listen.
    ///
    /// # Errors
    /// Of the class Unavailable if podbayd ends.
    pub fn listen(&self) -> Result<Listener, Error> {
        let sender = self.inner.events.sender().ok_or_else(ending)?;
        Ok(Listener(sender.subscribe()))
    }

    /// Sends all listeners away, who would else listen for ever. They still hear what was told.
    pub fn end_events(&self) {
        self.inner.events.end();
    }

    /// The pod's containers, the newest first.
    pub fn containers_in(&self, pod: &PodId) -> Vec<Arc<ContainerRecord>> {
        self.inner.containers_in(pod)
    }
}

impl Inner {
    fn containers_in(&self, pod: &PodId) -> Vec<Arc<ContainerRecord>> {
        let mut found: Vec<_> = read(&self.containers)
            .values()
            .map(|container| container.snapshot())
            .filter(|container| container.pod == *pod && container.is_shown())
            .collect();
        found.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        found
    }

    fn shown_pod(&self, id: &PodId) -> Option<Arc<PodRecord>> {
        let pod = read(&self.pods).get(id)?.snapshot();
        pod.is_shown().then_some(pod)
    }
}

impl Hears<PodRecord> for Inner {
    fn changed(&self, before: &PodRecord, after: &Arc<PodRecord>) {
        self.events.tell(&of_pod(before, after), |kind| Event {
            id: after.id.to_string(),
            kind,
            at: ::names::now(),
            pod: Some(Arc::clone(after)),
            containers: self.containers_in(&after.id),
        });
    }

    fn erased(&self, last: &Arc<PodRecord>) {
        let kinds: &[Kind] = if last.is_shown() { &[Kind::Deleted] } else { &[] };
        self.events.tell(kinds, |kind| Event {
            id: last.id.to_string(),
            kind,
            at: ::names::now(),
            pod: Some(Arc::clone(last)),
            containers: self.containers_in(&last.id),
        });
    }
}

impl Hears<ContainerRecord> for Inner {
    fn changed(&self, before: &ContainerRecord, after: &Arc<ContainerRecord>) {
        self.events.tell(&of_container(before, after), |kind| Event {
            id: after.id.to_string(),
            kind,
            at: ::names::now(),
            pod: self.shown_pod(&after.pod),
            containers: self.containers_in(&after.pod),
        });
    }

    fn erased(&self, last: &Arc<ContainerRecord>) {
        let kinds: &[Kind] = if last.is_shown() { &[Kind::Deleted] } else { &[] };
        self.events.tell(kinds, |kind| {
            let mut containers = self.containers_in(&last.pod);
            // It is forgotten in a moment.
            containers.retain(|container| container.id != last.id);
            let (id, pod) = (last.id.to_string(), self.shown_pod(&last.pod));
            Event { id, kind, at: ::names::now(), pod, containers }
        });
    }
}

/// What one sees of a pod or a container, from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    is_shown: bool,
    runs: bool,
    is_over: bool,
}

impl Seen {
    /// A thing that is not shown has not been seen to run or to end.
    fn new(is_shown: bool, runs: bool, is_over: bool) -> Self {
        Self { is_shown, runs: is_shown && runs, is_over: is_shown && is_over }
    }
}

fn of_pod(before: &PodRecord, after: &PodRecord) -> Vec<Kind> {
    let seen = |pod: &PodRecord| Seen::new(pod.is_shown(), pod.is_ready(), !pod.is_ready());
    between(seen(before), seen(after))
}

fn of_container(before: &ContainerRecord, after: &ContainerRecord) -> Vec<Kind> {
    use crate::container::Life;
    let seen = |container: &ContainerRecord| {
        let life = &container.life;
        Seen::new(container.is_shown(), matches!(life, Life::Running { .. }), life.is_over())
    };
    between(seen(before), seen(after))
}

/// What has happened in between, in the order in which it must have.
fn between(before: Seen, after: Seen) -> Vec<Kind> {
    let hidden = before.is_shown && !after.is_shown;
    let kinds = [
        (Kind::Created, after.is_shown && !before.is_shown),
        (Kind::Started, after.runs && !before.runs),
        (Kind::Stopped, after.is_over && !before.is_over || hidden && before.runs),
        // Its record could not be written at the last, and it is undone.
        (Kind::Deleted, hidden),
    ];
    kinds.into_iter().filter(|(_, happened)| *happened).map(|(kind, _)| kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: Seen = Seen { is_shown: false, runs: false, is_over: false };
    const IDLE: Seen = Seen { is_shown: true, runs: false, is_over: false };
    const RUNS: Seen = Seen { is_shown: true, runs: true, is_over: false };
    const OVER: Seen = Seen { is_shown: true, runs: false, is_over: true };

    #[test]
    fn a_change_is_what_one_sees_of_it() {
        use Kind::{Created, Deleted, Started, Stopped};
        assert_eq!(between(HIDDEN, HIDDEN), []);
        assert_eq!(between(HIDDEN, IDLE), [Created]);
        assert_eq!(between(IDLE, RUNS), [Started]);
        assert_eq!(between(RUNS, RUNS), [], "other things of it have changed");
        assert_eq!(between(RUNS, OVER), [Stopped]);
        assert_eq!(between(OVER, OVER), []);
        assert_eq!(between(HIDDEN, RUNS), [Created, Started], "a pod is made and started at once");
        assert_eq!(between(HIDDEN, OVER), [Created, Stopped], "one that failed, and is kept");
        assert_eq!(between(RUNS, HIDDEN), [Stopped, Deleted], "one that failed at the last");
        assert!(Seen::new(false, false, true) == HIDDEN);
    }

    fn event(n: usize) -> Event {
        Event { id: n.to_string(), kind: Kind::Created, at: 1, pod: None, containers: vec![] }
    }

    fn listen(events: &Events) -> Listener {
        Listener(events.sender().unwrap().subscribe())
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_hears_that_it_was() {
        let events = Events::default();
        let (mut slow, mut quick) = (listen(&events), listen(&events));
        for n in 0..=ROOM {
            events.tell(&[Kind::Created], |_| event(n));
            assert_eq!(quick.next().await.unwrap().id, n.to_string(), "others are not held up");
        }
        let error = slow.next().await.unwrap_err();
        assert_eq!(error.class(), Class::ResourceExhausted);
        assert!(error.chain().starts_with("1 events were lost"), "{error}");
    }

    #[tokio::test]
    async fn the_end_comes_after_what_was_told() {
        let events = Events::default();
        let mut listener = listen(&events);
        events.tell(&[Kind::Created], |_| event(1));
        events.end();
        assert_eq!(listener.next().await.unwrap().id, "1");
        assert_eq!(listener.next().await.unwrap_err().class(), Class::Unavailable);
        assert!(events.sender().is_none(), "and nobody can begin to listen");
    }

    #[test]
    fn without_a_listener_no_event_is_made() {
        let events = Events::default();
        events.tell(&[Kind::Created], |_| unreachable!());
        drop(listen(&events));
        events.tell(&[Kind::Created], |_| unreachable!());
    }
}
