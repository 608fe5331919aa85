//! What happens, told to operators who listen (`GET /v1/events`).
//!
//! Nobody listens mostly, and then an event costs one look at a number. A listener that reads too slowly loses events and is told
//! how many; it never makes a shard wait. Payloads are told only to those who ask for them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use wootz_hub::{Receipt, Target};
use wootz_runner::{CallEvent, ConnectionId, Message};

use crate::metrics::CallEnd;

/// Events that may wait for one listener; further ones are lost for it.
const MAX_WAITING: usize = 4096;

/// The same in bytes of their lines.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Listeners at the same time.
const MAX_LISTENERS: usize = 16;

/// One thing that happened.
#[derive(Debug)]
pub(crate) struct Happening {
    at: SystemTime,
    connection: Option<ConnectionId>,
    user: Option<Arc<str>>,
    kind: Kind,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Kind {
    Opened { remote: Option<std::net::SocketAddr> },
    Message { message: Message },
    Call { call: CallEvent, end: CallEnd, waited: Duration, ran: Duration },
    Reply { message: Message },
    Push { to: Target, message: Message, request: bool, once: bool, receipt: Option<Receipt> },
    Closed { code: Option<u16>, reason: &'static str },
    Joined { channel: Arc<str> },
    Left { channel: Arc<str> },
}

/// Whether a listener sees what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payloads {
    Hidden,
    Shown,
}

/// All listeners of the server.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// How many there are, to be looked at without the lock.
    count: AtomicUsize,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

#[derive(Debug)]
struct Listener {
    lines: mpsc::Sender<Bytes>,
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
    user: Option<Arc<str>>,
    payloads: Payloads,
}

/// The events of one listener, as lines of JSON.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: mpsc::Receiver<Bytes>,
    listener: Arc<Listener>,
    events: Arc<Events>,
}

impl Events {
    pub(crate) fn is_watched(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Tells those who listen, if anybody does.
    pub(crate) fn emit(&self, happening: impl FnOnce() -> Happening) {
        if !self.is_watched() {
            return;
        }
        let happening = happening();
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: [Option<Bytes>; 2] = [None, None];
        for listener in listeners.iter().filter(|listener| listener.wants(&happening)) {
            let line = lines[usize::from(listener.payloads == Payloads::Shown)]
                .get_or_insert_with(|| happening.to_line(listener.payloads));
            listener.give(line);
        }
    }

    /// Listens to everything, or to what concerns one user. `None`: too many listen already.
    pub(crate) fn listen(self: &Arc<Self>, user: Option<Arc<str>>, payloads: Payloads) -> Option<Lines> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.len() >= MAX_LISTENERS {
            return None;
        }
        let (sender, lines) = mpsc::channel(MAX_WAITING);
        let (waiting_bytes, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        let listener = Arc::new(Listener { lines: sender, waiting_bytes, lost, user, payloads });
        listeners.push(Arc::clone(&listener));
        self.count.store(listeners.len(), Ordering::Relaxed);
        Some(Lines { lines, listener, events: Arc::clone(self) })
    }
}

impl Listener {
    fn wants(&self, happening: &Happening) -> bool {
        let Some(wanted) = &self.user else { return true };
        let to = match &happening.kind {
            Kind::Push { to: Target::User(user), .. } => Some(user),
            _ => None,
        };
        happening.user.as_ref() == Some(wanted) || to == Some(wanted)
    }

