//! Who gets in while the house is full: how many connections there may be in all, of one address and of one user, and how fast one address may
//! come.
//!
//! Shared by all shards. The one lock is taken when a connection opens and when it ends, for a few map operations, and never on the way of a
//! message; where nothing is limited it is never taken, and a connection pays one empty word.

mod handshakes;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::listener::first_bits;
use crate::metrics::RefusedBy;

pub(crate) use self::handshakes::Handshakes;

/// What one household or one server is given of IPv6: who has one address of it has them all.
const V6_PREFIX_BITS: u8 = 64;

/// Addresses that are remembered without a connection, only because they came lately. Are there more at a look, all of those are forgotten, and each
/// may come in a burst again; the next look comes before there are twice as many, so the memory is bounded.
const MAX_REMEMBERED: usize = 65_536;

/// The table is first looked through for addresses to forget at this size.
const FIRST_SWEEP: usize = 1024;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    table: Mutex<Table>,
}

/// What is limited. 0: it is not.
#[derive(Debug, Clone, Copy)]
struct AdmissionLimits {
    max_connections: usize,
    per_address: usize,
    per_user: usize,
    /// From one handshake to the next, in the long run. Zero: not limited.
    interval: Duration,
    /// What may be taken of it in advance.
    burst: Duration,
}

#[derive(Debug)]
struct Table {
    connections: usize,
    addresses: HashMap<Network, Visits>,
    users: HashMap<Arc<str>, usize>,
    sweep_at: usize,
}

/// An IPv4 address, or the first 64 bits of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

#[derive(Debug)]
struct Visits {
    open: usize,
    /// When all handshakes so far would have come, one interval after the other. In the past: nothing is owed.
    paid_until: Instant,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    MaxConnections,
    PerAddress,
    PerUser,
    /// The address may come again after this time.
    TooFast(Duration),
}

/// A connection's place in the counts; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place(Option<Box<Taken>>);

#[derive(Debug)]
struct Taken {
    admission: Arc<Admission>,
    network: Network,
    user: Option<Arc<str>>,
}

impl NoRoom {
    /// What it is counted as.
    pub(crate) fn refused_by(self) -> RefusedBy {
        match self {
            Self::MaxConnections => RefusedBy::MaxConnections,
            Self::PerAddress => RefusedBy::PerAddress,
            Self::PerUser => RefusedBy::PerUser,
            Self::TooFast(_) => RefusedBy::HandshakesPerSecond,
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let interval = Duration::from_secs(1).checked_div(limits.handshakes_per_second).unwrap_or_default();
        let limits = AdmissionLimits {
            max_connections: limits.max_connections,
            per_address: limits.per_address,
            per_user: limits.per_user,
            interval,
            burst: interval * limits.handshake_burst,
        };
        let (addresses, users) = Default::default();
        let table = Table { connections: 0, addresses, users, sweep_at: FIRST_SWEEP };
        Arc::new(Self { limits, table: Mutex::new(table) })
    }

    /// Gives a browser of this address a place, before it is known who it is.
    ///
    /// # Errors
    /// There is none; nothing is counted then but the handshake.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, NoRoom> {
        if !self.limits.is_any() {
            return Ok(Place(None));
        }
        let network = Network::of(address);
        self.table().admit(&self.limits, network, now)?;
        Ok(Place(Some(Box::new(Taken { admission: Arc::clone(self), network, user: None }))))
    }

    /// Counting never panics half-way, so a poisoned table is as good as any.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdmissionLimits {
    fn is_any(&self) -> bool {
        self.max_connections > 0 || self.per_user > 0 || self.is_by_address()
    }

    fn is_by_address(&self) -> bool {
        self.per_address > 0 || !self.interval.is_zero()
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            address @ IpAddr::V4(_) => address,
            address @ IpAddr::V6(_) => first_bits(address, V6_PREFIX_BITS),
        })
    }
}

