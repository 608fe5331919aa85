//! Puts the sources together: default, then file, then variable, then flag; the later one wins.
//!
//! A value that can't be read leaves the one below it in force and is remembered as broken, so that the checks that
//! follow can go on and need not complain about a value that nobody wrote.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wootz_server::config::Address;

use super::file::{self, State};
use super::value::Value;
use super::{FILE_NAME, Row, TABLE, find, names};
use crate::problem::{Origin, Problems};

/// Everything that settings can come from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The file.
    pub(crate) file: FileChoice,
    /// The environment.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Flags, in the order in which they win: the last.
    pub(crate) overrides: Vec<Override>,
    /// Whether `--dev` was given, which has a default of its own for the log.
    pub(crate) dev: Dev,
}

/// Whether `--dev` was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dev {
    #[default]
    No,
    Yes,
}

/// Which file is read.
#[derive(Debug, Default)]
pub(crate) enum FileChoice {
    /// This one, which has to exist.
    Named(PathBuf),
    /// `wootz.toml` of this directory, where there is one.
    #[default]
    IfPresent,
    /// None.
    None,
}

/// One setting of the command line.
#[derive(Debug)]
pub(crate) enum Override {
    /// A flag of its own.
    Flag { row: &'static Row, text: String },
    /// `--set key=value`.
    Set(String),
    /// The command after `--`.
    Command(Vec<OsString>),
}

/// Every setting with its value and where it came from.
#[derive(Debug)]
pub(crate) struct Settings {
    /// One per row of the table, in its order.
    entries: Vec<(Value, Origin)>,
    broken: BTreeSet<&'static str>,
    /// So that a test can tell a setting that does nothing.
    #[cfg(test)]
    used: std::cell::RefCell<BTreeSet<&'static str>>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// Whether what the file says is known: it was read, or there is none.
    pub(crate) file_state: FileState,
}

/// Whether what the file says is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileState {
    /// Every setting in it was seen, or there is no file.
    Known,
    /// It was named but is not there, can't be read, or is no TOML.
    Unknown,
}

impl Settings {
    /// Reads all sources. Problems are found in all of them, whatever the first ones were.
    pub(crate) fn load(sources: &Sources, problems: &mut Problems) -> Self {
        let mut settings = Self::defaults();
        if sources.dev == Dev::Yes {
            let row = find("log.level").expect("the table has it");
            settings.take(row, Ok(Value::Text("debug".to_owned())), Origin::flag("dev"), problems);
        }
        settings.load_file(&sources.file, problems);
        for (name, text) in &sources.variables {
            settings.load_variable(name, text, problems);
        }
        for given in &sources.overrides {
            settings.load_override(given, problems);
        }
        settings.imply_runner(&sources.overrides, problems);
        settings
    }

    /// A flag that only one runner knows asks for that runner, unless another flag names one: then the two contradict each
    /// other, which is seen where the settings meet.
    fn imply_runner(&mut self, overrides: &[Override], problems: &mut Problems) {
        let row = find("application.runner").expect("the table has it");
        let implied = overrides.iter().find_map(|given| match given {
            Override::Flag { row, .. } => row.flag.and_then(|flag| Some((flag.name, flag.runner?))),
            Override::Set(_) | Override::Command(_) => None,
        });
        match (self.origin(row.key), implied) {
            (Origin::Flag(_), _) | (_, None) => {}
            (_, Some((flag, runner))) => {
                self.take(row, Ok(Value::Text(runner.to_owned())), Origin::flag(flag), problems);
            }
        }
    }

    /// The defaults of the table.
    pub(crate) fn defaults() -> Self {
        Self {
            entries: TABLE.iter().map(|row| (default_of(row), Origin::Default)).collect(),
            broken: BTreeSet::new(),
            #[cfg(test)]
            used: Default::default(),
            file: None,
            file_state: FileState::Known,
        }
    }

    fn load_file(&mut self, choice: &FileChoice, problems: &mut Problems) {
        let path = match choice {
            FileChoice::Named(path) => path.as_path(),
            FileChoice::IfPresent => Path::new(FILE_NAME),
            FileChoice::None => return,
        };
        let mut of_values = Problems::default();
        let mut take = |row, value, origin| self.take(row, value, origin, &mut of_values);
        let whole = || Origin::File { path: path.into(), line: None };
        let state = match file::read(path, &mut take, problems) {
            Ok(State::Read) => FileState::Known,
            Ok(State::Missing) if matches!(choice, FileChoice::IfPresent) => return,
            Ok(State::Missing) => {
                problems.add(whole(), "there is no such file");
                FileState::Unknown
            }
            Ok(State::Torn) => FileState::Unknown,
            Err(error) => {
                problems.add(whole(), format!("can't be read: {error}"));
                FileState::Unknown
            }
        };
        self.file = Some(path.to_owned());
        self.file_state = state;
        problems.append(of_values);
    }

