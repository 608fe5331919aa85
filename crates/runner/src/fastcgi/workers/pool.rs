//! Which workers there are, who has them, and what is to become of them, without IO and without a clock of its own.
//!
//! Laws: a worker has one call at a time. Calls that wait are served in the order in which they came. A worker that is ending is never
//! given away again. One lock, held for a few map operations, never across a system call or an await.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use super::fate::{Fate, Obituary};

/// A worker that dies sooner, and has answered nothing, died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a new worker must live before it gets its first call.
const SETTLES_IN: Duration = Duration::from_millis(50);
/// The pause after the first worker that died at once; doubled by each one after it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often memory is looked at while calls are run, and while none are.
const MEASURE_BUSY: Duration = Duration::from_millis(100);
const MEASURE_IDLE: Duration = Duration::from_secs(5);

/// So many calls before its last one a worker's replacement is started, where it has many.
const REPLACED_BEFORE: u64 = 16;
/// How long after KILL the end of a worker is waited for when all are ended.
const KILLED_TIMEOUT: Duration = Duration::from_secs(1);

/// Names one worker of this pool, never used again.
pub(super) type WorkerId = u64;

/// What holds for all workers.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) workers: usize,
    /// 0: no limit.
    pub(super) max_calls: u64,
    /// Zero: never.
    pub(super) max_idle: Duration,
    /// 0: no limit.
    pub(super) max_memory_bytes: u64,
    /// How long a busy worker may go on when all are ended.
    pub(super) grace: Duration,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It was started a moment ago.
    Starting,
    /// It waits for a call.
    Idle,
    /// It runs a call.
    Busy,
    /// It was told to end.
    Ending,
}

/// Why a worker is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retirement {
    Calls,
    Memory,
    Reload,
}

/// What a lease needs to know of its worker.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) id: WorkerId,
    pub(super) socket: Arc<Path>,
    /// The worker by its name in errors.
    pub(super) name: Arc<str>,
    pub(super) fate: watch::Receiver<Option<Obituary>>,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Once it runs.
    pub(super) pid: Option<u32>,
    pub(super) state: WorkerState,
    pub(super) since: Instant,
    idle_since: Instant,
    pub(super) calls: u64,
    pub(super) memory_bytes: u64,
    pub(super) last_failure: Option<String>,
    retirement: Option<Retirement>,
    address: Option<Address>,
    end: Arc<Notify>,
}

/// What a call has done with its worker.
#[derive(Debug)]
pub(super) enum Returned {
    /// Nothing.
    Unused,
    /// It has answered.
    Answered,
    /// Nobody waits for its answer any more; it may go on when it is done with it.
    Finished,
    /// It is of no more use.
    Hung(&'static str),
    /// It does not take calls, though it lives.
    Deaf,
}

/// Why no worker stays alive.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) what: String,
    in_a_row: u32,
    rest_until: Instant,
}

/// Whether calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more; busy workers may go on until this.
    Stopping(Instant),
}

/// All workers.
#[derive(Debug)]
pub(super) struct State {
    rules: Rules,
    workers: BTreeMap<WorkerId, Worker>,
    /// The one that was used last is the last.
    idle: Vec<WorkerId>,
    waiting: VecDeque<oneshot::Sender<Address>>,
    /// How many there should be: all at first, fewer after idleness, more again when calls wait.
    wanted: usize,
    next: WorkerId,
    trouble: Option<Trouble>,
    phase: Phase,
    measured: Instant,
    /// Calls that were given up, whose workers are watched until they are done with them.
    abandoned: Vec<(WorkerId, UnixStream)>,
}

/// What the keeper has to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Workers to start.
    pub(super) start: Vec<(WorkerId, Arc<Notify>)>,
    /// When to plan again, at the latest.
    pub(super) next: Option<Instant>,
}

