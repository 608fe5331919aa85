//! The table as text: the default file, the effective file, the list in the help and the reference page.

use std::fmt::Write as _;

#[cfg(test)]
use super::FlagValue;
use super::value::{Kind, Value};
use super::{Row, SECTIONS, Secret, Settings, TABLE, Way};
use crate::problem::Origin;

/// Rows of one section, in the order of the table.
fn rows_of(section: &str) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.section_and_name().0 == section)
}

/// Text wrapped into comment lines.
fn comment(out: &mut String, text: &str) {
    const WIDTH: usize = 100;
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// What may be written for a row, as a sentence: `A duration such as "10s"; 0: never.`
fn kind_sentence(kind: Kind) -> String {
    let mut text = kind.describe();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    match kind.zero() {
        Some(zero) => format!("{text}; 0: {zero}."),
        None => format!("{text}."),
    }
}

/// Which ways of running calls, or which provider, a row is for, as a sentence, where it is not for all.
fn only_sentence(row: &Row) -> Option<String> {
    match row.provider {
        Some(provider) => Some(format!("Only for identity.provider = \"{provider}\".")),
        None => (!row.only.is_empty()).then(|| format!("Only for {}.", Way::describe_all(row.only))),
    }
}

/// A file with every setting, commented out: what each is, what may be written, its default and why.
pub(crate) fn default_file() -> String {
    let mut out = format!(
        "# Every setting of wootz {} with its default. Take the # away before a line that you change.\n\
         # A value here is overridden by a variable (WOOTZ_LIMITS_MAX_MESSAGE), and that by a flag (--set limits.max_message=2MiB).\n",
        env!("CARGO_PKG_VERSION")
    );
    for (section, about) in SECTIONS {
        write!(out, "\n# {about}\n[{section}]\n").expect(INFALLIBLE);
        for row in rows_of(section) {
            out.push('\n');
            comment(&mut out, &format!("{}.", row.help));
            comment(&mut out, &kind_sentence(row.kind));
            if let Some(only) = only_sentence(row) {
                comment(&mut out, &only);
            }
            comment(&mut out, &format!("Why this default: {}", row.why));
            // No space behind this #: prose has one, and what has none can be switched on.
            writeln!(out, "#{} = {}", row.section_and_name().1, row.default).expect(INFALLIBLE);
        }
    }
    out
}

/// Every setting as it is in force; what is not a default says where it came from.
pub(crate) fn effective_file(settings: &Settings) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        let separator = if out.is_empty() { "" } else { "\n" };
        writeln!(out, "{separator}[{section}]").expect(INFALLIBLE);
        for row in rows_of(section) {
            let (value, origin) = settings.entry(row.key);
            let shown = without_secrets(row.secret, value);
            let line = format!("{} = {}", row.section_and_name().1, shown.to_toml());
            let hidden = if shown == *value { "" } else { "; secrets are not shown" };
            match origin {
                Origin::Default => writeln!(out, "{line}"),
                Origin::File { .. } | Origin::Variable(_) | Origin::Flag(_) => {
                    writeln!(out, "{line:<40}  # {origin}{hidden}")
                }
            }
            .expect(INFALLIBLE);
        }
    }
    out
}

/// What stands for a secret.
const HIDDEN: &str = "***";

/// A value as it may stand in a bug report.
fn without_secrets(secret: Secret, value: &Value) -> Value {
    match (secret, value) {
        (Secret::Login, Value::Text(text)) => Value::Text(without_login(text)),
        (Secret::Texts, Value::Map(pairs)) => {
            Value::Map(pairs.iter().map(|(name, _)| (name.clone(), HIDDEN.to_owned())).collect())
        }
        _ => value.clone(),
    }
}

