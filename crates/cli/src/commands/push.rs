//! `wootz push`: a text, bytes or a request to browsers, from a shell.
//!
//! It ends with 0 when the server took the push, also when nobody was there to be reached: the receipt says so.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ArgMatches;
use serde_json::{Map, Value, json};

use crate::arguments::{given, value};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::print;

/// How a payload is named in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Request,
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let kind = match (given(matches, "binary"), given(matches, "request")) {
        (true, _) => Kind::Binary,
        (_, true) => Kind::Request,
        _ => Kind::Text,
    };
    let text = value(matches, "text").filter(|text| *text != "-");
    if text.is_some() && given(matches, "lines") {
        return Err(Failure::Usage("--lines reads standard input; it takes no TEXT".to_owned()));
    }
    if text.is_none() && value(matches, "text").is_none() && io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "what is to be pushed? Give a TEXT, or - to read it from standard input".to_owned(),
        ));
    }
    let mut client = Client::connect(matches)?;
    let mut sum = Map::new();
    let mut push = |payload: &[u8]| -> anyhow::Result<()> {
        let receipt = client.ask("POST", "/v1/push", Some(&body(matches, kind, payload)?))?.json()?;
        add(&mut sum, &receipt);
        Ok(())
    };
    match text {
        Some(text) => push(text.as_bytes())?,
        None if given(matches, "lines") => push_lines(&mut push)?,
        None => {
            let mut payload = Vec::new();
            io::stdin().lock().read_to_end(&mut payload).context("standard input")?;
            if kind != Kind::Binary {
                take_newline_off(&mut payload);
            }
            push(&payload)?;
        }
    }
    if given(matches, "json") { print(&Value::Object(sum).to_string()) } else { print(&for_people(&sum)) }
}

/// Each line at once, an empty one too.
fn push_lines(push: &mut impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).context("standard input")? == 0 {
            return Ok(());
        }
        take_newline_off(&mut line);
        push(&line)?;
    }
}

/// `echo` ends what it prints with a newline that nobody means.
fn take_newline_off(payload: &mut Vec<u8>) {
    if payload.last() == Some(&b'\n') {
        payload.pop();
    }
}

fn body(matches: &ArgMatches, kind: Kind, payload: &[u8]) -> anyhow::Result<Value> {
    let to = match ["user", "session", "connection", "channel"]
        .into_iter()
        .find_map(|name| Some((name, value(matches, name)?)))
    {
        Some((name, text)) => json!({ name: text }),
        None => json!({ "all": true }),
    };
    let text = || std::str::from_utf8(payload).context("the text is not UTF-8 (--binary pushes any bytes)");
    let mut body = json!({ "to": to });
    match kind {
        Kind::Text => body["text"] = text()?.into(),
        Kind::Request => body["request"] = text()?.into(),
        Kind::Binary => body["binary"] = STANDARD.encode(payload).into(),
    }
    if given(matches, "once") {
        body["once"] = true.into();
    }
    if given(matches, "wait") {
        body["wait"] = true.into();
    }
    Ok(body)
}

/// Adds a receipt to the sum of those before.
fn add(sum: &mut Map<String, Value>, receipt: &Value) {
    for (name, count) in receipt.as_object().into_iter().flatten() {
        let before = sum.get(name).and_then(Value::as_u64).unwrap_or(0);
        sum.insert(name.clone(), (before + count.as_u64().unwrap_or(0)).into());
    }
}

/// `reached 2, queued 2, dropped 0`.
fn for_people(receipt: &Map<String, Value>) -> String {
    let counts: Vec<String> = receipt.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { "nothing to push".to_owned() } else { counts.join(", ") }
}
