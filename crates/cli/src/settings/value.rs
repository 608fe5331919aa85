//! What may be written for a setting, and how it is read: from the file as TOML, from a variable or a flag as text.
//!
//! Both ways end in the same [`Value`]; an error completes the sentence that begins with the key.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml_edit::{Item, Value as Toml};
use wootz_server::config::Address;

/// The shape of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number up to 2^32 - 1.
    Count(Zero),
    /// A number with a unit: `500ms`, `10s`, `2m`, `1h`.
    Duration(Zero),
    /// Bytes, or a number with a unit: `64KiB`, `1MiB`, `2GiB`.
    Size(Zero),
    /// Any text.
    Text,
    /// A file or a directory.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts; one as an example.
    List(&'static str),
    /// One file or several.
    Files,
    /// A program and its arguments.
    Command,
    /// Names with a text each.
    Map,
    /// Permission bits, octal.
    Mode,
    /// One or several places to listen on.
    Addresses,
}

/// What 0 (or, where nothing is limited, an empty text) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    /// It makes no sense and is an error.
    Refused,
    /// It means this.
    Means(&'static str),
}

/// What was written, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Count(u32),
    Duration(Duration),
    /// Bytes.
    Size(u64),
    /// Of a text, a path or a choice.
    Text(String),
    /// Of a list or a command.
    List(Vec<String>),
    Files(Vec<String>),
    Map(Vec<(String, String)>),
    Mode(u32),
    Addresses(Vec<Address>),
}

/// Longest duration that may be written: a year. More is a slip of the pen, and clocks overflow somewhere above.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

type Read = Result<Value, String>;

impl Kind {
    /// Reads a value of the file.
    pub(crate) fn read_toml(self, item: &Item) -> Read {
        match (self, item) {
            (Self::Map, _) => self.read_map(item),
            (_, Item::Value(value)) => self.read_value(value),
            (_, Item::None | Item::Table(_) | Item::ArrayOfTables(_)) => Err(self.expected("a table")),
        }
    }

    fn read_value(self, value: &Toml) -> Read {
        match (self, value) {
            (Self::Bool, Toml::Boolean(flag)) => Ok(Value::Bool(*flag.value())),
            (Self::Count(zero), Toml::Integer(number)) => self.count(zero, *number.value()),
            (Self::Size(zero), Toml::Integer(bytes)) => match u64::try_from(*bytes.value()) {
                Ok(bytes) => self.size(zero, bytes),
                Err(_) => Err(self.expected(&bytes.value().to_string())),
            },
            (Self::Duration(zero), Toml::Integer(number)) if *number.value() == 0 => {
                self.duration(zero, Duration::ZERO)
            }
            (Self::List(_) | Self::Files | Self::Command | Self::Addresses, Toml::Array(array)) => {
                let texts = array.iter().map(|item| item.as_str().map(str::to_owned));
                let texts: Vec<String> =
                    texts.collect::<Option<_>>().ok_or_else(|| self.expected("a list with other things in it"))?;
                match self {
                    Self::Addresses => self.addresses(&texts),
                    Self::Files => Ok(Value::Files(texts)),
                    _ => Ok(Value::List(texts)),
                }
            }
            (
                Self::Duration(_)
                | Self::Size(_)
                | Self::Text
                | Self::Path
                | Self::Files
                | Self::Choice(_)
                | Self::Mode
                | Self::Addresses,
                Toml::String(text),
            ) => self.read_text(text.value()),
            _ => Err(self.expected(&found(value))),
        }
    }

    fn read_map(self, item: &Item) -> Read {
        // The texts may be secrets: they are in no error.
        let table = item.as_table_like().ok_or_else(|| self.expected("something else"))?;
        let pair = |(name, item): (&str, &Item)| Some((name.to_owned(), item.as_str()?.to_owned()));
        let pairs = table.iter().map(pair).collect::<Option<_>>();
        pairs.map(Value::Map).ok_or_else(|| self.expected("a table with other things in it"))
    }

