//! Which certificate is shown for which name.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use super::files::Files;
use super::problem::{CertificateError, CertificateProblem, Warning};
use super::read::{self, Entry};

/// Certificates by name. It never is empty and never changes.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Positions in `entries`, in their order.
    exact: HashMap<String, Vec<usize>>,
    /// By what follows `*.`, which stands for one label (RFC 9525, section 6.3).
    wildcards: HashMap<String, Vec<usize>>,
}

impl Table {
    pub(super) fn new(all: &[Files], now: SystemTime) -> Result<(Self, Vec<Warning>), Vec<CertificateError>> {
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        let entries: Vec<Entry> =
            all.iter().filter_map(|files| read::entry(files, now, &mut warnings, &mut errors)).collect();
        if all.is_empty() {
            errors.push(CertificateError { path: PathBuf::new(), problem: CertificateProblem::NoneConfigured });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut table = Self { entries, exact: HashMap::new(), wildcards: HashMap::new() };
        for (position, entry) in table.entries.iter().enumerate() {
            for name in &entry.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcards, parent),
                    None => (&mut table.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(position);
            }
        }
        Ok((table, warnings))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The first certificate for `name` that a client with these `schemes` can check, else the first for the name. Who
    /// asks for no name or an unknown one is shown the first of all.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        let named = name.and_then(|name| self.named(&name.to_ascii_lowercase()));
        let chosen = match named {
            Some(positions) => first_for(schemes, positions.iter().map(|position| &self.entries[*position])),
            None => first_for(schemes, self.entries.iter()),
        };
        Arc::clone(&chosen.expect("neither a table nor a name in it is without certificate").key)
    }

    fn named(&self, name: &str) -> Option<&Vec<usize>> {
        let by_wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(by_wildcard)
    }
}

fn first_for<'e>(schemes: &[SignatureScheme], mut entries: impl Iterator<Item = &'e Entry>) -> Option<&'e Entry> {
    let first = entries.next()?;
    let fits = |entry: &&Entry| entry.key.key.choose_scheme(schemes).is_some();
    if fits(&first) { Some(first) } else { entries.find(fits).or(Some(first)) }
}
