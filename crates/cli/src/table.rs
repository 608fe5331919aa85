//! JSON for people: a line per value, and lists of objects as tables.

use serde_json::Value;

/// Characters of a value in a table of several columns.
const LONGEST_CELL: usize = 80;

/// An object: one line per value, the parts of an object under its name, a list of objects as a table.
pub(crate) fn table(status: &Value) -> String {
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
pub(crate) fn columns(items: &[Value], depth: usize) -> Vec<String> {
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
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" "),
        Value::Null => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
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
            "words": ["a", "b c"],
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
                "words    a, b c",
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