/// A URL without user, password and parameters that may be secrets. What is no well-written URL may have its password anywhere, so the last `@`
/// ends it.
fn without_login(text: &str) -> String {
    const SECRETS: [&str; 5] = ["auth", "pass", "secret", "token", "key"];
    let mut shown = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, place))) if rest.contains('@') => format!("{scheme}://{HIDDEN}@{place}"),
        _ => text.to_owned(),
    };
    if let Some((place, query)) = shown.split_once('?') {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret)) => {
                format!("{name}={HIDDEN}")
            }
            _ => pair.to_owned(),
        });
        shown = format!("{place}?{}", pairs.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// The list of all settings that ends the help of `serve`.
pub(crate) fn help_list() -> String {
    let mut out = String::from(
        "Settings, for wootz.toml, for --set KEY=VALUE and as variables (WOOTZ_LIMITS_MAX_MESSAGE for limits.max_message).\n\
         A later source wins: default, file, variable, flag. `wootz config --default` explains each default.\n",
    );
    for (section, about) in SECTIONS {
        write!(out, "\n[{section}] {about}\n").expect(INFALLIBLE);
        for row in rows_of(section) {
            writeln!(out, "  {} = {}\n          {}", row.key, row.default, row.help).expect(INFALLIBLE);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// `docs/configuration.md`.
#[cfg(test)]
pub(super) fn reference_page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Written by the tests of crates/cli from its table of settings: change it there. -->\n\n\
         Each setting can be written in four places; the later one wins: its default, the file (`--config FILE`, else\n\
         `wootz.toml` of the directory that wootz is started in), its variable, a flag (its own, or `--set KEY=VALUE`).\n\
         An unknown key, a value that can't be read and a named file that is not there stop the start with exit code 2;\n\
         all mistakes are shown at once, each with its file and line. `wootz check` shows them without starting,\n\
         `wootz config` prints what is in force and where it came from, with `***` for secrets; `wootz config --default` prints a commented\n\
         file.\n\n\
         In variables and flags a list is written with commas or as in the file (`a,b` or `[\"a\", \"b\"]`), a table as\n\
         `NAME=value,OTHER=value` or as in the file, and a command as words or, where one has a space, as in the file.\n\
         Relative paths begin where wootz is started.\n\n\
         A setting of another runner than the one that runs is an error, since it would do nothing; one that a later source\n\
         has overridden by choosing that runner is not. `--fastcgi`, `--script` and `--http` choose their runner.\n",
    );
    for (section, about) in SECTIONS {
        write!(out, "\n## `[{section}]`\n\n{about}\n").expect(INFALLIBLE);
        for row in rows_of(section) {
            reference_entry(&mut out, row);
        }
    }
    out
}

#[cfg(test)]
fn reference_entry(out: &mut String, row: &Row) {
    let flag = match row.flag {
        Some(flag) => match flag.value {
            FlagValue::True | FlagValue::False => format!(" · `--{}`", flag.name),
            FlagValue::Named(value) => format!(" · `--{} {value}`", flag.name),
        },
        None => String::new(),
    };
    let only = only_sentence(row).map(|only| format!("- {only}\n")).unwrap_or_default();
    write!(
        out,
        "\n### `{}`\n\n{}.\n\n- Default: `{}`. {}\n- {}\n{only}- `{}`{flag}\n",
        row.key,
        row.help,
        row.default,
        row.why,
        kind_sentence(row.kind),
        row.variable(),
    )
    .expect(INFALLIBLE);
}

const INFALLIBLE: &str = "a String takes all that is written to it";

#[cfg(test)]
mod tests {
    use super::without_login;

    #[test]
    fn url_is_shown_without_its_secrets() {
        for (text, shown) in [
            ("redis://:secret@h:6379/0?prefix=a:", "redis://***@h:6379/0?prefix=a:"),
            ("redis://me:sec@ret/x@h", "redis://***@h"),
            ("redis://me:secret?x@h?db=1", "redis://***@h?db=1"),
            ("tcp://h:1?weight=1&auth=secret&database=2", "tcp://h:1?weight=1&auth=***&database=2"),
            ("tcp://h?auth[]=me&auth%5Bpass%5D=secret", "tcp://h?auth[]=***&auth%5Bpass%5D=***"),
            ("tcp://a:1?Auth=secret, tcp://b:1?auth=secret", "tcp://a:1?Auth=***"),
            ("mysql://me:secret@h/site?ssl-key=/k", "mysql://***@h/site?ssl-key=***"),
            ("mysql://h/site", "mysql://h/site"),
            ("files:2;/srv/s@home", "files:2;/srv/s@home"),
            ("http://127.0.0.1:8000/base", "http://127.0.0.1:8000/base"),
        ] {
            assert_eq!(without_login(text), shown, "{text}");
        }
    }
}
