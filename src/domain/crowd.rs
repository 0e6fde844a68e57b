//! Who holds a place without having proved who it is, and who has to give one up for the next when all are taken.
//!
//! Nobody knows which of them is good, so network addresses are treated alike:
//!
//! - The address that holds most gives up one of its own: so a few addresses, however long they stall, keep no other out.
//! - Among equals the one that has said nothing for longest goes: it costs its client the least.
//! - When nobody holds more than one, and all of them speak, the next waits for a while. So many producers that come back
//!   at once do not push each other out of their handshakes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::addresses::{Addresses, Network};

/// A client that holds a place may keep those who come waiting for so long. Then it goes for the next.
pub const STALLED: Duration = Duration::from_secs(1);

/// Those who hold a place.
#[derive(Debug, Default)]
pub struct Crowd {
    /// By their number, in the order in which they came.
    members: BTreeMap<u64, Member>,
    of_network: Addresses,
    next: u64,
}

#[derive(Debug)]
struct Member {
    network: Network,
    waits_for: WaitsFor,
}

/// What a member waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// Its first word, since a moment on the monotonic clock.
    FirstWord(Duration),
    Us,
    /// Its next word, since then.
    NextWord(Duration),
}

/// What becomes of somebody who comes when all places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The member of this number ends for it. It is no member any more.
    Ends(u64),
    /// It waits so long for a place that becomes free. Then it is asked again.
    Waits(Duration),
    /// Its own address holds most: it is refused.
    Refused,
}

impl Crowd {
    /// Somebody has taken a place. Its number.
    pub fn enter(&mut self, network: Network, now: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.members.insert(number, Member { network, waits_for: WaitsFor::FirstWord(now) });
        self.of_network.add(network);
        number
    }

    /// It has said what it has to, and waits for us.
    pub fn spoken(&mut self, number: u64) {
        self.now_waits(number, WaitsFor::Us);
    }

    /// We have answered, and wait for its next word.
    pub fn answered(&mut self, number: u64, now: Duration) {
        self.now_waits(number, WaitsFor::NextWord(now));
    }

    fn now_waits(&mut self, number: u64, waits_for: WaitsFor) {
        if let Some(member) = self.members.get_mut(&number) {
            member.waits_for = waits_for;
        }
    }

    /// It has gone, or has proved who it is.
    pub fn leave(&mut self, number: u64) {
        if let Some(member) = self.members.remove(&number) {
            self.of_network.remove(member.network);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What becomes of somebody who comes from a network when all places are taken.
    pub fn choose(&mut self, newcomer: Network, now: Duration) -> Choice {
        let (own, greatest) = (self.of_network.count(newcomer), self.of_network.greatest());
        // Nobody gives way to an address that would then hold more than its own did.
        let is_greedy = greatest > own + 1;
        let gives_way = |member: &Member| {
            let held = self.of_network.count(member.network);
            if is_greedy { held == greatest } else { held > own || member.network == newcomer }
        };
        let (mut oldest, mut stalled, mut frees_in) = (None, None, STALLED);
        for (number, member) in self.members.iter().filter(|(_, member)| gives_way(member)) {
            match member.waits_for {
                WaitsFor::FirstWord(_) => return self.ends(*number),
                WaitsFor::Us => {}
                WaitsFor::NextWord(since) => {
                    let left = (since + STALLED).saturating_sub(now);
                    frees_in = frees_in.min(left);
                    stalled = stalled.or_else(|| left.is_zero().then_some(*number));
                }
            }
            oldest = oldest.or(Some(*number));
        }
        let others = self.members.len() - own;
        match (oldest.filter(|_| is_greedy).or(stalled), greatest <= 1 || others == 0) {
            (Some(number), _) => self.ends(number),
            (None, true) => Choice::Waits(frees_in),
            (None, false) => Choice::Refused,
        }
    }

    fn ends(&mut self, number: u64) -> Choice {
        self.leave(number);
        Choice::Ends(number)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn network(number: u32) -> Network {
        Network::of(Ipv4Addr::from_bits(number).into())
    }

    /// A crowd with so many of each network, all of which have been answered.
    fn stalled_since(since: Duration, of_each: &[(u32, usize)]) -> Crowd {
        let mut crowd = Crowd::default();
        for (number, many) in of_each {
            for _ in 0..*many {
                let entered = crowd.enter(network(*number), since);
                crowd.spoken(entered);
                crowd.answered(entered, since);
            }
        }
        crowd
    }

    #[test]
    fn the_address_that_holds_most_gives_way_to_others_and_not_to_itself() {
        let mut crowd = stalled_since(NOW, &[(1, 3), (2, 4), (3, 1)]);
        assert_eq!(crowd.choose(network(9), NOW), Choice::Ends(3), "the oldest of the second");
        assert_eq!(crowd.choose(network(9), NOW), Choice::Ends(0), "the first and the second are equal");
        assert_eq!(crowd.choose(network(2), NOW), Choice::Refused);
        assert_eq!(crowd.choose(network(3), NOW), Choice::Ends(4));
        assert_eq!(crowd.len(), 5);
    }

    #[test]
    fn four_addresses_that_come_as_fast_as_they_can_push_nobody_out() {
        let mut crowd = stalled_since(NOW, &[(1, 64), (2, 64), (3, 64), (4, 64)]);
        assert!(matches!(crowd.choose(network(9), NOW), Choice::Ends(_)));
        // It has not even said its first word.
        let good = crowd.enter(network(9), NOW);
        for step in 0..10_000_u32 {
            let now = NOW + Duration::from_millis(u64::from(step));
            if let Choice::Ends(number) = crowd.choose(network(1 + step % 4), now) {
                assert_ne!(number, good);
                let entered = crowd.enter(network(1 + step % 4), now);
                crowd.answered(entered, now);
            }
        }
        assert_eq!(crowd.len(), 256);
    }

    #[test]
    fn among_equals_the_silent_go_first_and_then_those_that_stall() {
        let mut crowd = stalled_since(NOW, &[(1, 1), (2, 1)]);
        let (silent, ours) = (crowd.enter(network(3), NOW), crowd.enter(network(4), Duration::ZERO));
        crowd.spoken(ours);
        assert_eq!(crowd.choose(network(9), NOW), Choice::Ends(silent));
        assert_eq!(crowd.choose(network(9), NOW), Choice::Waits(STALLED));
        assert_eq!(crowd.choose(network(9), NOW + STALLED / 4), Choice::Waits(STALLED * 3 / 4));
        assert_eq!(crowd.choose(network(9), NOW + STALLED), Choice::Ends(0));
        assert_eq!(crowd.choose(network(9), NOW + STALLED), Choice::Ends(1));
        // Who waits for us is not to blame for it.
        assert_eq!(crowd.choose(network(9), NOW + STALLED), Choice::Waits(STALLED));
        crowd.leave(ours);
        assert!(crowd.is_empty());
    }

    #[test]
    fn one_address_alone_waits_for_itself() {
        let mut crowd = stalled_since(NOW, &[(1, 5)]);
        assert_eq!(crowd.choose(network(1), NOW), Choice::Waits(STALLED));
        assert_eq!(crowd.choose(network(1), NOW + STALLED), Choice::Ends(0));
        let mut beside = stalled_since(NOW, &[(1, 4), (2, 1)]);
        assert_eq!(beside.choose(network(1), NOW), Choice::Refused);
    }
}
