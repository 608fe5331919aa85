//! What became of a push, added up over the shards.
//!
//! Whoever still has something to do for a push holds its [`Tally`]; when the last one lets go, the receipt is complete. So nothing
//! counts shards, and one that has ended delays nobody.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use wootz_hub::{Receipt, Watch};

/// Held by those who work for one push.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: Arc<Counts>,
    /// Never sends: that it is gone is the message.
    _held: oneshot::Sender<Infallible>,
}

/// What a connection was counted as before its request was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Queued,
    Joined,
}

#[derive(Debug, Default)]
struct Counts {
    reached: AtomicU64,
    queued: AtomicU64,
    dropped: AtomicU64,
    joined: AtomicU64,
    written: AtomicU64,
}

/// Kept by whoever wants the receipt.
#[derive(Debug)]
pub(crate) struct Awaited {
    counts: Arc<Counts>,
    complete: oneshot::Receiver<Infallible>,
}

/// Whether a receipt has all that there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    Complete,
    /// The deadline came first.
    SoFar,
}

/// What became of a push, and how many connections it was written out to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) receipt: Receipt,
    pub(crate) written: u64,
    pub(crate) completeness: Completeness,
}

impl Tally {
    pub(crate) fn new() -> (Arc<Self>, Awaited) {
        let counts = Arc::<Counts>::default();
        let (held, complete) = oneshot::channel();
        (Arc::new(Self { counts: Arc::clone(&counts), _held: held }), Awaited { counts, complete })
    }

    pub(crate) fn add(&self, receipt: Receipt) {
        self.counts.reached.fetch_add(receipt.reached, Ordering::Relaxed);
        self.counts.queued.fetch_add(receipt.queued, Ordering::Relaxed);
        self.counts.dropped.fetch_add(receipt.dropped, Ordering::Relaxed);
        self.counts.joined.fetch_add(receipt.joined, Ordering::Relaxed);
    }

    /// A request that had a place was not run after all.
    pub(crate) fn give_up(&self, part: Part) {
        let counted = match part {
            Part::Queued => &self.counts.queued,
            Part::Joined => &self.counts.joined,
        };
        counted.fetch_sub(1, Ordering::Relaxed);
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Watch for Tally {
    fn written(&self) {
        self.counts.written.fetch_add(1, Ordering::Relaxed);
    }
}

impl Awaited {
    /// Waits until everybody has let go, at most so long.
    pub(crate) async fn outcome(mut self, deadline: Duration) -> Outcome {
        let ended = tokio::time::timeout(deadline, &mut self.complete).await;
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        Outcome {
            receipt: Receipt {
                reached: load(&self.counts.reached),
                queued: load(&self.counts.queued),
                dropped: load(&self.counts.dropped),
                joined: load(&self.counts.joined),
            },
            written: load(&self.counts.written),
            completeness: if ended.is_ok() { Completeness::Complete } else { Completeness::SoFar },
        }
    }
}