impl Plan {
    fn wake_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl State {
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            wanted: rules.workers,
            rules,
            workers: BTreeMap::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            next: 0,
            trouble: None,
            phase: Phase::Open,
            measured: now,
            abandoned: Vec::new(),
        }
    }

    /// The workers in the order in which they were started.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// A worker for a call: at once, or later in its turn; `None` when no call is taken any more.
    pub(super) fn lease(&mut self) -> Option<Result<Address, oneshot::Receiver<Address>>> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.waiting.is_empty()
            && let Some(address) = self.take_idle()
        {
            return Some(Ok(address));
        }
        let (give, wait) = oneshot::channel();
        self.waiting.push_back(give);
        Some(Err(wait))
    }

    fn take_idle(&mut self) -> Option<Address> {
        let id = self.idle.pop()?;
        let worker = self.workers.get_mut(&id).expect("what is idle is there");
        worker.state = WorkerState::Busy;
        Some(worker.address.clone().expect("what is idle has an address"))
    }

    /// Gives idle workers to waiting calls.
    fn serve_waiting(&mut self) {
        while !self.idle.is_empty()
            && let Some(waiting) = self.waiting.pop_front()
        {
            let Some(address) = self.take_idle() else { return };
            if let Err(address) = waiting.send(address) {
                // That call is not there any more.
                self.make_idle(address.id, None);
            }
        }
    }

    /// Takes a worker back. Whether the keeper has something to do now.
    pub(super) fn take_back(&mut self, id: WorkerId, returned: Returned, now: Instant) -> bool {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.state == WorkerState::Busy) else {
            // It has died, or was told to end, in the meantime.
            return false;
        };
        match returned {
            Returned::Unused => {}
            Returned::Answered => {
                worker.calls += 1;
                self.trouble = None;
            }
            Returned::Finished => worker.calls += 1,
            Returned::Hung(why) => {
                worker.calls += 1;
                worker.last_failure = Some(why.to_owned());
                tracing::info!(pid = worker.pid, reason = why, "a worker is ended and replaced");
                self.end(id);
                return true;
            }
            Returned::Deaf => {
                self.end(id);
                self.note_trouble("it lives, but takes no request from its standard input".to_owned(), now);
                return true;
            }
        }
        self.make_idle(id, Some(now));
        let retires = self.retire(id);
        self.serve_waiting();
        retires || self.phase != Phase::Open || self.wants_measure(now) || !self.waiting.is_empty()
    }

    /// Notes why a call failed that had this worker.
    pub(super) fn note_failure(&mut self, id: WorkerId, what: String) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.last_failure = Some(what);
        }
    }

    /// A call left while its worker was busy with it.
    pub(super) fn abandon(&mut self, id: WorkerId, connection: UnixStream) {
        self.abandoned.push((id, connection));
    }

    /// The connections of such calls.
    pub(super) fn take_abandoned(&mut self) -> Vec<(WorkerId, UnixStream)> {
        std::mem::take(&mut self.abandoned)
    }

    fn make_idle(&mut self, id: WorkerId, used: Option<Instant>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.state = WorkerState::Idle;
        if let Some(now) = used {
            worker.idle_since = now;
        }
        self.idle.push(id);
    }

    /// Tells a worker to end.
    fn end(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.state = WorkerState::Ending;
        worker.end.notify_one();
        self.idle.retain(|&other| other != id);
    }

    /// A worker runs, and listens there.
    pub(super) fn started(&mut self, pid: u32, address: Address, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&address.id) {
            worker.pid = Some(pid);
            worker.since = now;
            worker.address = Some(address);
        }
    }

    /// A worker has ended, or never began.
    pub(super) fn ended(&mut self, id: WorkerId, fate: &Fate, now: Instant) -> Ended {
        let Some(worker) = self.workers.remove(&id) else { return Ended::AsTold };
        self.idle.retain(|&other| other != id);
        let age = now.saturating_duration_since(worker.since);
        match (worker.state, fate) {
            (WorkerState::Ending, _) => Ended::AsTold,
            (_, Fate::SpawnerDied) => Ended::WithItsSpawner,
            (_, Fate::NotStarted(what)) => Ended::AtOnce { pause: self.note_trouble(what.clone(), now) },
            (_, Fate::Ended(_)) if worker.calls == 0 && age < AT_ONCE => {
                Ended::AtOnce { pause: self.note_trouble(format!("it ended at once: {fate}"), now) }
            }
            (_, Fate::Ended(_)) => Ended::Unexpectedly,
        }
    }

    /// One more worker in a row is of no use: the next is started after a pause.
    fn note_trouble(&mut self, what: String, now: Instant) -> Option<Duration> {
        let before = self.trouble.as_ref().map_or(0, |trouble| trouble.in_a_row);
        if let Some(trouble) = self.trouble.as_mut().filter(|trouble| trouble.rest_until > now) {
            // One that was started together with the last.
            trouble.what = what;
            return None;
        }
        let pause = pause_after(before);
        self.trouble = Some(Trouble { what, in_a_row: before.saturating_add(1), rest_until: now + pause });
        Some(pause)
    }

    /// The application's files have changed: all that run are replaced, and what was wrong may be right now.
    pub(super) fn reload(&mut self, now: Instant) {
        for worker in self.workers.values_mut() {
            worker.retirement = Some(Retirement::Reload);
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.in_a_row = 0;
            trouble.rest_until = now;
        }
    }

    pub(super) fn stop(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.phase = Phase::Stopping(now + self.rules.grace);
            self.waiting.clear();
        }
    }

    /// Whether all workers have ended after [`State::stop`], or can't be ended.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Stopping(until) => self.workers.is_empty() || now >= self.given_up_at(until),
        }
    }

    fn given_up_at(&self, until: Instant) -> Instant {
        until + self.rules.grace + KILLED_TIMEOUT
    }

    fn wants_measure(&self, now: Instant) -> bool {
        self.rules.max_memory_bytes > 0 && now.saturating_duration_since(self.measured) >= MEASURE_BUSY
    }

    /// The workers whose memory is to be looked at now, if any.
    pub(super) fn due_for_measuring(&mut self, now: Instant) -> Vec<(WorkerId, u32)> {
        if !self.wants_measure(now) {
            return Vec::new();
        }
        self.measured = now;
        let running = self.workers.iter().filter(|(_, worker)| worker.state != WorkerState::Ending);
        running.filter_map(|(&id, worker)| Some((id, worker.pid?))).collect()
    }

    pub(super) fn measured(&mut self, id: WorkerId, memory_bytes: u64) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.memory_bytes = memory_bytes;
            self.retire(id);
        }
    }

    /// Decides whether a worker has done enough, and ends it where it may not run another call. Whether it is to be replaced.
    fn retire(&mut self, id: WorkerId) -> bool {
        let Rules { max_calls, max_memory_bytes, .. } = self.rules;
        let surplus = self.ready() > self.wanted;
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        // A replacement is started a little before the last call, so that it is there after it.
        if max_calls > 0 && worker.calls >= max_calls - (max_calls / 8).min(REPLACED_BEFORE) {
            worker.retirement.get_or_insert(Retirement::Calls);
        }
        if max_memory_bytes > 0 && worker.memory_bytes > max_memory_bytes {
            worker.retirement.get_or_insert(Retirement::Memory);
        }
        let Some(reason) = worker.retirement else { return false };
        let spent = max_calls > 0 && worker.calls >= max_calls;
        if worker.state == WorkerState::Idle && (spent || surplus) {
            tracing::debug!(pid = worker.pid, calls = worker.calls, ?reason, "a worker is replaced");
            self.end(id);
        }
        true
    }

    /// Workers that take calls, or would if they had none.
    fn ready(&self) -> usize {
        let ready = |worker: &&Worker| matches!(worker.state, WorkerState::Idle | WorkerState::Busy);
        self.workers.values().filter(ready).count()
    }

    /// Brings the workers to what they should be at this moment.
    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        let mut plan = Plan::default();
        if let Phase::Stopping(until) = self.phase {
            self.end_all(until, now, &mut plan);
            return plan;
        }
        self.settle(now, &mut plan);
        self.serve_waiting();
        for id in self.idle.clone() {
            self.retire(id);
        }
        self.end_idle(now, &mut plan);
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.start_missing(now, &mut plan);
        if self.rules.max_memory_bytes > 0 && !self.workers.is_empty() {
            plan.wake_at(self.measured + MEASURE_IDLE);
        }
        plan
    }

    fn end_all(&mut self, until: Instant, now: Instant, plan: &mut Plan) {
        let may_go_on = |worker: &Worker| worker.state == WorkerState::Busy && now < until;
        let ending: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.state != WorkerState::Ending && !may_go_on(worker))
            .map(|(&id, _)| id)
            .collect();
        ending.into_iter().for_each(|id| self.end(id));
        plan.wake_at(if now < until { until } else { self.given_up_at(until) });
    }

    /// New workers that have lived for a moment get calls.
    fn settle(&mut self, now: Instant, plan: &mut Plan) {
        let settles_in = if self.trouble.is_some() { AT_ONCE } else { SETTLES_IN };
        let mut settled = Vec::new();
        for (&id, worker) in &self.workers {
            if worker.state != WorkerState::Starting || worker.pid.is_none() {
                continue;
            }
            let at = worker.since + settles_in;
            if at <= now { settled.push(id) } else { plan.wake_at(at) }
        }
        if !settled.is_empty() {
            self.trouble = None;
        }
        settled.into_iter().for_each(|id| self.make_idle(id, Some(now)));
    }

    /// Ends workers that nobody needs, but for one.
    fn end_idle(&mut self, now: Instant, plan: &mut Plan) {
        let max_idle = self.rules.max_idle;
        if max_idle.is_zero() {
            return;
        }
        for id in self.idle.clone() {
            if self.ready() <= 1 {
                return;
            }
            let Some(worker) = self.workers.get(&id).filter(|worker| worker.state == WorkerState::Idle) else {
                continue;
            };
            let at = worker.idle_since + max_idle;
            if at > now {
                plan.wake_at(at);
                continue;
            }
            tracing::debug!(pid = worker.pid, "a worker is ended: nobody needs it");
            self.end(id);
            self.wanted = self.wanted.saturating_sub(1).max(1);
        }
    }

    fn start_missing(&mut self, now: Instant, plan: &mut Plan) {
        let count = |is: fn(&Worker) -> bool| self.workers.values().filter(|worker| is(worker)).count();
        let living = count(|worker| worker.state != WorkerState::Ending);
        let starting = count(|worker| worker.state == WorkerState::Starting);
        let retiring = count(|worker| worker.state != WorkerState::Ending && worker.retirement.is_some());
        let short = self.waiting.len().saturating_sub(starting);
        self.wanted = self.wanted.max((living + short).min(self.rules.workers));
        // One by one: there is at most one more than wanted.
        let mut missing = (self.wanted + retiring.min(1)).saturating_sub(living);
        if let Some(trouble) = &self.trouble {
            if trouble.rest_until > now {
                return if missing > 0 {
                    plan.wake_at(trouble.rest_until)
                };
            }
            // One shows whether it has passed.
            missing = missing.min(1usize.saturating_sub(starting));
        }
        for _ in 0..missing {
            let end = Arc::new(Notify::new());
            let worker = Worker::new(Arc::clone(&end), now);
            self.workers.insert(self.next, worker);
            plan.start.push((self.next, end));
            self.next += 1;
        }
    }
}

