//! What the doctor says: a line per hop as it was passed, then the fault in plain words. The same as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::{Diagnosis, Fault};

/// A stage of the way, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    Url,
    Dns,
    Tcp,
    Tls,
    Upgrade,
    Origin,
    Identity,
    Ping,
    Message,
    Idle,
}

impl Hop {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Origin => "origin",
            Self::Identity => "identity",
            Self::Ping => "ping",
            Self::Message => "message",
            Self::Idle => "idle",
        }
    }
}

#[derive(Debug)]
struct Line {
    hop: Hop,
    state: State,
    time: Duration,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Failed,
}

/// One way, hop by hop.
#[derive(Debug)]
pub(super) struct Report {
    url: String,
    lines: Vec<Line>,
    notes: Vec<String>,
    /// What is broken, if anything is.
    pub(super) fault: Option<Fault>,
}

/// Characters of a line of prose.
const WIDTH: usize = 100;

impl Report {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), lines: Vec::new(), notes: Vec::new(), fault: None }
    }

    pub(super) fn ok(&mut self, hop: Hop, time: Duration, detail: impl Into<String>) {
        self.lines.push(Line { hop, state: State::Ok, time, detail: detail.into() });
    }

    pub(super) fn failed(&mut self, hop: Hop, time: Duration, detail: impl Into<String>) {
        self.lines.push(Line { hop, state: State::Failed, time, detail: detail.into() });
    }

    /// Something to know that is no fault.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Takes back that a hop was passed, where a later look shows that it was not.
    pub(super) fn turn_failed(&mut self, hop: Hop, detail: &str) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.hop == hop) {
            line.state = State::Failed;
            detail.clone_into(&mut line.detail);
        }
    }

    fn hops_as_text(&self, out: &mut String) {
        for Line { hop, state, time, detail } in &self.lines {
            let state = match state {
                State::Ok => "ok",
                State::Failed => "FAILED",
            };
            let _ = writeln!(out, "  {:<8}  {state:<6}  {:>8}  {detail}", hop.name(), milliseconds(*time));
        }
    }

    /// For people.
    pub(super) fn text(&self, direct: Option<&Self>) -> String {
        let mut out = format!("{}\n\n", self.url);
        self.hops_as_text(&mut out);
        if let Some(direct) = direct {
            let _ = write!(out, "\nFor comparison, {} directly:\n\n", direct.url);
            direct.hops_as_text(&mut out);
        }
        out.push('\n');
        match &self.fault {
            None => out.push_str("Everything works.\n"),
            Some(fault) => diagnosis_as_text(&fault.diagnosis(), &mut out),
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            wrapped("Note:     ", note, &mut out);
        }
        out
    }

    /// For programs.
    pub(super) fn json(&self, direct: Option<&Self>) -> String {
        let mut value = self.value();
        if let Some(direct) = direct {
            value["direct"] = direct.value();
        }
        value.to_string()
    }

    fn value(&self) -> Value {
        let hops = self.lines.iter().map(|line| {
            json!({
                "hop": line.hop.name(),
                "ok": line.state == State::Ok,
                "ms": line.time.as_micros() as f64 / 1000.0,
                "detail": line.detail,
            })
        });
        let fault = self.fault.as_ref().map(|fault| {
            let Diagnosis { hop, name, broken, blame, change, lines } = fault.diagnosis();
            let hop = hop.name();
            json!({ "hop": hop, "name": name, "broken": broken, "blame": blame, "change": change, "lines": lines })
        });
        json!({
            "url": self.url,
            "works": self.fault.is_none(),
            "hops": hops.collect::<Vec<_>>(),
            "fault": fault,
            "notes": self.notes,
        })
    }
}

fn diagnosis_as_text(diagnosis: &Diagnosis, out: &mut String) {
    wrapped("Broken:   ", &format!("{} [{}]", diagnosis.broken, diagnosis.name), out);
    wrapped("To blame: ", &format!("{}.", diagnosis.blame), out);
    wrapped("Change:   ", &diagnosis.change, out);
    if !diagnosis.lines.is_empty() {
        out.push('\n');
    }
    for line in &diagnosis.lines {
        let _ = writeln!(out, "{}", format!("    {line}").trim_end());
    }
}

/// Writes words behind a label, in lines of bearable length.
fn wrapped(label: &str, text: &str, out: &mut String) {
    let mut line = label.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(label.len());
        }
        line.push_str(word);
        line.push(' ');
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Nothing where nothing was waited for.
fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        0 if time.is_zero() => String::new(),
        0 => "<1 ms".to_owned(),
        ms @ 1..10_000 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1000),
    }
}
