//! Whose turn it is: how many calls run at once, in all and per user, and who waits.
//!
//! Users take turns: of those that wait, the one that has waited longest for a turn goes next and then stands at the end
//! of the line, so one user's thousand calls delay another's one by at most one call. Messages and pushed requests have a line
//! each, and the lines take turns too: a request pushed to ten thousand users delays a message by at most one call. When the
//! house is full, the user with the longest queue is refused, not the one who comes last. This is the one place where shards meet
//! on the way of a message; the lock is held for a few map operations, never across a system call.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use wootz_runner::CallEvent;

/// How many calls run, and how many wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnLimits {
    pub(crate) per_connection: usize,
    pub(crate) per_user: usize,
    pub(crate) max_running: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_waiting_bytes: usize,
    pub(crate) max_wait: Duration,
}

impl TurnLimits {
    /// Whether the running calls of this party have to be counted: a guest has one connection, which counts for itself.
    fn counts(&self, party: &Party) -> bool {
        match party {
            Party::User(_) => true,
            Party::Guest(_) => self.per_connection > self.per_user,
        }
    }
}

/// Who takes turns with whom: a user, or a guest's connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    User(Arc<str>),
    Guest(u128),
}

/// What a call is for: each kind has its own line, and its own `max_waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// A browser waits for the answer: messages, and the events of a connection.
    Messages,
    /// Something on the host pushed a request.
    Pushes,
}

impl Share {
    const COUNT: usize = 2;

    pub(crate) fn of(event: CallEvent) -> Self {
        match event {
            CallEvent::Message | CallEvent::Validate | CallEvent::Connect | CallEvent::Disconnect => Self::Messages,
            CallEvent::Push => Self::Pushes,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Messages => 0,
            Self::Pushes => 1,
        }
    }
}

impl Waits {
    fn counted_bytes(self) -> usize {
        match self {
            Self::InLine { message_bytes } => message_bytes,
            Self::InItsPlace => 0,
        }
    }
}

/// Why a call gets no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    #[error("no room: too many calls wait already (application.limits.max_waiting, max_waiting_bytes)")]
    Full,
    #[error("no turn within application.limits.max_wait")]
    WaitedTooLong,
    #[error("the application could not be reached several times in a row, and is left alone for a moment")]
    LeftAlone,
}

/// The turns of all shards.
#[derive(Debug)]
pub(crate) struct Turns {
    limits: TurnLimits,
    state: Mutex<State>,
    /// Pushed requests that have a place, wherever they wait, and their bytes.
    places: AtomicUsize,
    placed_bytes: AtomicUsize,
}

/// A place for one pushed request from its push until it runs; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    bytes: usize,
}

/// What a call that waits may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// One of `max_waiting`, and so many of `max_waiting_bytes`.
    InLine { message_bytes: usize },
    /// It has a [`Place`], which was counted already.
    InItsPlace,
}

impl Waits {
    /// For a call that has no message.
    pub(crate) const EMPTY: Self = Self::InLine { message_bytes: 0 };
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.places.fetch_sub(1, Ordering::Relaxed);
        self.turns.placed_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What `wootz status` tells of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TurnCounts {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    parties: HashMap<Party, PartyTurns>,
    lines: [Line; Share::COUNT],
    /// The line that is asked first for the next turn.
    next_line: usize,
    /// What the waiting calls hold, until their futures are gone.
    waiting_bytes: usize,
    waiters: Slab<Waiter>,
}

/// Those of one share that wait.
#[derive(Debug, Default)]
struct Line {
    waiting: usize,
    /// Parties that wait and may run one more, longest wait first. Each stands here at most once.
    parties: VecDeque<Party>,
}

#[derive(Debug, Default)]
struct PartyTurns {
    running: usize,
    queues: [PartyQueue; Share::COUNT],
}

#[derive(Debug, Default)]
struct PartyQueue {
    waiters: VecDeque<usize>,
    in_line: bool,
}

impl PartyTurns {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.queues.iter().all(|queue| queue.waiters.is_empty())
    }
}

#[derive(Debug)]
enum Waiter {
    Waiting(Option<Waker>),
    Granted,
    Refused,
}

/// The right to run one call; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    party: Party,
    waited: Duration,
}

