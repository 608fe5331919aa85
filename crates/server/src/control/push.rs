//! The body of `POST /v1/push`: from bytes to a command, or to all of its mistakes at once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use wootz_hub::Target;
use wootz_runner::Message;

use super::answer::Failure;
use super::connections::parse_id;
use super::json::Node;
use crate::push::channels;
use crate::push::{Command, Runs, Wait};

/// How long `"wait": true` waits where nothing else is said.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// The longest `"deadline"`, in seconds: a client that waits holds a place.
const LONGEST_PATIENCE_SECONDS: f64 = 60.0;

const FIELDS: [&str; 7] = ["to", "text", "binary", "request", "once", "wait", "deadline"];

const TARGETS: [&str; 5] = ["all", "user", "session", "connection", "channel"];

/// What a body asks for.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) command: Command,
    pub(super) wait: Wait,
    pub(super) patience: Duration,
}

/// The payloads, of which there is to be exactly one.
enum Payload {
    Message(Message),
    Request(Message),
}

/// Reads a body. A payload longer than `max_bytes` is refused, as a browser's message would be.
pub(super) fn parse(body: &[u8], max_bytes: usize) -> Result<Push, Failure> {
    // The parser's own message may quote what was sent.
    let node: Node = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let at = format!("the body is not JSON in UTF-8 (line {line}, column {column})");
        Failure::mistakes(&[at])
    })?;
    let Node::Object(fields) = node else {
        return Err(Failure::mistakes(&[format!("the body is {}, not an object", node.kind())]));
    };
    let mut reader = Reader { mistakes: Vec::new() };
    let push = reader.push(fields);
    match push {
        Some(push) if reader.mistakes.is_empty() => within(push, max_bytes),
        _ => Err(Failure::mistakes(&reader.mistakes)),
    }
}

