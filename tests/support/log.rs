//! What a process writes, as it comes.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};

use super::DEADLINE;

/// What was written until now, to one or more streams.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    text: String,
    open_streams: usize,
}

impl Log {
    /// Reads a stream to its end, on a thread of its own.
    pub fn follow(&self, mut from: impl Read + Send + 'static) {
        self.change(|state| state.open_streams += 1);
        let log = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                log.change(|state| state.text += &String::from_utf8_lossy(&buffer[..count]));
            }
            log.change(|state| state.open_streams -= 1);
        });
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.0.0.lock().expect("no reader panics").text.clone()
    }

    /// Waits until the text is as it should be; false where the deadline comes first.
    pub fn wait_for(&self, found: impl Fn(&str) -> bool) -> bool {
        self.wait_while(|state| !found(&state.text))
    }

    /// Waits until every stream is at its end; false where the deadline comes first.
    pub fn wait_for_end(&self) -> bool {
        self.wait_while(|state| state.open_streams > 0)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.0;
        change(&mut state.lock().expect("no reader panics"));
        changed.notify_all();
    }

    fn wait_while(&self, waiting: impl Fn(&State) -> bool) -> bool {
        let (state, changed) = &*self.0;
        let state = state.lock().expect("no reader panics");
        let (_state, waited) =
            changed.wait_timeout_while(state, DEADLINE, |state| waiting(state)).expect("no reader panics");
        !waited.timed_out()
    }
}
