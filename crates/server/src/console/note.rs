//! What the console page is told besides the messages: text messages that begin with U+001E, then JSON.

use std::time::Duration;

use serde_json::{Value, json};
use wootz_runner::CallEvent;

/// The subprotocol that the console page asks for; without it no note is ever sent.
pub(crate) const SUBPROTOCOL: &str = "wootz.console";

/// One note.
#[derive(Debug)]
pub(crate) enum Note<'a> {
    /// The first message of the connection: who and where you are.
    Open { connection: String, user: Option<&'a str>, pipe: Option<String>, request_pipe: Option<String> },
    /// The next message is a reply of this call.
    Reply { event: CallEvent, waited: Duration, ran: Duration },
    /// The call has replied.
    Done { event: CallEvent, ran: Duration },
    /// The call ended well and printed nothing.
    Empty { event: CallEvent, uri: &'a str, ran: Duration },
    /// The call failed.
    Failed { event: CallEvent, reason: String, stderr: &'a str, ran: Duration },
}

impl Note<'_> {
    pub(crate) fn to_text(&self) -> String {
        format!("\u{1e}{}", self.to_json())
    }

    fn to_json(&self) -> Value {
        let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
        match self {
            Note::Open { connection, user, pipe, request_pipe } => json!({
                "note": "open", "connection": connection, "user": user, "pipe": pipe, "request_pipe": request_pipe,
                "version": env!("CARGO_PKG_VERSION"),
            }),
            Note::Reply { event, waited, ran } => {
                json!({"note": "reply", "event": event.as_str(), "wait_ms": ms(waited), "run_ms": ms(ran)})
            }
            Note::Done { event, ran } => json!({"note": "done", "event": event.as_str(), "run_ms": ms(ran)}),
            Note::Empty { event, uri, ran } => {
                json!({"note": "empty", "event": event.as_str(), "uri": uri, "run_ms": ms(ran)})
            }
            Note::Failed { event, reason, stderr, ran } => json!({
                "note": "failed", "event": event.as_str(), "reason": reason, "stderr": stderr, "run_ms": ms(ran),
            }),
        }
    }
}