fn within(push: Push, max_bytes: usize) -> Result<Push, Failure> {
    let (Command::Publish { message, .. } | Command::Request { message, .. }) = &push.command;
    let bytes = message.payload().len();
    if bytes > max_bytes {
        let message = format!("the payload has {bytes} bytes, of at most {max_bytes} (limits.max_message)");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    Ok(push)
}

struct Reader {
    mistakes: Vec<String>,
}

impl Reader {
    fn push(&mut self, fields: Vec<(String, Node)>) -> Option<Push> {
        let mut to = None;
        let mut payloads = Vec::new();
        let mut named_payloads = 0;
        let (mut once, mut wait, mut deadline) = (None, None, None);
        for (name, node) in self.once_each("", &FIELDS, fields) {
            match name.as_str() {
                "to" => to = Some(self.target(node)),
                "text" | "binary" | "request" => {
                    named_payloads += 1;
                    payloads.extend(self.payload(&name, node));
                }
                "once" => once = self.bool(&name, &node),
                "wait" => wait = self.bool(&name, &node),
                _ => deadline = self.patience(&node),
            }
        }
        if to.is_none() {
            self.mistakes.push("to is missing".to_owned());
        }
        if named_payloads != 1 {
            let found = if named_payloads == 0 { "none is there" } else { "there are more" };
            self.mistakes.push(format!("exactly one of text, binary and request is needed, and {found}"));
        }
        if deadline.is_some() && wait != Some(true) {
            self.mistakes.push("deadline needs \"wait\": true".to_owned());
        }
        let payload = payloads.pop()?;
        if once.is_some() && matches!(payload, Payload::Message(_)) {
            self.mistakes.push("once needs a request".to_owned());
        }
        let to = to??;
        let command = match payload {
            Payload::Message(message) => Command::Publish { to, message },
            Payload::Request(message) => {
                let runs = if once == Some(true) { Runs::PerUser } else { Runs::PerConnection };
                Command::Request { to, message, runs }
            }
        };
        let wait = if wait == Some(true) { Wait::UntilWritten } else { Wait::UntilQueued };
        Some(Push { command, wait, patience: deadline.unwrap_or(DEFAULT_PATIENCE) })
    }

    /// The known fields of an object; names the unknown ones and those that are there twice.
    fn once_each(&mut self, path: &str, known: &[&str], fields: Vec<(String, Node)>) -> Vec<(String, Node)> {
        let mut kept: Vec<(String, Node)> = Vec::with_capacity(fields.len());
        for (name, node) in fields {
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(40).filter(|c| !c.is_control()).collect();
                self.mistakes.push(format!("{path}{name} is no field; there are {}", known.join(", ")));
            } else if kept.iter().any(|(other, _)| *other == name) {
                self.mistakes.push(format!("{path}{name} is there twice"));
            } else {
                kept.push((name, node));
            }
        }
        kept
    }

    fn target(&mut self, node: Node) -> Option<Target> {
        let Node::Object(fields) = node else { return self.wrong("to", "an object", &node) };
        let mut fields = self.once_each("to.", &TARGETS, fields);
        if fields.len() != 1 {
            let names = TARGETS.join(", ");
            self.mistakes.push(format!("to has exactly one of {names}, not {}", fields.len()));
            return None;
        }
        let (name, node) = fields.pop()?;
        let path = format!("to.{name}");
        if name == "all" {
            return match node {
                Node::Bool(true) => Some(Target::All),
                _ => self.wrong(&path, "true", &node),
            };
        }
        let text = self.text(&path, node)?;
        match name.as_str() {
            "user" => Some(Target::User(text.into())),
            "session" => Some(Target::Session(text.into())),
            "connection" => match parse_id(&text) {
                Some(id) => Some(Target::Connection(id)),
                None => self.mistake(format!("{path} is 32 hexadecimal digits")),
            },
            _ => match channels::name(&text) {
                Ok(name) => Some(Target::Channel(name)),
                Err(why) => self.mistake(format!("{path}: {why}")),
            },
        }
    }

    fn payload(&mut self, name: &str, node: Node) -> Option<Payload> {
        let text = self.text(name, node)?;
        match name {
            "text" => Some(Payload::Message(Message::text(text))),
            "request" => Some(Payload::Request(Message::text(text))),
            _ => match STANDARD.decode(text.as_bytes()) {
                Ok(bytes) => Some(Payload::Message(Message::binary(Bytes::from(bytes)))),
                Err(_) => self.mistake(format!("{name} is not base64 (RFC 4648 section 4, with padding)")),
            },
        }
    }

    fn patience(&mut self, node: &Node) -> Option<Duration> {
        match node {
            Node::Number(seconds) if *seconds > 0.0 && *seconds <= LONGEST_PATIENCE_SECONDS => {
                Some(Duration::from_secs_f64(*seconds))
            }
            Node::Number(_) => {
                self.mistake(format!("deadline is more than 0 and at most {LONGEST_PATIENCE_SECONDS} seconds"))
            }
            _ => self.wrong("deadline", "a number of seconds", node),
        }
    }

    fn bool(&mut self, path: &str, node: &Node) -> Option<bool> {
        match node {
            Node::Bool(value) => Some(*value),
            _ => self.wrong(path, "true or false", node),
        }
    }

    fn text(&mut self, path: &str, node: Node) -> Option<String> {
        match node {
            Node::Text(text) => Some(text),
            _ => self.wrong(path, "a string", &node),
        }
    }

    fn wrong<T>(&mut self, path: &str, wanted: &str, found: &Node) -> Option<T> {
        let found = match found {
            Node::Bool(value) => value.to_string(),
            other => other.kind().to_owned(),
        };
        self.mistake(format!("{path} is {wanted}, not {found}"))
    }

    fn mistake<T>(&mut self, text: String) -> Option<T> {
        self.mistakes.push(text);
        None
    }
}

/// What came of a push, as the client is told.
#[derive(Debug, serde::Serialize)]
pub(super) struct Receipt {
    reached: u64,
    queued: u64,
    dropped: u64,
    /// Of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<u64>,
    /// Where that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
}

/// Whether a receipt tells how many joined a request that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joins {
    Told,
    Untold,
}

impl Joins {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::Publish { .. } => Self::Untold,
            Command::Request { .. } => Self::Told,
        }
    }
}