    fn give(&self, line: &Bytes) {
        let waiting = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = waiting == 0 || waiting + line.len() <= MAX_WAITING_BYTES;
        if !fits || self.lines.try_send(line.clone()).is_err() {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lines {
    /// Waits for the next line, which ends with a newline. What was lost is told before it.
    pub(crate) async fn next(&mut self) -> Bytes {
        let line = self.lines.recv().await.expect("the listener, which holds the sender, lives as long as this");
        self.listener.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        match self.listener.lost.swap(0, Ordering::Relaxed) {
            0 => line,
            lost => {
                let told = json!({"event": "lost", "time": timestamp(SystemTime::now()), "events": lost});
                Bytes::from([format!("{told}\n").as_bytes(), &line].concat())
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut listeners = self.events.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
        self.events.count.store(listeners.len(), Ordering::Relaxed);
    }
}

impl Happening {
    pub(crate) fn new(connection: Option<ConnectionId>, user: Option<Arc<str>>, kind: Kind) -> Self {
        Self { at: SystemTime::now(), connection, user, kind }
    }

    pub(crate) fn with_receipt(mut self, told: Receipt) -> Self {
        if let Kind::Push { receipt, .. } = &mut self.kind {
            *receipt = Some(told);
        }
        self
    }

    fn to_line(&self, payloads: Payloads) -> Bytes {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("event", self.kind.name().into());
        put("time", timestamp(self.at).into());
        if let Some(connection) = self.connection {
            put("connection", connection.to_string().into());
            put("user", self.user.as_deref().map_or(Value::Null, Value::from));
        }
        match &self.kind {
            Kind::Opened { remote } => {
                put("address", remote.map_or(Value::Null, |remote| remote.to_string().into()));
            }
            Kind::Message { message } | Kind::Reply { message } => put_message(&mut put, message, payloads),
            Kind::Call { call, end, waited, ran } => {
                put("call", call.as_str().into());
                put("end", end.as_str().into());
                put("waited_ms", milliseconds(*waited));
                put("ran_ms", milliseconds(*ran));
            }
            Kind::Push { to, message, request, once, receipt } => {
                put("to", target(to));
                put_message(&mut put, message, payloads);
                if *request {
                    put("request", true.into());
                    put("once", (*once).into());
                }
                if let Some(receipt) = receipt {
                    put("reached", receipt.reached.into());
                    put("queued", receipt.queued.into());
                    put("dropped", receipt.dropped.into());
                    put("joined", receipt.joined.into());
                }
            }
            Kind::Closed { code, reason } => {
                put("code", code.map_or(Value::Null, Value::from));
                put("reason", (*reason).into());
            }
            Kind::Joined { channel } | Kind::Left { channel } => {
                put("channel", (**channel).into());
            }
        }
        Bytes::from(format!("{}\n", Value::Object(fields)))
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Message { .. } => "message",
            Self::Call { .. } => "call",
            Self::Reply { .. } => "reply",
            Self::Push { .. } => "push",
            Self::Closed { .. } => "closed",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
        }
    }
}

fn put_message(put: &mut impl FnMut(&str, Value) -> Option<Value>, message: &Message, payloads: Payloads) {
    put("type", if matches!(message, Message::Text(_)) { "text" } else { "binary" }.into());
    put("bytes", message.payload().len().into());
    if payloads == Payloads::Shown {
        match message {
            Message::Text(text) => put("text", text.as_str().into()),
            Message::Binary(bytes) => put("binary", STANDARD.encode(bytes).into()),
        };
    }
}

/// A target as a push names it.
fn target(to: &Target) -> Value {
    match to {
        Target::All => json!({"all": true}),
        Target::User(user) => json!({"user": **user}),
        // What names a session opens it.
        Target::Session(_) => json!({"session": "…"}),
        Target::Connection(id) => json!({"connection": ConnectionId(*id).to_string()}),
        Target::Channel(name) => json!({"channel": **name}),
    }
}

fn milliseconds(duration: Duration) -> Value {
    ((duration.as_secs_f64() * 1_000_000.0).round() / 1000.0).into()
}

/// RFC 3339, in UTC, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, days) = (since.as_secs() % 86_400, since.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let (seconds, milliseconds) = (seconds % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z")
}

/// Year, month and day of a day since 1970. Years are counted from 1 March here, so that the leap day is the last of one.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 1 March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Happening {
        Happening::new(Some(ConnectionId(7)), Some("42".into()), Kind::Message { message: Message::text(text) })
    }

    fn ready(lines: &mut Lines) -> Value {
        let mut next = std::pin::pin!(lines.next());
        match next.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(line) => serde_json::from_slice(&line).expect("a line of JSON"),
            std::task::Poll::Pending => panic!("no line waits"),
        }
    }

    #[test]
    fn nobody_listens_and_nothing_is_made() {
        let events = Arc::<Events>::default();
        events.emit(|| panic!("nobody wants it"));
        let lines = events.listen(None, Payloads::Hidden).expect("there is room");
        assert!(events.is_watched());
        drop(lines);
        events.emit(|| panic!("nobody wants it any more"));
    }

    #[test]
    fn a_payload_is_told_only_to_those_who_ask() {
        let events = Arc::<Events>::default();
        let mut hidden = events.listen(None, Payloads::Hidden).expect("there is room");
        let mut shown = events.listen(Some("42".into()), Payloads::Shown).expect("there is room");
        let mut other = events.listen(Some("4".into()), Payloads::Shown).expect("there is room");
        events.emit(|| message("secret"));
        let line = ready(&mut hidden);
        assert!(!line.to_string().contains("secret"), "{line}");
        assert_eq!((&line["event"], &line["bytes"], &line["user"]), (&json!("message"), &json!(6), &json!("42")));
        assert_eq!(ready(&mut shown)["text"], "secret");
        assert!(other.lines.try_recv().is_err(), "another user's listener hears nothing");
    }

    #[test]
    fn a_listener_that_does_not_read_is_told_how_many_it_lost() {
        let events = Arc::<Events>::default();
        let mut lines = events.listen(None, Payloads::Hidden).expect("there is room");
        for _ in 0..MAX_WAITING + 3 {
            events.emit(|| message("x"));
        }
        let mut next = std::pin::pin!(lines.next());
        let polled = next.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        let std::task::Poll::Ready(first) = polled else { panic!("lines wait") };
        let first = std::str::from_utf8(&first).expect("UTF-8");
        assert!(
            first.starts_with('{') && first.contains(r#""event":"lost""#) && first.contains(r#""events":3"#),
            "{first}"
        );
        assert_eq!(first.lines().count(), 2);
    }

    #[test]
    fn listeners_are_bounded_and_so_is_what_waits_for_one_in_bytes() {
        let events = Arc::<Events>::default();
        let mut all: Vec<Lines> =
            (0..MAX_LISTENERS).map(|_| events.listen(None, Payloads::Shown).expect("there is room")).collect();
        assert!(events.listen(None, Payloads::Hidden).is_none());
        let long = "x".repeat(MAX_WAITING_BYTES / 2);
        for _ in 0..3 {
            events.emit(|| message(&long));
        }
        assert_eq!(all[0].listener.lost.load(Ordering::Relaxed), 2);
        ready_bytes(&mut all[0]);
    }

    fn ready_bytes(lines: &mut Lines) {
        assert!(lines.lines.try_recv().is_ok());
    }

    #[test]
    fn times_are_written_as_rfc_3339_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
