//! `wootz connections`, `wootz disconnect` and `wootz channels`: who is there, and who is not any more.

use clap::ArgMatches;
use serde_json::Value;

use crate::arguments::{given, value};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::print;
use crate::table::{columns, table};

/// `wootz connections`: one row each.
pub(super) fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let filters = ["user", "session", "channel"].map(|name| Some((name, value(matches, name)?)));
    let filters: Vec<String> =
        filters.into_iter().flatten().map(|(name, text)| format!("{name}={}", encoded(text))).collect();
    let mut client = Client::connect(matches)?;
    let answer = client.ask("GET", &format!("/v1/connections?{}", filters.join("&")), None)?;
    if given(matches, "json") {
        return print(&answer.text()?);
    }
    let body = answer.json()?;
    let rows: Vec<Value> = body["connections"].as_array().into_iter().flatten().map(row).collect();
    rows_or_none(&rows, "no connection")
}

/// Channels in one cell; everything else as it is.
fn row(connection: &Value) -> Value {
    let mut row = connection.clone();
    if let Some(channels) = connection["channels"].as_array() {
        let names: Vec<&str> = channels.iter().filter_map(Value::as_str).collect();
        row["channels"] = if names.is_empty() { Value::Null } else { names.join(", ").into() };
    }
    row
}

fn rows_or_none(rows: &[Value], none: &str) -> Result<(), Failure> {
    if rows.is_empty() { print(none) } else { print(&columns(rows, 0).join("\n")) }
}

/// `wootz disconnect ID`.
pub(super) fn disconnect(matches: &ArgMatches) -> Result<(), Failure> {
    let id = encoded(value(matches, "id").expect("the id is required"));
    let code = value(matches, "code").map(|code| format!("?code={}", encoded(code))).unwrap_or_default();
    let mut client = Client::connect(matches)?;
    client.ask("DELETE", &format!("/v1/connections/{id}{code}"), None)?.text()?;
    Ok(())
}

/// `wootz channels [NAME]`: all of them, or who is in one.
pub(super) fn channels(matches: &ArgMatches) -> Result<(), Failure> {
    let name = value(matches, "name");
    let target = name.map_or_else(|| "/v1/channels".to_owned(), |name| format!("/v1/channels/{}", encoded(name)));
    let mut client = Client::connect(matches)?;
    let answer = client.ask("GET", &target, None)?;
    if given(matches, "json") {
        return print(&answer.text()?);
    }
    let body = answer.json()?;
    match (name, body["channels"].as_array()) {
        (None, Some(channels)) => rows_or_none(channels, "no channel"),
        _ => print(&table(&body)),
    }
}