impl Worker {
    fn new(end: Arc<Notify>, now: Instant) -> Self {
        Self {
            pid: None,
            state: WorkerState::Starting,
            since: now,
            idle_since: now,
            calls: 0,
            memory_bytes: 0,
            last_failure: None,
            retirement: None,
            address: None,
            end,
        }
    }
}

/// How the end of a worker is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    AsTold,
    WithItsSpawner,
    /// It had lived, or answered.
    Unexpectedly,
    /// The next one is started after a pause.
    AtOnce {
        /// `None`: it pauses already.
        pause: Option<Duration>,
    },
}

fn pause_after(deaths_before: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << deaths_before.min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;

    const RULES: Rules = Rules {
        workers: 2,
        max_calls: 0,
        max_idle: Duration::ZERO,
        max_memory_bytes: 0,
        grace: Duration::from_secs(2),
    };

    /// A pool, its keeper and its clock.
    struct Kept {
        state: State,
        now: Instant,
        /// What was told of each worker, as long as it runs.
        fates: BTreeMap<WorkerId, watch::Sender<Option<Obituary>>>,
    }

    impl Kept {
        fn new(rules: Rules) -> Self {
            let now = Instant::now();
            Self { state: State::new(rules, now), now, fates: BTreeMap::new() }
        }

        /// Plans, and starts what is to be started. How many that were.
        fn plan(&mut self) -> usize {
            let plan = self.state.plan(self.now);
            for (id, _) in &plan.start {
                let (tell, fate) = watch::channel(None);
                let address = Address { id: *id, socket: Path::new("/socket").into(), name: "a worker".into(), fate };
                self.state.started(u32::try_from(*id).expect("few") + 100, address, self.now);
                self.fates.insert(*id, tell);
            }
            plan.start.len()
        }

        fn after(&mut self, time: Duration) -> usize {
            self.now += time;
            self.plan()
        }

        fn lease(&mut self) -> Option<WorkerId> {
            self.state.lease()?.ok().map(|address| address.id)
        }

        fn die(&mut self, id: WorkerId) -> Ended {
            self.state.ended(id, &Fate::Ended(exec::Ended::Exit(1)), self.now)
        }

        fn states(&self) -> Vec<WorkerState> {
            self.state.workers().map(|worker| worker.state).collect()
        }
    }

    #[test]
    fn all_are_started_at_once_and_take_calls_when_they_have_settled() {
        let mut kept = Kept::new(RULES);
        assert_eq!(kept.plan(), 2);
        assert_eq!(kept.states(), [WorkerState::Starting; 2]);
        assert_eq!(kept.after(SETTLES_IN), 0);
        assert_eq!(kept.states(), [WorkerState::Idle; 2]);
    }

    #[test]
    fn pauses_grow_to_ten_seconds_and_a_long_life_ends_them() {
        let mut kept = Kept::new(Rules { workers: 1, ..RULES });
        let mut pauses = Vec::new();
        kept.plan();
        for id in 0..9 {
            let Ended::AtOnce { pause: Some(pause) } = kept.die(id) else { panic!("it died at once") };
            pauses.push(pause.as_millis());
            assert_eq!(kept.after(pause - Duration::from_millis(1)), 0, "none is started within the pause");
            assert_eq!(kept.after(Duration::from_millis(1)), 1);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(kept.state.trouble().is_some());
        kept.after(AT_ONCE);
        assert!(kept.state.trouble().is_none());
        assert_eq!(kept.die(9), Ended::Unexpectedly);
        assert_eq!(kept.plan(), 1);
    }

    #[test]
    fn workers_that_die_together_are_one_trouble() {
        let mut kept = Kept::new(Rules { workers: 4, ..RULES });
        kept.plan();
        assert_eq!(kept.die(0), Ended::AtOnce { pause: Some(FIRST_PAUSE) });
        for id in 1..4 {
            assert_eq!(kept.die(id), Ended::AtOnce { pause: None });
        }
        assert_eq!(kept.after(FIRST_PAUSE), 1, "one is tried, not four");
        assert_eq!(kept.after(AT_ONCE), 3);
    }

    #[test]
    fn waiting_calls_are_served_in_order_and_those_that_left_take_none() {
        let mut kept = Kept::new(Rules { workers: 1, ..RULES });
        kept.plan();
        kept.after(SETTLES_IN);
        let worker = kept.lease().expect("idle");
        let mut wait = || kept.state.lease().expect("open").expect_err("busy");
        let (left, mut first, mut second) = (wait(), wait(), wait());
        drop(left);
        kept.state.take_back(worker, Returned::Answered, kept.now);
        assert!(first.try_recv().is_ok() && second.try_recv().is_err());
        kept.state.take_back(worker, Returned::Answered, kept.now);
        assert!(second.try_recv().is_ok());
    }

    #[test]
    fn reload_replaces_one_by_one_and_never_has_fewer_than_wanted() {
        let mut kept = Kept::new(RULES);
        kept.plan();
        kept.after(SETTLES_IN);
        kept.state.reload(kept.now);
        assert_eq!(kept.plan(), 1);
        assert_eq!(kept.plan(), 0, "one more than wanted, not two");
        for (old, replacements) in [(0, 1), (1, 0)] {
            let takes_calls = |state: &&WorkerState| **state == WorkerState::Idle;
            assert_eq!(kept.states().iter().filter(takes_calls).count(), 2);
            assert_eq!(kept.after(SETTLES_IN), replacements, "the next one, once this one takes calls");
            // The old one is not given to calls any more; its end is told later.
            assert_eq!(kept.states()[0], WorkerState::Ending);
            assert_eq!(kept.die(old), Ended::AsTold);
        }
        assert_eq!(kept.plan(), 0);
        assert_eq!(kept.states(), [WorkerState::Idle; 2]);
    }

    #[test]
    fn stop_ends_idle_workers_at_once_and_busy_ones_after_their_call_or_the_grace() {
        let mut kept = Kept::new(RULES);
        kept.plan();
        kept.after(SETTLES_IN);
        let busy = kept.lease().expect("idle");
        kept.state.stop(kept.now);
        kept.plan();
        assert!(kept.lease().is_none());
        assert_eq!(kept.states().iter().filter(|&&state| state == WorkerState::Busy).count(), 1);
        assert!(kept.state.take_back(busy, Returned::Answered, kept.now), "the keeper ends it now");
        kept.plan();
        assert_eq!(kept.states(), [WorkerState::Ending; 2]);
        assert!(!kept.state.is_over(kept.now));
        kept.die(0);
        kept.die(1);
        assert!(kept.state.is_over(kept.now));
    }
}