impl Table {
    fn admit(&mut self, limits: &AdmissionLimits, network: Network, now: Instant) -> Result<(), NoRoom> {
        if limits.is_by_address() {
            self.sweep(now);
            let visits = self.addresses.entry(network).or_insert(Visits { open: 0, paid_until: now });
            let paid_until = visits.paid_until.max(now) + limits.interval;
            if let Some(too_early) = (paid_until - now).checked_sub(limits.burst).filter(|early| !early.is_zero()) {
                return Err(NoRoom::TooFast(too_early));
            }
            // A handshake that is refused for another reason was one too.
            visits.paid_until = paid_until;
        }
        if limits.max_connections > 0 && self.connections >= limits.max_connections {
            return Err(NoRoom::MaxConnections);
        }
        if let Some(visits) = self.addresses.get_mut(&network) {
            if limits.per_address > 0 && visits.open >= limits.per_address {
                return Err(NoRoom::PerAddress);
            }
            visits.open += 1;
        }
        self.connections += 1;
        Ok(())
    }

    /// Forgets who has no connection and owes nothing. Each look makes room for as many as are kept, so looking costs little per handshake.
    fn sweep(&mut self, now: Instant) {
        if self.addresses.len() < self.sweep_at {
            return;
        }
        self.addresses.retain(|_, visits| visits.open > 0 || visits.paid_until > now);
        let open = self.addresses.values().filter(|visits| visits.open > 0).count();
        if self.addresses.len() - open > MAX_REMEMBERED {
            self.addresses.retain(|_, visits| visits.open > 0);
        }
        self.addresses.shrink_to(self.addresses.len() * 2);
        self.sweep_at = (self.addresses.len() * 2).min(open + 2 * MAX_REMEMBERED).max(FIRST_SWEEP);
    }

    fn leave(&mut self, network: Network, user: Option<&Arc<str>>) {
        self.connections -= 1;
        if let Some(visits) = self.addresses.get_mut(&network) {
            visits.open -= 1;
        }
        if let Some(user) = user {
            self.leave_user(user);
        }
    }