impl Turn {
    /// How long the call waited for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Turns {
    pub(crate) fn new(limits: TurnLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            places: AtomicUsize::new(0),
            placed_bytes: AtomicUsize::new(0),
        })
    }

    /// A place for a pushed request: as many as may wait and run have one, with as many bytes as may wait. `None`: it has to be dropped
    /// now, when whoever pushed it is told, rather than later when nobody is.
    pub(crate) fn reserve_place(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let most = self.limits.max_waiting.saturating_add(self.limits.max_running);
        let places = self.places.fetch_add(1, Ordering::Relaxed);
        let placed_bytes = self.placed_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Its drop takes the place back where there was none.
        let place = Place { turns: Arc::clone(self), bytes };
        let fits = placed_bytes == 0 || placed_bytes.saturating_add(bytes) <= self.limits.max_waiting_bytes;
        (places < most && fits).then_some(place)
    }

    /// Waits for a turn of this party.
    ///
    /// # Errors
    /// [`Busy::Full`] at once where nobody else may wait, or later when a party that waits less needs the place;
    /// [`Busy::WaitedTooLong`] after `max_wait`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(crate) async fn acquire(self: &Arc<Self>, party: Party, share: Share, waits: Waits) -> Result<Turn, Busy> {
        let waiter = match self.lock().enter(&party, share, waits, &self.limits)? {
            Entered::Running => return Ok(Turn { turns: Arc::clone(self), party, waited: Duration::ZERO }),
            Entered::Waiting(waiter) => waiter,
        };
        let began = Instant::now();
        let waiting =
            Waiting { turns: Arc::clone(self), party, share, message_bytes: waits.counted_bytes(), waiter, began };
        // Boxed, because a call that gets its turn at once, as nearly all do, should have no room for a wait.
        Box::pin(tokio::time::timeout(self.limits.max_wait, waiting)).await.unwrap_or(Err(Busy::WaitedTooLong))
    }

    pub(crate) fn counts(&self) -> TurnCounts {
        let state = self.lock();
        TurnCounts { running: state.running, waiting: state.lines.iter().map(|line| line.waiting).sum() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state half changed, so a panic elsewhere is no reason to stop everybody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entered {
    Running,
    Waiting(usize),
}

impl State {
    fn enter(&mut self, party: &Party, share: Share, waits: Waits, limits: &TurnLimits) -> Result<Entered, Busy> {
        let line = share.index();
        // While nobody waits, only parties that are counted are known.
        let turns = if limits.counts(party) || !self.parties.is_empty() { self.parties.get(party) } else { None };
        let (running, queued) = turns.map_or((0, 0), |turns| (turns.running, turns.queues[line].waiters.len()));
        // Whoever waits already goes first: a newcomer that finds a free place while its party queues would overtake.
        let nobody_waits = self.lines.iter().all(|line| line.parties.is_empty());
        if queued == 0 && running < limits.per_user && self.running < limits.max_running && nobody_waits {
            self.running += 1;
            if limits.counts(party) {
                self.parties.entry(party.clone()).or_default().running += 1;
            }
            return Ok(Entered::Running);
        }
        if let Waits::InLine { message_bytes } = waits {
            if self.lines[line].waiting >= limits.max_waiting {
                self.make_room(line, queued)?;
            }
            if self.waiting_bytes > 0 && self.waiting_bytes.saturating_add(message_bytes) > limits.max_waiting_bytes {
                return Err(Busy::Full);
            }
        }
        self.waiting_bytes += waits.counted_bytes();
        let waiter = self.waiters.insert(Waiter::Waiting(None));
        self.lines[line].waiting += 1;
        self.parties.entry(party.clone()).or_default().queues[line].waiters.push_back(waiter);
        self.stand_in_line(party, line, limits);
        self.grant(limits);
        Ok(Entered::Waiting(waiter))
    }

    /// Refuses the newest call of the longest queue, if that is longer than the newcomer's would be.
    fn make_room(&mut self, line: usize, newcomer_queued: usize) -> Result<(), Busy> {
        let queues = self.parties.values_mut().map(|turns| &mut turns.queues[line].waiters);
        let longest = queues.max_by_key(|waiters| waiters.len()).filter(|waiters| waiters.len() > newcomer_queued + 1);
        let waiter = longest.and_then(VecDeque::pop_back).ok_or(Busy::Full)?;
        self.lines[line].waiting -= 1;
        self.decide(waiter, Waiter::Refused);
        Ok(())
    }

    fn stand_in_line(&mut self, party: &Party, line: usize, limits: &TurnLimits) {
        let Some(turns) = self.parties.get_mut(party) else { return };
        let may_run = turns.running < limits.per_user;
        let queue = &mut turns.queues[line];
        if may_run && !queue.in_line && !queue.waiters.is_empty() {
            queue.in_line = true;
            self.lines[line].parties.push_back(party.clone());
        }
    }

    /// Gives out every turn that is free, to the lines in turn.
    fn grant(&mut self, limits: &TurnLimits) {
        while self.running < limits.max_running {
            let lines = (0..Share::COUNT).map(|offset| (self.next_line + offset) % Share::COUNT);
            let Some(line) = lines.into_iter().find(|&line| !self.lines[line].parties.is_empty()) else { return };
            self.grant_from(line, limits);
        }
    }

    fn grant_from(&mut self, line: usize, limits: &TurnLimits) {
        let Some(party) = self.lines[line].parties.pop_front() else { return };
        let Some(turns) = self.parties.get_mut(&party) else { return };
        let queue = &mut turns.queues[line];
        queue.in_line = false;
        // Its last waiter may have left, or the other line may have given the party its last turn.
        if turns.running >= limits.per_user {
            return;
        }
        let Some(waiter) = queue.waiters.pop_front() else { return };
        turns.running += usize::from(limits.counts(&party));
        self.running += 1;
        self.lines[line].waiting -= 1;
        self.next_line = (line + 1) % Share::COUNT;
        self.decide(waiter, Waiter::Granted);
        self.forget_idle(&party);
        self.stand_in_line(&party, line, limits);
    }

    fn decide(&mut self, waiter: usize, decision: Waiter) {
        if let Waiter::Waiting(Some(waker)) = std::mem::replace(&mut self.waiters[waiter], decision) {
            waker.wake();
        }
    }

    fn end(&mut self, party: &Party, limits: &TurnLimits) {
        self.running -= 1;
        if limits.counts(party) {
            if let Some(turns) = self.parties.get_mut(party) {
                turns.running -= 1;
            }
            self.forget_idle(party);
            for line in 0..Share::COUNT {
                self.stand_in_line(party, line, limits);
            }
        }
        self.grant(limits);
    }

    fn forget_idle(&mut self, party: &Party) {
        if self.parties.get(party).is_some_and(PartyTurns::is_idle) {
            self.parties.remove(party);
        }
    }

    /// Somebody who waited has gone, or has seen the decision.
    fn leave(&mut self, waiting: &Waiting) {
        let Waiting { turns, party, share, message_bytes, waiter, .. } = waiting;
        let limits = &turns.limits;
        self.waiting_bytes -= message_bytes;
        match self.waiters.remove(*waiter) {
            Waiter::Waiting(_) => {
                self.lines[share.index()].waiting -= 1;
                if let Some(turns) = self.parties.get_mut(party) {
                    turns.queues[share.index()].waiters.retain(|queued| queued != waiter);
                }
                self.forget_idle(party);
            }
            Waiter::Granted => self.end(party, limits),
            Waiter::Refused => self.forget_idle(party),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().end(&self.party, &self.turns.limits);
    }
}

/// A place in the line.
struct Waiting {
    turns: Arc<Turns>,
    party: Party,
    share: Share,
    message_bytes: usize,
    waiter: usize,
    began: Instant,
}

impl Future for Waiting {
    type Output = Result<Turn, Busy>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.turns.lock();
        match &mut state.waiters[self.waiter] {
            Waiter::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            seen @ Waiter::Granted => {
                // The turn is the `Turn`'s to give back from now on, not this place's.
                *seen = Waiter::Refused;
                let waited = self.began.elapsed();
                Poll::Ready(Ok(Turn { turns: Arc::clone(&self.turns), party: self.party.clone(), waited }))
            }
            Waiter::Refused => Poll::Ready(Err(Busy::Full)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.lock().leave(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Acquire = Pin<Box<dyn Future<Output = Result<Turn, Busy>>>>;

    fn turns(per_user: usize, max_running: usize, max_waiting: usize) -> Arc<Turns> {
        Turns::new(TurnLimits {
            per_connection: 1,
            per_user,
            max_running,
            max_waiting,
            max_waiting_bytes: 1000,
            max_wait: Duration::from_secs(5),
        })
    }

    fn user(name: &str) -> Party {
        Party::User(Arc::from(name))
    }

    fn acquire(turns: &Arc<Turns>, party: Party) -> Acquire {
        acquire_for(turns, party, Share::Messages)
    }

    fn acquire_for(turns: &Arc<Turns>, party: Party, share: Share) -> Acquire {
        let turns = Arc::clone(turns);
        Box::pin(async move { turns.acquire(party, share, Waits::InLine { message_bytes: 1 }).await })
    }

    fn poll(acquire: &mut Acquire) -> Option<Result<Turn, Busy>> {
        match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn run(turns: &Arc<Turns>, party: Party) -> Turn {
        poll(&mut acquire(turns, party)).expect("a turn at once").expect("a turn")
    }

    fn paused(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn one_user_runs_at_most_per_user_calls_and_the_others_go_on() {
        paused(async {
            let turns = turns(2, 10, 10);
            let _first = run(&turns, user("1"));
            let second = run(&turns, user("1"));
            let mut third = acquire(&turns, user("1"));
            assert!(poll(&mut third).is_none());
            let _other = run(&turns, user("12"));
            drop(second);
            assert!(poll(&mut third).is_some_and(|turn| turn.is_ok()));
        });
    }

    #[test]
    fn a_flood_of_one_user_delays_another_by_one_call_at_most() {
        paused(async {
            let turns = turns(10, 1, 100);
            let mut running = run(&turns, user("flood"));
            let mut flood: Vec<Acquire> = (0..50).map(|_| acquire(&turns, user("flood"))).collect();
            flood.iter_mut().for_each(|waiting| assert!(poll(waiting).is_none()));
            let mut other = acquire(&turns, user("other"));
            assert!(poll(&mut other).is_none());
            let mut calls_before = 0;
            let _other = loop {
                drop(running);
                if let Some(turn) = poll(&mut other) {
                    break turn.expect("a turn");
                }
                running = flood.iter_mut().find_map(poll).expect("a turn for somebody").expect("a turn");
                drop(flood.remove(0));
                calls_before += 1;
            };
            assert!(calls_before <= 1, "{calls_before} calls of the flood went first");
        });
    }

    #[test]
    fn a_full_house_refuses_the_longest_queue_not_the_newcomer() {
        paused(async {
            let turns = turns(10, 1, 3);
            let _running = run(&turns, user("flood"));
            let mut flood: Vec<Acquire> = (0..3).map(|_| acquire(&turns, user("flood"))).collect();
            flood.iter_mut().for_each(|waiting| assert!(poll(waiting).is_none()));
            assert_eq!(poll(&mut acquire(&turns, user("flood"))).map(Result::err), Some(Some(Busy::Full)));
            let mut other = acquire(&turns, user("other"));
            assert!(poll(&mut other).is_none(), "the newcomer waits");
            assert_eq!(poll(&mut flood[2]).map(Result::err), Some(Some(Busy::Full)), "the flood's newest gives way");
            assert_eq!(turns.counts(), TurnCounts { running: 1, waiting: 3 });
        });
    }

    #[test]
    fn requests_pushed_to_everybody_delay_a_message_by_one_call_at_most() {
        paused(async {
            let turns = turns(4, 1, 100);
            let running = run(&turns, user("0"));
            let pushed = |n: usize| acquire_for(&turns, user(&n.to_string()), Share::Pushes);
            let mut pushes: Vec<Acquire> = (1..=100).map(pushed).collect();
            pushes.iter_mut().for_each(|waiting| assert!(poll(waiting).is_none()));
            let full = poll(&mut acquire_for(&turns, user("101"), Share::Pushes));
            assert_eq!(full.map(Result::err), Some(Some(Busy::Full)), "pushes have their bound");
            let mut message = acquire(&turns, user("7"));
            assert!(poll(&mut message).is_none(), "and messages their own");
            drop(running);
            let first_push = pushes.iter_mut().find_map(poll);
            if let Some(turn) = first_push {
                assert!(poll(&mut message).is_none());
                drop(turn);
            }
            assert!(poll(&mut message).is_some_and(|turn| turn.is_ok()));
        });
    }

    #[test]
    fn waiting_calls_are_bounded_by_their_bytes_and_one_may_always_wait() {
        paused(async {
            let turns = turns(10, 1, 100);
            let long = |name: &str, bytes| {
                let (turns, party) = (Arc::clone(&turns), user(name));
                Box::pin(
                    async move { turns.acquire(party, Share::Messages, Waits::InLine { message_bytes: bytes }).await },
                ) as Acquire
            };
            let running = run(&turns, user("0"));
            let mut first = long("1", 5000);
            assert!(poll(&mut first).is_none(), "one may wait, however long");
            assert_eq!(poll(&mut long("2", 1)).map(Result::err), Some(Some(Busy::Full)));
            drop(first);
            let (mut second, mut third) = (long("2", 600), long("3", 400));
            assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
            assert_eq!(poll(&mut long("4", 1)).map(Result::err), Some(Some(Busy::Full)));
            drop(running);
            let second = poll(&mut second).expect("its turn");
            assert!(poll(&mut long("4", 600)).is_none(), "what runs waits no more");
            drop((second, third));
            assert_eq!(turns.lock().waiting_bytes, 0);
        });
    }

    #[test]
    fn whoever_goes_away_leaves_no_trace() {
        paused(async {
            let turns = turns(1, 1, 10);
            let running = run(&turns, user("1"));
            let mut waiting = acquire(&turns, user("1"));
            assert!(poll(&mut waiting).is_none());
            drop(waiting);
            let mut granted = acquire(&turns, user("2"));
            assert!(poll(&mut granted).is_none());
            drop(running);
            // Granted, never looked at: the turn must not be lost.
            drop(granted);
            assert_eq!(turns.counts(), TurnCounts { running: 0, waiting: 0 });
            assert!(turns.lock().parties.is_empty() && turns.lock().waiters.is_empty());
            let _next = run(&turns, user("3"));
        });
    }

    #[test]
    fn a_wait_ends_after_max_wait() {
        paused(async {
            let turns = turns(1, 1, 10);
            let _running = run(&turns, user("1"));
            assert_eq!(
                turns.acquire(user("2"), Share::Messages, Waits::InLine { message_bytes: 0 }).await.err(),
                Some(Busy::WaitedTooLong)
            );
            assert_eq!(turns.counts().waiting, 0);
        });
    }

    #[test]
    fn no_more_than_max_running_run_whatever_comes() {
        paused(async {
            let turns = turns(3, 4, 1000);
            let mut waiting: Vec<Acquire> = (0..200).map(|n| acquire(&turns, user(&(n % 7).to_string()))).collect();
            let mut running: VecDeque<Turn> = VecDeque::new();
            let mut done = 0;
            while done < 200 {
                waiting.retain_mut(|acquire| match poll(acquire) {
                    Some(turn) => {
                        running.push_back(turn.expect("a turn"));
                        false
                    }
                    None => true,
                });
                assert!(running.len() <= 4 && turns.counts().running == running.len());
                running.pop_front().expect("somebody always runs");
                done += 1;
            }
        });
    }

    #[test]
    fn pushed_requests_have_as_many_places_as_may_wait_and_run_and_as_many_bytes() {
        let turns = turns(4, 2, 3);
        let places: Vec<Place> = (0..5).map(|_| turns.reserve_place(10).expect("there is room")).collect();
        assert!(turns.reserve_place(10).is_none());
        drop(places);
        let long = turns.reserve_place(5000).expect("one may always have a place, however long it is");
        assert!(turns.reserve_place(1).is_none(), "max_waiting_bytes is reached");
        drop(long);
        assert!(turns.reserve_place(1).is_some());
    }

    #[test]
    fn whoever_has_a_place_is_not_refused_when_the_line_is_full() {
        paused(async {
            let turns = turns(4, 1, 1);
            let running = run(&turns, user("1"));
            let mut waiting = acquire_for(&turns, user("2"), Share::Pushes);
            assert!(poll(&mut waiting).is_none());
            let place = turns.reserve_place(1).expect("there is room");
            let shared = Arc::clone(&turns);
            let mut placed: Acquire =
                Box::pin(async move { shared.acquire(user("3"), Share::Pushes, Waits::InItsPlace).await });
            assert!(poll(&mut placed).is_none(), "it waits");
            drop((running, waiting));
            assert!(poll(&mut placed).is_some_and(|turn| turn.is_ok()));
            drop(place);
        });
    }
}
