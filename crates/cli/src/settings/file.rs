//! `wootz.toml`: from its text to values with their lines. Every mistake of the file is reported, not only the first.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use super::names;
use super::value::Value;
use super::{Row, SECTIONS, find};
use crate::problem::{Origin, Problems};

/// The file that is read where none is named.
pub(crate) const FILE_NAME: &str = "wootz.toml";

/// What is done with each setting of the file, read or not.
pub(super) type Take<'a> = dyn FnMut(&'static Row, Result<Value, String>, Origin) + 'a;

/// Reads the file at `path` and gives each setting in it to `take`.
///
/// # Errors
/// It is there but can't be read.
pub(super) fn read(path: &Path, take: &mut Take<'_>, problems: &mut Problems) -> Result<State, io::Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
        Err(error) => return Err(error),
    };
    let lines = Lines { path: path.into(), text: &text };
    match Document::parse(text.as_str()) {
        Ok(document) => {
            Walk { lines, take, problems }.table("", document.as_table());
            Ok(State::Read)
        }
        Err(error) => {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            problems.add(lines.at(error.span()), format!("is not valid TOML: {message}"));
            Ok(State::Torn)
        }
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Each of its settings was taken.
    Read,
    /// It is no TOML.
    Torn,
    /// There is none.
    Missing,
}

/// Tells lines from positions.
struct Lines<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, span: Option<Range<usize>>) -> Origin {
        let line = span.map(|span| {
            let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        });
        Origin::File { path: Arc::clone(&self.path), line }
    }
}

/// Goes through the tables of a file.
struct Walk<'a, 'b> {
    lines: Lines<'a>,
    take: &'a mut Take<'b>,
    problems: &'a mut Problems,
}

impl Walk<'_, '_> {
    fn table(&mut self, section: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            // Tables that are only the way to another (`[application.limits]` alone) have no span of their own.
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let origin = self.lines.at(span);
            self.entry(&key, item, origin);
        }
    }

    fn entry(&mut self, key: &str, item: &Item, origin: Origin) {
        if let Some(row) = find(key) {
            (self.take)(row, row.kind.read_toml(item), origin);
        } else if SECTIONS.iter().any(|(section, _)| *section == key) {
            match item.as_table_like() {
                Some(table) => self.table(key, table),
                None => self.problems.add(origin, format!("{key} is a section: write [{key}] on a line of its own")),
            }
        } else if item.is_table_like() || item.is_array_of_tables() {
            self.problems.add(origin, names::unknown_section(key));
        } else {
            self.problems.add(origin, names::unknown_key(key));
        }
    }
}
