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

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let socket = socket(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let body = runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, ask(&socket)).await;
        answer.unwrap_or_else(|_| {
            bail!("the server at {} has not answered for {} s", socket.display(), PATIENCE.as_secs())
        })
    })?;
    if given(matches, "json") {
        return print(&body);
    }
    let status: Value =
        serde_json::from_str(&body).with_context(|| format!("what listens at {} speaks no JSON", socket.display()))?;
    print(&table(&status))
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

/// The status for people: one line per value, the parts of an object under its name.
fn table(status: &Value) -> String {
    let mut rows = Vec::new();
    collect_rows(status, 0, &mut rows);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> =
        rows.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned()).collect();
    lines.join("\n")
}

fn collect_rows(value: &Value, depth: usize, rows: &mut Vec<(String, String)>) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let name = format!("{}{}", "  ".repeat(depth), key.replace('_', " "));
        match value {
            Value::Object(_) => {
                rows.push((name, String::new()));
                collect_rows(value, depth + 1, rows);
            }
            Value::String(text) => rows.push((name, text.clone())),
            Value::Null => rows.push((name, "-".to_owned())),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => rows.push((name, value.to_string())),
        }
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
}