    /// Reads a value of a variable or a flag.
    pub(crate) fn read_text(self, text: &str) -> Read {
        match self {
            Self::Bool => text.parse().map(Value::Bool).map_err(|_| self.expected(&quoted(text))),
            Self::Count(zero) => match text.parse::<i64>() {
                Ok(number) => self.count(zero, number),
                Err(_) => Err(self.expected(&quoted(text))),
            },
            Self::Duration(Zero::Means(_)) if text.is_empty() => Ok(Value::Duration(Duration::ZERO)),
            Self::Duration(zero) => match parse_duration(text) {
                Some(duration) => self.duration(zero, duration),
                None => Err(self.expected(&quoted(text))),
            },
            Self::Size(Zero::Means(_)) if text.is_empty() => Ok(Value::Size(0)),
            Self::Size(zero) => match parse_size(text) {
                Some(bytes) => self.size(zero, bytes),
                None => Err(self.expected(&quoted(text))),
            },
            Self::Text | Self::Path if text.contains('\0') => Err("can't hold the character U+0000".to_owned()),
            Self::Text | Self::Path => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => self.choice(words, text),
            Self::List(_) | Self::Command if text.trim_start().starts_with('[') => self.read_inline(text),
            Self::Files if is_list(text) => self.read_inline(text),
            // An IPv6 address begins with a bracket too, and a list with a quote inside it.
            Self::Addresses if is_list(text) => self.read_inline(text),
            Self::List(_) => Ok(Value::List(split(text))),
            Self::Files => Ok(Value::Files(split(text))),
            Self::Command => self.words(text),
            Self::Map if text.trim_start().starts_with('{') => self.read_inline(text),
            Self::Map => self.pairs(text),
            Self::Mode => parse_mode(text).map(Value::Mode).ok_or_else(|| self.expected(&quoted(text))),
            Self::Addresses => self.addresses(&split(text)),
        }
    }

    /// A list or a table written as in the file.
    fn read_inline(self, text: &str) -> Read {
        let value: Toml = text.trim().parse().map_err(|_| self.expected("a torn one"))?;
        self.read_toml(&Item::Value(value))
    }

    fn count(self, zero: Zero, number: i64) -> Read {
        match u32::try_from(number) {
            Ok(0) if zero == Zero::Refused => Err("is at least 1".to_owned()),
            Ok(number) => Ok(Value::Count(number)),
            Err(_) => Err(self.expected(&number.to_string())),
        }
    }

    fn size(self, zero: Zero, bytes: u64) -> Read {
        if bytes == 0 && zero == Zero::Refused {
            return Err("is at least 1 byte".to_owned());
        }
        Ok(Value::Size(bytes))
    }

    fn duration(self, zero: Zero, duration: Duration) -> Read {
        if duration.is_zero() && zero == Zero::Refused {
            return Err("is longer than 0".to_owned());
        }
        if duration > LONGEST {
            return Err("is at most a year (8760h)".to_owned());
        }
        Ok(Value::Duration(duration))
    }

    fn choice(self, words: &[&str], text: &str) -> Read {
        if words.contains(&text) { Ok(Value::Text(text.to_owned())) } else { Err(self.expected(&quoted(text))) }
    }

    fn words(self, text: &str) -> Read {
        // Splitting quoted words would make a second shell with rules of its own.
        if text.contains(['"', '\'', '\\']) {
            return Err(r#"with quotes has to be a list: ["program", "its first argument"]"#.to_owned());
        }
        Ok(Value::List(text.split_whitespace().map(str::to_owned).collect()))
    }

    fn pairs(self, text: &str) -> Read {
        let pair = |part: String| part.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs = split(text).into_iter().map(pair).collect::<Option<_>>();
        pairs.map(Value::Map).ok_or_else(|| self.expected("something else"))
    }

    fn addresses(self, texts: &[String]) -> Read {
        let mut addresses = Vec::new();
        for text in texts {
            let address = self.address(text)?;
            if addresses.iter().any(|other| are_the_same(other, &address)) {
                return Err(format!("has {} twice", quoted(text)));
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(self.expected("an empty list"));
        }
        Ok(Value::Addresses(addresses))
    }

    fn address(self, text: &str) -> Result<Address, String> {
        match text.strip_prefix("unix:") {
            None if text == "systemd" => return Ok(Address::Systemd),
            None if text.starts_with("plain:") => {
                return match self.address(&text["plain:".len()..])? {
                    Address::Tcp(address) => Ok(Address::Plain(address)),
                    _ => Err(format!("has {}: plain: is for an IP address with a port", quoted(text))),
                };
            }
            Some("") => return Err("has a unix: without a path: unix:/run/wootz.ws".to_owned()),
            Some(path) if path.contains('\0') => return Err("can't hold the character U+0000".to_owned()),
            Some(path) => return Ok(Address::Unix(PathBuf::from(path))),
            None => {}
        }
        // The one name that means the same on every machine; others could change under a running server.
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        if let Ok(address) = numeric.as_deref().unwrap_or(text).parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.parse::<u16>().is_ok() {
            return Err(format!(
                "needs an address too: 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all"
            ));
        }
        Err(self.expected(&quoted(text)))
    }

    fn expected(self, found: &str) -> String {
        format!("is {}, not {found}", self.describe())
    }

    /// What may be written, with its unit: `a size such as "64KiB" or "1MiB"`.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Count(_) => "a whole number".to_owned(),
            Self::Duration(_) => r#"a duration such as "500ms", "10s", "2m" or "1h""#.to_owned(),
            Self::Size(_) => r#"a size such as "64KiB", "1MiB" or a number of bytes"#.to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Choice(words) => alternatives(words),
            Self::Files => "a path, or a list of paths".to_owned(),
            Self::List(example) => format!("a list of texts such as [{}]", quoted(example)),
            Self::Command => r#"a list such as ["php", "index.php"]"#.to_owned(),
            Self::Map => r#"a table of texts such as { APP_ENV = "production" }"#.to_owned(),
            Self::Mode => r#"permission bits such as "0660""#.to_owned(),
            Self::Addresses => {
                r#"an IP address with a port such as "127.0.0.1:8888", "unix:/path", "systemd", or a list of these"#
                    .to_owned()
            }
        }
    }

