//! Which streams of SPDY belong together for one connection to a port: one for errors and one for data,
//! of the same request. Nothing is opened here.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use spdy::Headers;
use tokio::time::Instant;

use crate::{gather::TYPE, wire::Lane};

/// Longer than any client's.
const REQUEST: usize = 64;

/// What one stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    request: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Data,
}

impl Half {
    /// From the headers of a stream, if they are those of a port-forward.
    pub(crate) fn read(lane: Lane, headers: &Headers) -> Option<Self> {
        let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
        let kind = match headers.get(TYPE)? {
            "error" => Kind::Error,
            "data" => Kind::Data,
            _ => return None,
        };
        let request = match headers.get("requestid") {
            Some(request) if !request.is_empty() => request.to_owned(),
            // Old clients say none, and open the stream for data right after that for errors.
            _ if kind == Kind::Error => lane.to_string(),
            _ => lane.saturating_sub(2).to_string(),
        };
        (request.len() <= REQUEST).then_some(Self { kind, port, request })
    }
}

/// Halves that wait for the other, each with what its owner keeps of it.
pub(crate) struct Pairs<T> {
    halves: BTreeMap<String, (Instant, Half, T)>,
    patience: Duration,
}

/// What came of a half.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Matched<T> {
    Waits,
    Pair {
        error: T,
        data: T,
        port: u16,
    },
    /// The request has that half already.
    Twice(T),
}

impl<T> Pairs<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { halves: BTreeMap::new(), patience }
    }

    pub(crate) fn len(&self) -> usize {
        self.halves.len()
    }

    pub(crate) fn add(&mut self, half: Half, kept: T) -> Matched<T> {
        match self.halves.entry(half.request.clone()) {
            Entry::Vacant(place) => {
                place.insert((Instant::now() + self.patience, half, kept));
                Matched::Waits
            }
            Entry::Occupied(place) if place.get().1.kind == half.kind => Matched::Twice(kept),
            Entry::Occupied(place) => {
                let (_, first, other) = place.remove();
                let (error, data, port) = match half.kind {
                    Kind::Data => (other, kept, half.port),
                    Kind::Error => (kept, other, first.port),
                };
                Matched::Pair { error, data, port }
            }
        }
    }

    /// When the first of them has waited for too long.
    pub(crate) fn first_end(&self) -> Option<Instant> {
        self.halves.values().map(|(end, ..)| *end).min()
    }

    /// Those that have waited for too long.
    pub(crate) fn expired(&mut self) -> Vec<(Half, T)> {
        let now = Instant::now();
        let expired = self.halves.extract_if(.., |_, (end, ..)| *end <= now);
        expired.map(|(_, (_, half, kept))| (half, kept)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(lane: Lane, headers: &[(&str, &str)]) -> Option<Half> {
        let headers =
            headers.iter().fold(Headers::new(), |all, (name, value)| all.with(name, value));
        Half::read(lane, &headers)
    }

    fn request(lane: Lane, kind: &str, request: &str) -> Half {
        half(lane, &[("streamType", kind), ("port", "80"), ("requestID", request)]).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn halves_of_one_request_are_a_pair_in_whatever_order_they_come() {
        let mut pairs = Pairs::new(Duration::from_secs(30));
        assert_eq!(pairs.add(request(1, "error", "0"), 1), Matched::Waits);
        assert_eq!(pairs.add(request(3, "data", "1"), 3), Matched::Waits);
        assert_eq!(pairs.add(request(5, "data", "1"), 5), Matched::Twice(5));
        let second = Matched::Pair { error: 7, data: 3, port: 80 };
        assert_eq!(pairs.add(request(7, "error", "1"), 7), second);
        let first = Matched::Pair { error: 1, data: 9, port: 80 };
        assert_eq!(pairs.add(request(9, "data", "0"), 9), first);
        assert_eq!(pairs.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_request_the_stream_before_is_the_other_half() {
        let mut pairs = Pairs::new(Duration::from_secs(30));
        let old = |lane, kind| half(lane, &[("streamtype", kind), ("port", "80")]).unwrap();
        assert_eq!(pairs.add(old(5, "error"), 5), Matched::Waits);
        assert_eq!(pairs.add(old(9, "data"), 9), Matched::Waits);
        let pair = Matched::Pair { error: 5, data: 7, port: 80 };
        assert_eq!(pairs.add(old(7, "data"), 7), pair);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_is_waited_for_as_long_as_was_said() {
        let mut pairs = Pairs::new(Duration::from_secs(30));
        pairs.add(request(1, "error", "0"), 1);
        tokio::time::advance(Duration::from_secs(29)).await;
        pairs.add(request(3, "error", "1"), 3);
        assert_eq!(pairs.expired(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pairs.expired(), [(request(1, "error", "0"), 1)]);
        assert_eq!(pairs.first_end(), Some(Instant::now() + Duration::from_secs(29)));
    }

    #[test]
    fn what_is_not_for_a_port_is_none() {
        let good = [("streamtype", "data"), ("port", "80")];
        assert!(half(1, &good).is_some());
        for bad in ["0", "65536", "-1", "", "http"] {
            assert_eq!(half(1, &[good[0], ("port", bad)]), None, "{bad}");
        }
        let long = "1".repeat(REQUEST + 1);
        let rest: [&[(&str, &str)]; 4] = [
            &[good[0]],
            &[good[1]],
            &[good[1], ("streamtype", "stdin")],
            &[good[0], good[1], ("requestid", &long)],
        ];
        assert!(rest.iter().all(|headers| half(1, headers).is_none()));
    }
}
