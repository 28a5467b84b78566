//! Owns who was turned away since the last flush: counted per kind and peer, so that an attack is a few
//! events and not a flood of them. It must never grow beyond its bound, nor keep a caller's text as it came.

use std::collections::HashMap;
use std::net::IpAddr;

use domain::system::{Offence, Security};
use parking_lot::Mutex;

use crate::http::query::shown;

/// Counts who was turned away, by `kind`.
pub const OFFENCES_TOTAL: &str = "photon_security_refusals_total";

/// Peers that are told apart; the rest is counted together.
const PEERS_MAX: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Peer {
    At(IpAddr),
    Unknown,
    Other,
}

#[derive(Default)]
struct Counted {
    times: u64,
    detail: Option<String>,
}

/// Who was turned away since the last flush.
#[derive(Default)]
pub struct Offences(Mutex<HashMap<(Offence, Peer), Counted>>);

impl Offences {
    /// Counts one. `asked` is what the caller sent: the first one's is kept, shortened.
    pub fn count(&self, kind: Offence, peer: Option<IpAddr>, asked: &str) {
        let mut counted = self.0.lock();
        let mut key = (kind, peer.map_or(Peer::Unknown, |address| Peer::At(address.to_canonical())));
        if counted.len() >= PEERS_MAX && !counted.contains_key(&key) {
            key.1 = Peer::Other;
        }
        let entry = counted.entry(key).or_default();
        if entry.times == 0 && key.1 != Peer::Other && !asked.is_empty() {
            entry.detail = Some(shown(asked));
        }
        entry.times += 1;
    }

    /// Takes what was counted, one event per kind and peer, and begins anew.
    #[must_use]
    pub fn take(&self) -> Vec<Security> {
        let mut counted: Vec<_> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        counted.sort_unstable_by_key(|(key, _)| *key);
        let told = |((kind, peer), Counted { times, detail })| {
            let peer = match peer {
                Peer::At(address) => address.to_string(),
                Peer::Unknown => "unknown".into(),
                Peer::Other => "other".into(),
            };
            Security { kind, peer, count: times, detail }
        };
        counted.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_peer_and_kind_is_one_event_with_the_first_detail() {
        let (offences, peer) = (Offences::default(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let mapped = Some(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        offences.count(Offence::OriginNotAllowed, peer, "http://evil.test\r\n");
        offences.count(Offence::OriginNotAllowed, mapped, "http://worse.test");
        offences.count(Offence::HostNotAllowed, peer, &"x".repeat(1_000));
        offences.count(Offence::HostNotAllowed, None, "");
        let taken = offences.take();
        let seen: Vec<_> = taken.iter().map(|one| (one.kind, one.peer.as_str(), one.count)).collect();
        let expected = [
            (Offence::HostNotAllowed, "127.0.0.1", 1),
            (Offence::HostNotAllowed, "unknown", 1),
            (Offence::OriginNotAllowed, "127.0.0.1", 2),
        ];
        assert_eq!(seen, expected);
        assert_eq!(taken[0].detail.as_ref().unwrap().len(), 64);
        assert_eq!((&taken[1].detail, taken[2].detail.as_deref()), (&None, Some("http://evil.test??")));
        assert!(offences.take().is_empty());
    }

    #[test]
    fn peers_beyond_the_bound_are_counted_together() {
        let offences = Offences::default();
        for number in 0..5_000 {
            offences.count(Offence::HostNotAllowed, Some(IpAddr::V4(Ipv4Addr::from_bits(number))), "h");
        }
        let taken = offences.take();
        assert_eq!(taken.len(), PEERS_MAX + 1);
        let other = taken.last().unwrap();
        assert_eq!((other.peer.as_str(), other.count, &other.detail), ("other", 4_000, &None));
        assert_eq!(taken.iter().map(|one| one.count).sum::<u64>(), 5_000);
    }
}