    /// What 0 means, where it means something.
    pub(crate) fn zero(self) -> Option<&'static str> {
        match self {
            Self::Count(Zero::Means(zero)) | Self::Duration(Zero::Means(zero)) | Self::Size(Zero::Means(zero)) => {
                Some(zero)
            }
            _ => None,
        }
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn alternatives(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// A wrong value for an error, short.
fn found(value: &Toml) -> String {
    match value {
        Toml::String(text) => quoted(text.value()),
        Toml::Integer(number) => number.value().to_string(),
        Toml::Float(number) => number.value().to_string(),
        Toml::Boolean(flag) => flag.value().to_string(),
        Toml::Datetime(_) => "a date".to_owned(),
        Toml::Array(_) => "a list".to_owned(),
        Toml::InlineTable(_) => "a table".to_owned(),
    }
}

/// Whether a text is a list as in the file.
fn is_list(text: &str) -> bool {
    text.trim_start().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '\'', ']']))
}

/// Each port 0 is another port, and one can't be with and without TLS.
fn are_the_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one) | Address::Plain(one), Address::Tcp(other) | Address::Plain(other)) => {
            one == other && one.port() != 0
        }
        _ => one == other,
    }
}

/// Parts between commas, without the space around them.
fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A number and what stands behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(60 * 60).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn parse_mode(text: &str) -> Option<u32> {
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let bits = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()?;
    (bits <= 0o777).then_some(bits)
}

impl Value {
    /// As it stands in the file.
    pub(crate) fn to_toml(&self) -> String {
        match self {
            Self::Bool(flag) => flag.to_string(),
            Self::Count(number) => number.to_string(),
            Self::Duration(duration) => quoted(&duration_text(*duration)),
            Self::Size(bytes) => size_toml(*bytes),
            Self::Text(text) => quoted(text),
            Self::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("[{}]", texts.join(", "))
            }
            Self::Files(paths) if paths.is_empty() => quoted(""),
            Self::Files(paths) => {
                let texts: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
                // A comma would be taken for the end of a path.
                if texts.len() == 1 && !paths[0].contains(',') {
                    texts.concat()
                } else {
                    format!("[{}]", texts.join(", "))
                }
            }
            Self::Map(pairs) if pairs.is_empty() => "{}".to_owned(),
            Self::Map(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(name, text)| format!("{} = {}", quoted(name), quoted(text))).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            Self::Mode(bits) => format!("\"{bits:04o}\""),
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
                if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
            }
        }
    }
}

/// In the largest unit that needs no fraction.
fn duration_text(duration: Duration) -> String {
    let (ms, seconds) = (duration.as_millis(), duration.as_secs());
    match seconds {
        _ if duration.is_zero() => "0".to_owned(),
        _ if duration.subsec_millis() != 0 => format!("{ms}ms"),
        _ if seconds.is_multiple_of(60 * 60) => format!("{}h", seconds / (60 * 60)),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

fn size_toml(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| bytes.is_multiple_of(*factor)) {
        _ if bytes == 0 => "0".to_owned(),
        Some((unit, factor)) => format!("\"{}{unit}\"", bytes / factor),
        // As text: a TOML number ends at 2^63.
        None => format!("\"{bytes}\""),
    }
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                write!(out, "\\u{:04X}", u32::from(c)).expect("a String takes all that is written to it")
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