    fn leave_user(&mut self, user: &Arc<str>) {
        if let Entry::Occupied(mut count) = self.users.entry(Arc::clone(user)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Place {
    /// Counts the place for this user too, and no more for the one it was counted for before. `None`: a guest, who is no user.
    ///
    /// # Errors
    /// The user has as many connections as one may have; nothing has changed then.
    pub(crate) fn take_for(&mut self, user: Option<&Arc<str>>) -> Result<(), NoRoom> {
        let Some(taken) = self.0.as_mut().filter(|taken| taken.admission.limits.per_user > 0) else { return Ok(()) };
        if taken.user.as_ref() == user {
            return Ok(());
        }
        let mut table = taken.admission.table();
        if let Some(user) = user {
            let count = table.users.entry(Arc::clone(user)).or_insert(0);
            // One that has no connection yet may always have one, so no entry without a connection is left here.
            if *count >= taken.admission.limits.per_user {
                return Err(NoRoom::PerUser);
            }
            *count += 1;
        }
        if let Some(before) = std::mem::replace(&mut taken.user, user.cloned()) {
            table.leave_user(&before);
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.admission.table().leave(self.network, self.user.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn admission(change: impl FnOnce(&mut Limits)) -> Arc<Admission> {
        let mut limits = Config::default().limits;
        change(&mut limits);
        Admission::new(&limits)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let admission = admission(|_| {});
        let mut place = admission.admit(ip("192.0.2.1"), Instant::now()).expect("room");
        assert!(place.0.is_none());
        assert_eq!(place.take_for(Some(&"42".into())), Ok(()));
        assert_eq!(size_of::<Place>(), size_of::<usize>());
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let admission = admission(|limits| limits.max_connections = 2);
        let now = Instant::now();
        let first = admission.admit(ip("192.0.2.1"), now).expect("room");
        let _second = admission.admit(ip("192.0.2.2"), now).expect("room");
        assert_eq!(admission.admit(ip("192.0.2.3"), now).expect_err("full"), NoRoom::MaxConnections);
        drop(first);
        assert!(admission.admit(ip("192.0.2.3"), now).is_ok());
    }

    #[test]
    fn an_address_is_counted_alone_and_ipv6_by_its_network() {
        let admission = admission(|limits| limits.per_address = 1);
        let now = Instant::now();
        let places = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"]
            .map(|address| admission.admit(ip(address), now).expect("room"));
        for again in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8:0:1:ffff::2"] {
            assert_eq!(admission.admit(ip(again), now).expect_err("one is there"), NoRoom::PerAddress, "{again}");
        }
        drop(places);
        assert!(admission.admit(ip("2001:db8:0:1:ffff::2"), now).is_ok());
    }

    #[test]
    fn a_user_is_counted_over_all_addresses_and_forgotten_with_the_last_connection() {
        let admission = admission(|limits| limits.per_user = 2);
        let now = Instant::now();
        let user: Arc<str> = "42".into();
        let place = |address| admission.admit(ip(address), now).expect("room");
        let mut places = [place("192.0.2.1"), place("192.0.2.2"), place("192.0.2.3")];
        assert_eq!(places.each_mut().map(|place| place.take_for(Some(&user))), [Ok(()), Ok(()), Err(NoRoom::PerUser)]);
        assert_eq!(places[2].take_for(Some(&"43".into())), Ok(()));
        // One that becomes another user is that one's.
        assert_eq!((places[0].take_for(Some(&"43".into())), places[2].take_for(Some(&user))), (Ok(()), Ok(())));
        assert_eq!(admission.table().users[&user], 2);
        drop(places);
        assert!(admission.table().users.is_empty());
        assert_eq!(admission.table().connections, 0);
    }

    #[test]
    fn an_address_may_come_in_a_burst_and_then_at_its_rate() {
        let admission = admission(|limits| (limits.handshakes_per_second, limits.handshake_burst) = (2, 3));
        let (address, began) = (ip("192.0.2.1"), Instant::now());
        let come = |at_ms| admission.admit(address, began + Duration::from_millis(at_ms)).map(drop);
        assert_eq!([come(0), come(0), come(0)], [Ok(()); 3]);
        assert_eq!(come(0), Err(NoRoom::TooFast(Duration::from_millis(500))));
        assert_eq!(come(400), Err(NoRoom::TooFast(Duration::from_millis(100))));
        assert_eq!(come(500), Ok(()));
        assert_eq!(come(999), Err(NoRoom::TooFast(Duration::from_millis(1))));
        // After a rest the whole burst is there again, and no more.
        assert_eq!([come(10_000), come(10_000), come(10_000)], [Ok(()); 3]);
        assert!(come(10_000).is_err());
        assert!(admission.admit(ip("192.0.2.2"), began).is_ok());
    }

    #[test]
    fn addresses_that_come_and_go_are_not_remembered() {
        let admission = admission(|limits| limits.handshakes_per_second = 1);
        let began = Instant::now();
        let mut most = 0;
        for number in 0..50_000_u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(number));
            // 1000 a second, of which each owes a second.
            let now = began + Duration::from_millis(1) * number;
            assert!(admission.admit(address, now).is_ok());
            most = most.max(admission.table().addresses.len());
        }
        assert!(most <= 2 * FIRST_SWEEP, "{most} were remembered");
    }

    #[test]
    fn addresses_that_owe_for_long_are_forgotten_at_the_bound() {
        let admission = admission(|limits| (limits.handshakes_per_second, limits.per_address) = (1, 5));
        let now = Instant::now();
        let open = admission.admit(ip("203.0.113.1"), now).expect("room");
        for number in 0..2 * u32::try_from(MAX_REMEMBERED).expect("it fits") {
            assert!(admission.admit(std::net::Ipv4Addr::from_bits(number).into(), now).is_ok());
        }
        assert!(admission.table().addresses.len() <= MAX_REMEMBERED + 2);
        assert_eq!(admission.table().addresses[&Network::of(ip("203.0.113.1"))].open, 1);
        drop(open);
    }
}
