//! `wootz tail`: what happens, as it happens, until the server ends or nobody reads any more.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::ArgMatches;
use serde_json::Value;

use crate::arguments::{given, value};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::table::cell;

/// What stands in its own place of a line, or is of no use to people.
const PLACED: [&str; 4] = ["event", "time", "connection", "user"];

/// Characters of an id that tell connections apart on a screen.
const SHOWN_ID: usize = 8;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let mut parameters = Vec::new();
    parameters.extend(value(matches, "user").map(|user| format!("user={}", encoded(user))));
    parameters.extend(given(matches, "payload").then(|| "payload=1".to_owned()));
    let mut client = Client::connect(matches)?;
    client.wait_for_ever()?;
    let as_json = given(matches, "json");
    let answer = client.ask("GET", &format!("/v1/events?{}", parameters.join("&")), None)?;
    let mut unfinished = Vec::new();
    let shown = answer.read(|part| {
        unfinished.extend_from_slice(part);
        let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = unfinished.drain(..=end).collect();
        let mut out = io::stdout().lock();
        if as_json {
            out.write_all(&lines)?;
        } else {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).context("the server's line is no JSON")?;
                writeln!(out, "{}", for_people(&event))?;
            }
        }
        out.flush().map_err(anyhow::Error::new)
    });
    match shown {
        // `wootz tail | head -1` has what it wanted.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        result => Ok(result.context("events")?),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `13:31:39.123  message  3f9a01bc  42  type=text bytes=5`.
fn for_people(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or("-");
    let time = text("time").get(11..23).unwrap_or("-");
    let connection = text("connection");
    let connection = connection.get(..SHOWN_ID).unwrap_or(connection);
    let user = cell(&event["user"]);
    let others = event.as_object().into_iter().flatten().filter(|(name, _)| !PLACED.contains(&name.as_str()));
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={}", cell(value))).collect();
    format!("{time}  {:<7}  {connection:<SHOWN_ID$}  {user}  {}", text("event"), others.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_moves_no_cursor() {
        let event = serde_json::json!({
            "event": "message", "time": "2026-11-25T13:31:39.123Z", "connection": "3f9a01bc00000000000000000000ffff",
            "user": "4\u{1b}2", "bytes": 5, "text": "a\nb",
        });
        assert_eq!(for_people(&event), "13:31:39.123  message  3f9a01bc  4 2  bytes=5 text=a b");
        let push = serde_json::json!({ "event": "push", "time": "2026-11-25T13:31:39.123Z", "to": {"all": true} });
        assert_eq!(for_people(&push), "13:31:39.123  push     -         -  to={\"all\":true}");
    }
}