impl Receipt {
    pub(super) fn new(joins: Joins, wait: Wait, outcome: &crate::push::Outcome) -> Self {
        let wootz_hub::Receipt { reached, queued, dropped, joined } = outcome.receipt;
        let joined = (joins == Joins::Told).then_some(joined);
        Self { reached, queued, dropped, joined, written: (wait == Wait::UntilWritten).then_some(outcome.written) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(body: &str) -> Push {
        parse(body.as_bytes(), 100).unwrap_or_else(|failure| panic!("{body}: {failure:?}"))
    }

    fn mistakes(body: &str) -> String {
        let failure = parse(body.as_bytes(), 100).expect_err(body);
        assert_eq!((failure.status, failure.code), (StatusCode::BAD_REQUEST, "bad_request"), "{body}");
        failure.message
    }

    #[test]
    fn each_target_and_payload_is_read_as_it_was_meant() {
        let Push { command: Command::Publish { to, message }, wait, .. } =
            good(r#"{"to": {"user": "42"}, "text": "hi"}"#)
        else {
            panic!("it is a publication")
        };
        assert_eq!((to, message, wait), (Target::User("42".into()), Message::text("hi"), Wait::UntilQueued));
        let Push { command: Command::Publish { to, message }, wait, patience } =
            good(r#"{"binary": "AP8=", "wait": true, "deadline": 2.5, "to": {"all": true}}"#)
        else {
            panic!("it is a publication")
        };
        assert_eq!((to, message), (Target::All, Message::binary(vec![0, 255])));
        assert_eq!((wait, patience), (Wait::UntilWritten, Duration::from_millis(2500)));
        let Push { command: Command::Request { to, message, runs }, .. } =
            good(r#"{"to": {"connection": "000000000000000000000000000000ff"}, "request": "/cart", "once": true}"#)
        else {
            panic!("it is a request")
        };
        assert_eq!((to, message, runs), (Target::Connection(255), Message::text("/cart"), Runs::PerUser));
        assert!(matches!(
            good(r#"{"to": {"session": "abc"}, "text": ""}"#).command,
            Command::Publish { to: Target::Session(session), .. } if &*session == "abc"
        ));
    }

    #[test]
    fn every_mistake_of_a_body_is_named() {
        let cases = [
            ("", "not JSON"),
            ("[]", "a list, not an object"),
            ("{", "line 1"),
            ("{}", "to is missing; exactly one of text, binary and request is needed, and none is there"),
            (r#"{"to": {"all": true}, "text": "a", "request": "/"}"#, "there are more"),
            (r#"{"to": {"all": true}, "text": "a", "text": "b"}"#, "text is there twice"),
            (
                r#"{"to": {"all": true, "user": "1"}, "text": "a"}"#,
                "exactly one of all, user, session, connection, channel, not 2",
            ),
            (r#"{"to": {}, "text": "a"}"#, "not 0"),
            (r#"{"to": {"user": "1", "user": "2"}, "text": "a"}"#, "to.user is there twice"),
            (r#"{"to": {"users": "1"}, "text": "a"}"#, "to.users is no field"),
            (r#"{"to": {"user": 42}, "text": "a"}"#, "to.user is a string, not a number"),
            (r#"{"to": {"all": false}, "text": "a"}"#, "to.all is true, not false"),
            (r#"{"to": {"connection": "7"}, "text": "a"}"#, "to.connection is 32 hexadecimal digits"),
            (r#"{"to": {"channel": ""}, "text": "a"}"#, "not empty"),
            (r#"{"to": "all", "text": 1, "extra": []}"#, "to is an object, not a string"),
            (r#"{"to": {"all": true}, "binary": "%"}"#, "not base64"),
            (r#"{"to": {"all": true}, "text": "a", "once": true}"#, "once needs a request"),
            (r#"{"to": {"all": true}, "text": "a", "deadline": 1}"#, "deadline needs"),
            (r#"{"to": {"all": true}, "text": "a", "wait": true, "deadline": 0}"#, "more than 0"),
            (r#"{"to": {"all": true}, "text": "a", "wait": "yes"}"#, "wait is true or false, not a string"),
        ];
        for (body, part) in cases {
            let message = mistakes(body);
            assert!(message.contains(part), "{body}: {message}");
        }
        let many = mistakes(r#"{"to": 1, "text": null, "wait": 2, "what": 3, "wait": true}"#);
        for part in
            ["to is an object", "text is a string, not null", "wait is true", "what is no field", "wait is there twice"]
        {
            assert!(many.contains(part), "{many}");
        }
    }

    #[test]
    fn no_mistake_quotes_a_payload() {
        for body in [r#"{"to": {"all": true}, "text": "secret" x}"#, r#"{"text": "secret"}"#, r#"{"binary": "secret"}"#]
        {
            assert!(!mistakes(body).contains("secret"), "{body}");
        }
    }

    #[test]
    fn a_payload_over_the_limit_is_too_large() {
        let body = format!(r#"{{"to": {{"all": true}}, "text": "{}"}}"#, "x".repeat(101));
        let failure = parse(body.as_bytes(), 100).expect_err("too long");
        assert_eq!((failure.status, failure.code), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let body = "[".repeat(100_000);
        assert!(mistakes(&body).contains("not JSON"));
    }
}
