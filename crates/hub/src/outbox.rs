//! What waits to be written to one browser: encoded frames, bounded in bytes, and the waker of whoever writes them.
//!
//! An outbox that is empty owns no memory beyond itself. It never blocks and never grows past its bound: a frame that
//! does not fit marks the outbox as overflowed, and its connection is closed by its driver.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, Bytes};

/// The bounded queue of one connection. Shared by the connection's driver, which writes it out, and the hub, which fills it.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: RefCell<Frames>,
    queued_bytes: Cell<usize>,
    /// Of the queued bytes, the first so many are not held against a push.
    forgiven_bytes: Cell<usize>,
    /// Whether the front frame has left in part: then it must be finished, whatever else is thrown away.
    front_started: Cell<bool>,
    intake: Cell<Intake>,
    driver: RefCell<Option<Waker>>,
    /// Nearly always nobody wants to know.
    watched: RefCell<Option<Box<Watched>>>,
}

/// Who wants to know when frames have left.
#[derive(Debug, Default)]
struct Watched {
    /// Bytes that have left since somebody wanted to know.
    left_bytes: u64,
    /// Those who wait, each until so many bytes have left.
    waiting: VecDeque<(u64, Arc<dyn Watch>)>,
}

/// Wants to know when a frame has left. Dropped without having been told, it never will.
pub trait Watch: std::fmt::Debug + Send + Sync {
    /// The frame has been written out, with all before it.
    fn written(&self);
}

/// What the outbox does with one more frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Intake {
    #[default]
    Open,
    Overflowed,
    Closed,
}

/// Most outboxes hold no frame, or one, and need no queue for that.
#[derive(Debug, Default)]
enum Frames {
    #[default]
    None,
    One(Bytes),
    Many(VecDeque<Bytes>),
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits to be written, and is the only one that does: whoever pushed it has to see to the writing.
    First,
    /// It waits to be written behind others, whose writer comes to it.
    Behind,
    /// The reader is too slow: the bound is reached, and the connection is about to be closed.
    Overflowed,
    /// The connection is closing; nothing more is sent on it.
    Closed,
}

impl Outbox {
    /// Queues a frame that somebody outside the connection pushed.
    ///
    /// A frame that would take the queue over `limit_bytes` is not queued; from then on nothing is, and the driver is woken to
    /// see [`Outbox::is_overflowed`]. An empty queue takes a frame of any size.
    pub fn push(&self, frame: Bytes, limit_bytes: usize) -> Queued {
        match self.intake.get() {
            Intake::Closed => return Queued::Closed,
            Intake::Overflowed => return Queued::Overflowed,
            Intake::Open => {}
        }
        if !self.has_room(frame.len(), limit_bytes) {
            self.intake.set(Intake::Overflowed);
            self.wake();
            return Queued::Overflowed;
        }
        let queued = if self.is_empty() { Queued::First } else { Queued::Behind };
        self.append(frame);
        queued
    }

    /// Queues a reply without regard to the bound: whoever replies looks at the room first.
    ///
    /// A long reply on its way out does not make the reader a slow one: what is queued up to its end does not count when a
    /// push looks for room. Does nothing once the outbox is closed.
    pub fn push_reply(&self, frame: Bytes) {
        if self.intake.get() != Intake::Closed {
            self.append(frame);
            self.forgiven_bytes.set(self.queued_bytes.get());
        }
    }

    /// Queues a control frame, which is small, without regard to the bound. Does nothing once the outbox is closed.
    pub fn push_control(&self, frame: Bytes) {
        if self.intake.get() != Intake::Closed {
            self.append(frame);
        }
    }

    /// Whether a frame of this size fits. An empty queue takes any.
    pub fn has_room(&self, frame_bytes: usize, limit_bytes: usize) -> bool {
        let queued = self.queued_bytes.get();
        queued == 0 || (queued - self.forgiven_bytes.get()).saturating_add(frame_bytes) <= limit_bytes
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.get()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queued_bytes.get() == 0
    }

    /// Whether a frame was refused because the reader is too slow.
    pub fn is_overflowed(&self) -> bool {
        self.intake.get() == Intake::Overflowed
    }

    /// Whether the last frame was queued already.
    pub fn is_closed(&self) -> bool {
        self.intake.get() == Intake::Closed
    }

