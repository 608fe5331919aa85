//! Names that are not settings: what was probably meant, and what a later version will know.

use super::{SECTIONS, TABLE};

/// Settings and whole sections of the interface that this version does not have. Saying so is kinder than "unknown",
/// and taking them without effect would be a lie.
const LATER: &[&str] = &["limits.messages_per_second", "compression", "cluster"];

/// Variables that wootz itself gives to calls: a wootz started by a call meets them, and they are no settings.
const OF_CALLS: &[&str] = &["WOOTZ_EVENT", "WOOTZ_CONNECTION", "WOOTZ_SESSION", "WOOTZ_CONTROL", "WOOTZ_LISTEN"];

/// `WOOTZ_LIMITS_MAX_MESSAGE` for `limits.max_message`.
pub(super) fn variable(key: &str) -> String {
    format!("WOOTZ_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Whether a variable is none of an operator's settings although its name looks so.
pub(super) fn is_given_to_calls(variable: &str) -> bool {
    OF_CALLS.contains(&variable)
}

/// What to say about a key that is no setting.
pub(super) fn unknown_key(key: &str) -> String {
    if LATER.iter().any(|later| is_below(key, later, '.')) {
        return format!("{key} is not supported by this version");
    }
    let keys = TABLE.iter().map(|row| row.key);
    suggest(format!("{key} is not a setting"), nearest(key, keys))
}

/// What to say about a table that is no section.
pub(super) fn unknown_section(section: &str) -> String {
    if LATER.iter().any(|later| is_below(section, later, '.')) {
        return format!("[{section}] is not supported by this version");
    }
    let meant = nearest(section, SECTIONS.iter().map(|(name, _)| *name));
    suggest(format!("[{section}] is not a section"), meant.map(|name| format!("[{name}]")))
}

/// What to say about a `WOOTZ_*` variable that is no setting.
pub(super) fn unknown_variable(name: &str) -> String {
    if LATER.iter().any(|later| is_below(name, &variable(later), '_')) {
        return "is not supported by this version".to_owned();
    }
    let variables: Vec<String> = TABLE.iter().map(super::Row::variable).collect();
    suggest("is not a setting".to_owned(), nearest(name, variables.iter().map(String::as_str)))
}

fn is_below(name: &str, above: &str, separator: char) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

fn suggest(text: String, meant: Option<String>) -> String {
    match meant {
        Some(meant) => format!("{text}; did you mean {meant}?"),
        None => text,
    }
}

/// The candidate that is a few slips of the pen away, or else the one with the same last part in another section.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let close = candidates.clone().min_by_key(distance).filter(|candidate| distance(candidate) <= 1 + name.len() / 6);
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let same_last = || candidates.clone().find(|candidate| last(candidate) == last(name));
    close.or_else(same_last).map(str::to_owned)
}
