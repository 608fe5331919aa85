//! `provider = "application"`: a call with `WOOTZ_EVENT=validate` says who a browser is.
//!
//! It prints the user's id, or JSON (`{"user": "42", "channels": ["news"], "expires": 3600}`), or nothing for a guest. An exit status that is not 0, or
//! status 401 or 403, refuses the browser. Anything unclear lets nobody in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Deserialize;
use wootz_runner::{ApplicationFault, Call, CallError, CallEvent, Caller, Gone, Message, Replies, ReplySink};

use super::{Identity, NoIdentity, user};
use crate::connection::{CountedCall, log_failure};
use crate::dispatch::Waits;
use crate::push::channels;
use crate::shard::Shard;

/// An answer that says who somebody is need not be longer.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Asks the application.
pub(super) async fn ask(shard: &Rc<Shard>, caller: Arc<Caller>) -> Result<Identity, NoIdentity> {
    let turn = shard.acquire_turn(&caller, CallEvent::Validate, Waits::EMPTY).await.map_err(|busy| {
        shard.counters.call_refused();
        NoIdentity::Unsettled(format!("the application could not be asked who it is: {busy}"))
    })?;
    let connection = caller.id;
    let answer = Rc::new(Answer::default());
    let counted = CountedCall::new(shard, &caller, CallEvent::Validate, turn.waited(), Instant::now());
    let mode = shard.config.calls.message;
    let call = Call { event: CallEvent::Validate, message: Message::empty(), caller, mode, capability: None };
    let result = shard.application.call_dyn(call, &mut Replies::new(Rc::clone(&answer) as Rc<dyn ReplySink>)).await;
    drop(turn);
    counted.end(&result);
    match result {
        Ok(()) => parse(&answer.bytes.borrow(), Instant::now()).map_err(|reason| {
            tracing::error!(%connection, reason, "validate printed what is no identity; the browser is not let in");
            NoIdentity::Unsettled(format!("validate: {reason}"))
        }),
        Err(CallError::Application {
            fault:
                fault @ (ApplicationFault::Exit(_) | ApplicationFault::Status(401 | 403) | ApplicationFault::Other(_)),
            stderr,
        }) => {
            // A refusal needs no words; an application that broke has some, and they are the only trace.
            if !stderr.trim().is_empty() {
                tracing::warn!(%connection, reason = %fault, stderr = stderr.trim_end(), "validate refused a browser, and wrote to standard error");
            }
            Err(NoIdentity::Refused(format!("the application refused it: {fault}")))
        }
        Err(error) => {
            log_failure(connection, CallEvent::Validate, &error);
            Err(NoIdentity::Unsettled(format!("validate: {error}")))
        }
    }
}

/// Collects what the call prints. One byte more than allowed is kept, so that too long an answer can be told.
#[derive(Debug, Default)]
struct Answer {
    bytes: RefCell<Vec<u8>>,
}

impl ReplySink for Answer {
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn send(&self, message: Message) {
        let mut bytes = self.bytes.borrow_mut();
        let room = (MAX_ANSWER_BYTES + 1).saturating_sub(bytes.len());
        bytes.extend_from_slice(&message.payload()[..message.payload().len().min(room)]);
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerJson {
    #[serde(default)]
    user: Option<UserJson>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    expires: Option<f64>,
}

/// Databases give numbers where people think of ids; both are the same id here.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum UserJson {
    Text(String),
    Number(u64),
}

fn parse(answer: &[u8], now: Instant) -> Result<Identity, String> {
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
    }
    let answer = std::str::from_utf8(answer).map_err(|_| "the answer is not UTF-8".to_owned())?.trim();
    if !answer.starts_with('{') {
        return Ok(Identity { user: user(answer)?, ..Identity::GUEST });
    }
    // The parser's message would quote the answer, which is nobody's but the application's.
    let json: AnswerJson = serde_json::from_str(answer).map_err(|error| {
        format!(
            "the answer is not {{\"user\": \"...\", \"channels\": [...], \"expires\": seconds}} (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let id = match json.user {
        None => String::new(),
        Some(UserJson::Text(text)) => text,
        Some(UserJson::Number(number)) => number.to_string(),
    };
    let expires = match json.expires {
        None => None,
        Some(seconds) => {
            let lifetime =
                Duration::try_from_secs_f64(seconds).map_err(|_| "expires is no number of seconds".to_owned())?;
            // Too far away for the clock is never.
            now.checked_add(lifetime)
        }
    };
    let channels = json.channels.iter().map(|name| channels::name(name)).collect::<Result<_, _>>();
    let channels = channels.map_err(|why| why.to_string())?;
    Ok(Identity { user: user(id.trim())?, expires, channels, ..Identity::GUEST })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wootz_session::MAX_USER_BYTES;

    #[test]
    fn an_id_alone_or_in_json_is_a_user_and_nothing_is_a_guest() {
        let now = Instant::now();
        let cases: [(&str, Option<&str>); 7] = [
            ("42\n", Some("42")),
            ("  ann.lee@example.com ", Some("ann.lee@example.com")),
            ("{\"user\": \"42\"}", Some("42")),
            ("{\"user\": 42}", Some("42")),
            ("", None),
            ("\n", None),
            ("{\"user\": null}", None),
        ];
        for (answer, user) in cases {
            let identity = parse(answer.as_bytes(), now).unwrap_or_else(|reason| panic!("{answer:?}: {reason}"));
            assert_eq!(identity.user.as_deref(), user, "{answer:?}");
        }
        let expiring = parse(b"{\"user\":\"1\",\"expires\":60}", now).expect("an identity");
        assert_eq!(expiring.expires, Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn channels_of_the_answer_are_joined_when_the_connection_opens() {
        let identity = parse(b"{\"user\":\"1\",\"channels\":[\"news\",\"a b\"]}", Instant::now()).expect("an identity");
        assert_eq!(identity.channels, ["news".into(), "a b".into()] as [Arc<str>; 2]);
    }

    #[test]
    fn whatever_is_unclear_is_nobody() {
        let long = "x".repeat(MAX_USER_BYTES + 1);
        let cases: [&[u8]; 10] = [
            b"<br>\nWarning: something\n42",
            b"{\"user\": \"1\", \"admin\": true}",
            b"{\"user\": {}}",
            b"{\"user\": \"1\", \"channels\": [\"\"]}",
            b"{\"user\": \"1\", \"channels\": \"news\"}",
            b"{\"user\": \"1\"",
            b"{\"user\": \"1\", \"expires\": -1}",
            b"\xff\xfe",
            b"a\0b",
            long.as_bytes(),
        ];
        for answer in cases {
            assert!(parse(answer, Instant::now()).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