    /// Queues the last frame (a Close), after what waits already; nothing is accepted afterwards.
    pub fn finish(&self, last: Option<Bytes>) {
        if self.intake.get() == Intake::Closed {
            return;
        }
        if let Some(frame) = last {
            self.append(frame);
        }
        self.intake.set(Intake::Closed);
    }

    /// Throws away what waits, but for a frame that has left in part: a reader must never see a torn frame.
    pub fn discard_unstarted(&self) {
        let mut frames = self.frames.borrow_mut();
        let kept = if self.front_started.get() { frames.pop() } else { None };
        self.queued_bytes.set(kept.as_ref().map_or(0, Bytes::len));
        self.forgiven_bytes.set(0);
        *frames = kept.map_or(Frames::None, Frames::One);
        *self.watched.borrow_mut() = None;
    }

    /// Tells `watch` when everything that waits now has left; at once where nothing does.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        if self.is_empty() {
            return watch.written();
        }
        let mut watched = self.watched.borrow_mut();
        let watched = watched.get_or_insert_default();
        watched.waiting.push_back((watched.left_bytes + self.queued_bytes.get() as u64, watch));
    }

    /// Tells those whose frames are among the bytes that have left.
    fn tell_watchers(&self, left_bytes: usize) {
        let mut slot = self.watched.borrow_mut();
        let Some(watched) = slot.as_mut() else { return };
        watched.left_bytes += left_bytes as u64;
        while let Some((until, watch)) = watched.waiting.front()
            && *until <= watched.left_bytes
        {
            watch.written();
            watched.waiting.pop_front();
        }
        if watched.waiting.is_empty() {
            *slot = None;
        }
    }

    /// Gives up what waits and those who watch it: nothing is written any more.
    pub fn abandon(&self) {
        self.finish(None);
        *self.watched.borrow_mut() = None;
    }

    /// Fills `slices` with what is next to be written, in order, and says how many it filled.
    pub fn with_slices<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        const AT_ONCE: usize = 64;
        match &*self.frames.borrow() {
            Frames::None => write(&[]),
            Frames::One(frame) => write(&[IoSlice::new(frame)]),
            Frames::Many(queue) => {
                let mut slices = [IoSlice::new(&[]); AT_ONCE];
                let mut filled = 0;
                for (slice, frame) in slices.iter_mut().zip(queue.iter()) {
                    *slice = IoSlice::new(frame);
                    filled += 1;
                }
                write(&slices[..filled])
            }
        }
    }

    /// Takes off what was written.
    ///
    /// # Panics
    /// When more was written than waits, which no transport can do.
    pub fn advance(&self, mut written_bytes: usize) {
        self.tell_watchers(written_bytes);
        let mut frames = self.frames.borrow_mut();
        self.queued_bytes.set(self.queued_bytes.get() - written_bytes);
        self.forgiven_bytes.set(self.forgiven_bytes.get().saturating_sub(written_bytes));
        while written_bytes > 0 {
            let front = frames.front_mut().expect("written bytes come from queued frames");
            if written_bytes < front.len() {
                front.advance(written_bytes);
                self.front_started.set(true);
                return;
            }
            written_bytes -= front.len();
            self.front_started.set(false);
            frames.pop();
        }
        if frames.front_mut().is_none() {
            // An idle connection owns no queue.
            *frames = Frames::None;
        }
    }

    /// Names the task to wake when the queue overflows or [`Outbox::wake`] is called.
    pub fn register(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(known) => known.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    fn append(&self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        self.queued_bytes.set(self.queued_bytes.get() + frame.len());
        self.frames.borrow_mut().push(frame);
    }
}

impl Frames {
    fn push(&mut self, frame: Bytes) {
        *self = match std::mem::take(self) {
            Frames::None => Frames::One(frame),
            Frames::One(first) => Frames::Many(VecDeque::from([first, frame])),
            Frames::Many(mut queue) => {
                queue.push_back(frame);
                Frames::Many(queue)
            }
        };
    }

    fn pop(&mut self) -> Option<Bytes> {
        match self {
            Frames::None => None,
            Frames::One(_) => match std::mem::take(self) {
                Frames::One(frame) => Some(frame),
                Frames::None | Frames::Many(_) => None,
            },
            Frames::Many(queue) => queue.pop_front(),
        }
    }

