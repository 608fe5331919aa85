//! `wootz status`: asks the running server over its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ArgMatches;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::arguments::given;
use crate::failure::Failure;
use crate::output::print;
use crate::problem::Problems;
use crate::resolve::control_socket;
use crate::settings::{FileChoice, FileState, Settings};

/// A server that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Characters of a value in a table of several columns.
const LONGEST_CELL: usize = 80;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let socket = socket(matches)?;
    let body = fetch(&socket)?;
    if given(matches, "json") {
        return print(&body);
    }
    let status: Value =
        serde_json::from_str(&body).with_context(|| format!("what listens at {} speaks no JSON", socket.display()))?;
    print(&table(&status))
}

/// What the server at this socket says of itself, as JSON.
pub(super) fn fetch(socket: &Path) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, ask(socket)).await;
        answer.unwrap_or_else(|_| {
            bail!("the server at {} has not answered for {} s", socket.display(), PATIENCE.as_secs())
        })
    })
}

/// Where the server is expected. Only the setting of the socket matters: a mistake elsewhere in the file, which may have been
/// edited since the server started, is no reason to refuse. A flag needs no file at all.
fn socket(matches: &ArgMatches) -> Result<PathBuf, Failure> {
    let mut sources = super::sources(matches);
    if !sources.overrides.is_empty() {
        sources.file = FileChoice::None;
    }
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    if settings.is_broken("control.socket") || settings.file_state == FileState::Unknown {
        return Err(Failure::Configuration(problems));
    }
    Ok(control_socket(&settings, &super::variable))
}

async fn ask(socket: &Path) -> anyhow::Result<String> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!("no server listens at {} (is it running? `--socket PATH` names another place)", socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the answer is here; what went wrong is seen in the answer too.
    drop(tokio::spawn(connection));
    let request = Request::get("/v1/status").header("host", "wootz").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("the server did not answer")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("the server's answer ended early")?.to_bytes();
    let body = String::from_utf8(body.into()).context("the server's answer is not UTF-8")?;
    if status != StatusCode::OK {
        bail!("the server answered {status}: {}", body.trim());
    }
    Ok(body)
}

/// The status for people: one line per value, the parts of an object under its name, a list of objects as a table.
fn table(status: &Value) -> String {
    let mut rows = Vec::new();
    collect_rows(status, 0, &mut rows);
    let name_length = |row: &Row| match row {
        Row::Value(name, _) => name.chars().count(),
        Row::Text(_) => 0,
    };
    let width = rows.iter().map(name_length).max().unwrap_or(0);
    let lines = rows.into_iter().map(|row| match row {
        Row::Value(name, value) => format!("{name:<width$}  {value}").trim_end().to_owned(),
        Row::Text(text) => text,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One line of the table.
enum Row {
    /// A name with its value.
    Value(String, String),
    /// A line that is laid out already.
    Text(String),
}

fn collect_rows(value: &Value, depth: usize, rows: &mut Vec<Row>) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let name = format!("{}{}", "  ".repeat(depth), words(key));
        match value {
            Value::Object(_) => {
                rows.push(Row::Value(name, String::new()));
                collect_rows(value, depth + 1, rows);
            }
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_object) => {
                rows.push(Row::Value(name, String::new()));
                rows.extend(columns(items, depth + 1).into_iter().map(Row::Text));
            }
            Value::Array(items) if items.is_empty() => rows.push(Row::Value(name, "none".to_owned())),
            _ => rows.push(Row::Value(name, cell(value))),
        }
    }
}

/// Objects below one another, a column for each key that one of them has, numbers to the right.
fn columns(items: &[Value], depth: usize) -> Vec<String> {
    let mut keys: Vec<&String> = Vec::new();
    for key in items.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut lines = vec!["  ".repeat(depth); items.len() + 1];
    for key in keys {
        let cells: Vec<String> = items.iter().map(|item| shortened(cell(&item[key]))).collect();
        let name = words(key);
        let width = cells.iter().chain([&name]).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let is_number = items.iter().any(|item| item[key].is_number());
        for (line, cell) in lines.iter_mut().zip([&name].into_iter().chain(&cells)) {
            let laid_out = if is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&laid_out);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// So that a long reason does not push the lines of a table apart; `--json` has all of it.
fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

/// A value on one line. Texts may come from an application's mouth, so what moves the cursor is left out.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" "),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_shown_with_its_nested_parts_indented() {
        let status = serde_json::json!({ "pid": 7, "calls": { "running": 1, "mean_run_ms": 2.5 }, "state": "running", "none": null });
        let table = table(&status);
        let mut lines: Vec<&str> = table.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "  mean run ms  2.5",
                "  running      1",
                "calls",
                "none           -",
                "pid            7",
                "state          running"
            ]
        );
    }

    #[test]
    fn list_of_objects_is_a_table_with_a_column_per_key() {
        let status = serde_json::json!({
            "workers": [
                { "pid": 7, "state": "idle", "last_failure": null },
                { "pid": 1234, "state": "starting", "last_failure": "killed\nby\u{1b}[31m SIGKILL", "calls": 3 },
            ],
            "nobody": [],
            "plain": [1, 2],
        });
        assert_eq!(
            table(&status),
            [
                "workers",
                "   pid  state     last failure            calls",
                "     7  idle      -                           -",
                "  1234  starting  killed by [31m SIGKILL      3",
                "nobody   none",
                "plain    [1,2]",
            ]
            .join("\n")
        );
    }

    #[test]
    fn long_value_is_cut_in_a_table_of_several_columns() {
        let status = serde_json::json!({ "workers": [{ "last_failure": "é".repeat(81), "pid": 1 }] });
        assert!(table(&status).contains(&format!("  {}…    1", "é".repeat(80))), "{}", table(&status));
    }
}