    fn load_variable(&mut self, name: &OsString, text: &OsString, problems: &mut Problems) {
        let Some(name) = name.to_str().filter(|name| name.starts_with("WOOTZ_")) else { return };
        let origin = Origin::Variable(name.to_owned());
        if let Some(row) = TABLE.iter().find(|row| row.variable() == name) {
            let text = text.to_str().ok_or_else(|| "is not UTF-8".to_owned());
            self.take(row, text.and_then(|text| row.kind.read_text(text)), origin, problems);
        } else if !names::is_given_to_calls(name) {
            problems.add(origin, names::unknown_variable(name));
        }
    }

    fn load_override(&mut self, given: &Override, problems: &mut Problems) {
        match given {
            Override::Flag { row, text } => {
                let flag = row.flag.expect("a flag is given only by rows that have one");
                self.take(row, row.kind.read_text(text), Origin::flag(flag.name), problems);
            }
            Override::Set(pair) => self.load_set(pair, problems),
            Override::Command(words) => {
                let words = words.iter().map(|word| word.to_str().map(str::to_owned));
                let command = words.collect::<Option<_>>().map(Value::List).ok_or_else(|| "is not UTF-8".to_owned());
                let row = find("application.command").expect("the table has it");
                self.take(row, command, Origin::Flag("--".to_owned()), problems);
            }
        }
    }

    fn load_set(&mut self, pair: &str, problems: &mut Problems) {
        let origin = Origin::flag("set");
        let Some((key, text)) = pair.split_once('=') else {
            return problems.add(origin, format!("{pair} needs a value: --set {pair}=VALUE"));
        };
        match find(key.trim()) {
            Some(row) => self.take(row, row.kind.read_text(text), origin, problems),
            None => problems.add(origin, names::unknown_key(key.trim())),
        }
    }

    fn take(&mut self, row: &'static Row, value: Result<Value, String>, origin: Origin, problems: &mut Problems) {
        match value {
            Ok(value) => self.entries[index(row.key)] = (value, origin),
            Err(text) => {
                self.broken.insert(row.key);
                problems.add(origin, format!("{} {text}", row.key));
            }
        }
    }

    /// The value of a setting and where it came from.
    pub(crate) fn entry(&self, key: &str) -> &(Value, Origin) {
        &self.entries[index(key)]
    }

    /// The keys whose values were used so far.
    #[cfg(test)]
    pub(crate) fn used(&self) -> BTreeSet<&'static str> {
        self.used.borrow().clone()
    }

    fn value(&self, key: &str) -> &Value {
        #[cfg(test)]
        self.used.borrow_mut().insert(TABLE[index(key)].key);
        &self.entry(key).0
    }

    /// Where a setting came from.
    pub(crate) fn origin(&self, key: &str) -> &Origin {
        &self.entry(key).1
    }

    /// Whether nothing was written for it in any source.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        self.origin(key) == &Origin::Default
    }

    /// Whether something else than its default was written for it.
    pub(crate) fn is_changed(&self, row: &Row) -> bool {
        self.entry(row.key).0 != default_of(row)
    }

    /// Whether something was written for it that could not be read.
    pub(crate) fn is_broken(&self, key: &str) -> bool {
        self.broken.contains(key)
    }
}

fn default_of(row: &Row) -> Value {
    let item = row.default.parse().map(toml_edit::Item::Value).expect("defaults of the table are TOML");
    row.kind.read_toml(&item).expect("defaults of the table are of their own kind")
}

fn index(key: &str) -> usize {
    TABLE.iter().position(|row| row.key == key).unwrap_or_else(|| panic!("{key} is a key of the table"))
}

/// One accessor per kind. A key of another kind is a slip in this crate, and the test that resolves the defaults, which
/// asks for every key, fails on it.
macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty = $value:ident => $give:expr;)+) => {
        impl Settings {
            $($(#[$doc])*
            pub(crate) fn $name(&self, key: &str) -> $type {
                match self.value(key) {
                    Value::$variant($value) => $give,
                    other => panic!("{key} is asked for as {}, but is {other:?}", stringify!($name)),
                }
            })+
        }
    };
}

accessors! {
    /// A truth value.
    flag: Bool -> bool = value => *value;
    /// A number.
    count: Count -> u32 = value => *value;
    /// A duration.
    duration: Duration -> Duration = value => *value;
    /// Bytes.
    size: Size -> u64 = value => *value;
    /// A text, a path or a choice.
    text: Text -> &str = value => value;
    /// A list or a command.
    list: List -> &[String] = value => value;
    /// One file or several.
    files: Files -> &[String] = value => value;
    /// Names with a text each.
    map: Map -> &[(String, String)] = value => value;
    /// Permission bits.
    mode: Mode -> u32 = value => *value;
    /// Places to listen on.
    addresses: Addresses -> &[Address] = value => value;
}