    fn front_mut(&mut self) -> Option<&mut Bytes> {
        match self {
            Frames::None => None,
            Frames::One(frame) => Some(frame),
            Frames::Many(queue) => queue.front_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outbox: &Outbox) -> Vec<u8> {
        outbox.with_slices(|slices| slices.iter().flat_map(|slice| slice.to_vec()).collect())
    }

    #[test]
    fn frames_leave_in_the_order_in_which_they_came_and_partial_writes_lose_nothing() {
        let outbox = Outbox::default();
        for (frame, queued) in [("abc", Queued::First), ("de", Queued::Behind), ("f", Queued::Behind)] {
            assert_eq!(outbox.push(Bytes::from_static(frame.as_bytes()), 100), queued);
        }
        assert_eq!(waiting(&outbox), b"abcdef");
        let mut seen = Vec::new();
        while !outbox.is_empty() {
            let next = waiting(&outbox);
            let step = next.len().min(2);
            seen.extend_from_slice(&next[..step]);
            outbox.advance(step);
        }
        assert_eq!(seen, b"abcdef");
        assert!(matches!(*outbox.frames.borrow(), Frames::None), "an idle outbox owns no queue");
    }

    #[test]
    fn a_frame_over_the_bound_is_refused_and_so_is_everything_after_it() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(Bytes::from_static(&[0; 10]), 4), Queued::First, "an empty queue takes any frame");
        assert_eq!(outbox.push(Bytes::from_static(b"x"), 4), Queued::Overflowed);
        outbox.advance(10);
        assert_eq!(outbox.push(Bytes::from_static(b"x"), 4), Queued::Overflowed);
        assert!(outbox.is_overflowed());
    }

    #[test]
    fn a_long_reply_on_its_way_out_does_not_make_the_reader_a_slow_one() {
        let outbox = Outbox::default();
        outbox.push_reply(Bytes::from_static(&[0; 50]));
        assert_eq!(outbox.push(Bytes::from_static(&[0; 4]), 4), Queued::Behind);
        outbox.advance(50);
        assert_eq!(outbox.push(Bytes::from_static(&[0; 4]), 4), Queued::Overflowed);
    }

    #[test]
    fn a_torn_frame_is_finished_before_the_last_frame() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"), 100);
        outbox.push(Bytes::from_static(b"second"), 100);
        outbox.advance(2);
        outbox.discard_unstarted();
        outbox.finish(Some(Bytes::from_static(b"close")));
        assert_eq!(waiting(&outbox), b"rstclose");
        assert_eq!(outbox.push(Bytes::from_static(b"late"), 100), Queued::Closed);
        assert_eq!(outbox.queued_bytes(), 8);
    }

    #[test]
    fn whole_frames_are_thrown_away_when_none_has_started() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"), 100);
        outbox.push(Bytes::from_static(b"second"), 100);
        outbox.advance(5);
        outbox.discard_unstarted();
        assert!(outbox.is_empty());
        assert_eq!(waiting(&outbox), b"");
    }

    #[derive(Debug, Default)]
    struct Told(std::sync::atomic::AtomicUsize);

    impl Watch for Told {
        fn written(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    impl Told {
        fn times(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[test]
    fn a_watcher_is_told_when_the_last_byte_of_its_frame_has_left() {
        let outbox = Outbox::default();
        let told = Arc::new(Told::default());
        outbox.watch(Arc::clone(&told) as Arc<dyn Watch>);
        assert_eq!(told.times(), 1, "nothing waits: at once");
        outbox.push(Bytes::from_static(b"first"), 100);
        outbox.push(Bytes::from_static(b"second"), 100);
        outbox.watch(Arc::clone(&told) as Arc<dyn Watch>);
        outbox.advance(10);
        assert_eq!(told.times(), 1);
        outbox.push(Bytes::from_static(b"third"), 100);
        outbox.watch(Arc::clone(&told) as Arc<dyn Watch>);
        outbox.advance(1);
        assert_eq!(told.times(), 2);
        outbox.discard_unstarted();
        assert_eq!((told.times(), Arc::strong_count(&told)), (2, 1), "thrown away: never told");
        assert!(outbox.watched.borrow().is_none(), "an idle outbox owns no list");
    }
}
