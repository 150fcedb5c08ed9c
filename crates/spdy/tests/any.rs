//! Whatever is done and however the bytes are cut: nothing is lost, nothing panics.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use proptest::prelude::*;
use spdy::{Connection, Event, FlowControl, Headers, Limits, Role, StreamId};

use crate::common::*;

/// What is done next, by the client (0) or the server (1).
#[derive(Clone, Copy, Debug)]
enum Deed {
    Open,
    /// On which of the streams, how much, and whether that is the end.
    Say(usize, usize, usize, bool),
    /// By whom, and how many bytes at most.
    Carry(usize, usize),
    /// By whom: all that it holds is consumed.
    Consume(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        1 => Just(Deed::Open),
        8 => (0..2usize, 0..6usize, 0..40_000usize, prop::bool::weighted(0.1))
            .prop_map(|(who, which, length, fin)| Deed::Say(who, which, length, fin)),
        8 => (0..2usize, 1..50_000usize).prop_map(|(who, length)| Deed::Carry(who, length)),
        3 => (0..2usize).prop_map(Deed::Consume),
    ]
}

/// Both ends, and what was said and heard at each.
struct Talk {
    ends: [Connection; 2],
    streams: Vec<StreamId>,
    said: [BTreeMap<StreamId, (Vec<u8>, bool)>; 2],
    heard: [BTreeMap<StreamId, (Vec<u8>, bool)>; 2],
    unconsumed: [Vec<(StreamId, usize)>; 2],
    next: u8,
}

impl Talk {
    fn new(flow: FlowControl, limits: Limits) -> Self {
        let ends = [Role::Client, Role::Server].map(|role| Connection::new(role, flow, limits));
        let (said, heard, unconsumed) = Default::default();
        Self { ends, streams: Vec::new(), said, heard, unconsumed, next: 0 }
    }

    fn take(&mut self, deed: Deed) {
        match deed {
            Deed::Open => {
                let headers = named("data").with("n", &self.streams.len().to_string());
                self.streams.push(self.ends[0].open(&headers, false).unwrap());
            }
            Deed::Say(who, which, length, fin) => {
                let Some(stream) = self.streams.get(which).copied() else { return };
                let bytes: Vec<u8> = (0..length).map(|_| self.byte()).collect();
                let room = self.ends[who].room(stream);
                let Ok(sent) = self.ends[who].data(stream, &bytes, fin) else { return };
                assert_eq!(sent, room.min(length));
                let said = self.said[who].entry(stream).or_default();
                said.0.extend(&bytes[..sent]);
                said.1 |= fin && sent == length;
            }
            Deed::Carry(who, most) => self.carry(who, most),
            Deed::Consume(who) => {
                for (stream, n) in std::mem::take(&mut self.unconsumed[who]) {
                    self.ends[who].consumed(stream, n);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, most: usize) {
        let to = 1 - from;
        if !self.ends[to].wants_input() {
            return;
        }
        let bytes = self.ends[from].output();
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        self.ends[from].written(bytes.len());
        for event in events(&mut self.ends[to], &bytes) {
            self.hear(to, event);
        }
    }

    fn hear(&mut self, who: usize, event: Event) {
        match event {
            Event::Opened { stream, headers, .. } => {
                let n = self.streams.iter().position(|known| *known == stream).unwrap();
                assert_eq!(headers.get("n"), Some(&*n.to_string()));
                self.ends[who].reply(stream, &Headers::new()).unwrap();
            }
            Event::Answered { .. } => {}
            Event::Data { stream, bytes, fin } => {
                self.unconsumed[who].push((stream, bytes.len()));
                let heard = self.heard[who].entry(stream).or_default();
                assert!(!heard.1, "something came after the end");
                heard.0.extend(bytes);
                heard.1 = fin;
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everything on its way arrives.
    fn settle(&mut self) {
        for _ in 0..1000 {
            for who in [0, 1] {
                self.take(Deed::Carry(who, usize::MAX));
                self.take(Deed::Consume(who));
            }
            if self.ends.iter().all(|end| end.output().is_empty()) {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn byte(&mut self) -> u8 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

fn flow() -> impl Strategy<Value = FlowControl> {
    prop_oneof![Just(FlowControl::Honoured), Just(FlowControl::Ignored)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_said_is_heard(
        flow in flow(),
        held in 0..200_000usize,
        output in 100..100_000usize,
        deeds in prop::collection::vec(deed(), 0..200),
    ) {
        let mut talk = Talk::new(flow, Limits { held, output, ..Limits::default() });
        talk.take(Deed::Open);
        talk.settle();
        for deed in deeds {
            talk.take(deed);
        }
        talk.settle();
        for (from, to) in [(0, 1), (1, 0)] {
            talk.said[from].retain(|_, said| said.1 || !said.0.is_empty());
            prop_assert!(talk.said[from] == talk.heard[to]);
        }
        // And there is room again.
        talk.take(Deed::Open);
        talk.settle();
        let stream = *talk.streams.last().unwrap();
        prop_assert!(talk.ends.iter().all(|end| end.room(stream) > 0));
    }

    #[test]
    fn bytes_may_be_cut_anywhere(cuts in prop::collection::vec(1..60usize, 1..9), flow in flow()) {
        let bytes = conversation();
        let mut whole = Connection::new(Role::Server, flow, Limits::default());
        let mut cut = Connection::new(Role::Server, flow, Limits::default());
        let expected = joined(events(&mut whole, &bytes));
        let mut came = Vec::new();
        let mut rest = &bytes[..];
        for cut_at in cuts.iter().cycle() {
            let (some, more) = rest.split_at(rest.len().min(*cut_at));
            came.extend(events(&mut cut, some));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(joined(came), expected);
        prop_assert_eq!(written(&mut cut), written(&mut whole));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, flow in flow()) {
        let mut server = Connection::new(Role::Server, flow, Limits::default());
        server.receive(&bytes);
        told(&mut server);
    }

    #[test]
    fn no_change_of_good_bytes_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        flow in flow(),
    ) {
        let mut bytes = conversation();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at.index(length)] = byte;
        }
        let mut server = Connection::new(Role::Server, flow, Limits::default());
        server.receive(&bytes);
        let streams = told(&mut server).0.len();
        prop_assert!(streams <= 60);
        for stream in server.streams().collect::<Vec<_>>() {
            let _ = server.reply(stream, &Headers::new());
            let _ = server.data(stream, b"answer", true);
        }
    }
}

/// What a client sends that does a bit of everything.
fn conversation() -> Vec<u8> {
    let (mut client, mut server) = (client(), server(Limits::default()));
    let [first, second] = [(); 2].map(|()| client.open(&named("data"), false).unwrap());
    let mut all = client.output().to_vec();
    carry(&mut client, &mut server);
    for stream in [first, second] {
        server.reply(stream, &Headers::new()).unwrap();
    }
    carry(&mut server, &mut client);
    all.extend([control(6, 0, &[0, 0, 0, 1]), setting(7, 70_000), window(1, 99)].concat());
    client.data(first, b"something", false).unwrap();
    client.data(second, &[7; 300], true).unwrap();
    client.open(&named("error").with("port", "80"), true).unwrap();
    all.extend(written(&mut client));
    all.extend([reset(1, 5), data(1, 0, b"late"), data(99, 1, b"who?")].concat());
    client.go_away(spdy::Reason::OK);
    all.extend(written(&mut client));
    all
}
