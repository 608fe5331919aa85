//! The certificates of a server: read and judged at once, chosen by the name that a client asks for, taken anew when
//! their files were replaced.
//!
//! What is shown is always whole: a replacement that is broken changes nothing, and is told about once.

mod files;
mod problem;
mod read;
mod table;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use files::CertificateSettings;
use files::{Files, Fingerprint};
pub use problem::{CertificateError, CertificateProblem, Sought, Warning};
use table::Table;

/// All certificates of a listener.
pub struct Certificates {
    settings: Vec<CertificateSettings>,
    table: ArcSwap<Table>,
    seen: Mutex<Seen>,
}

/// What the files were when they were looked at.
#[derive(Debug)]
struct Seen {
    shown: Fingerprint,
    refused: Option<(Fingerprint, Told)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    NotYet,
    Yes,
}

/// What a look at the files gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The files are as they were, or as broken as was told before.
    Unchanged,
    /// New connections are shown the new certificates.
    Reloaded(Vec<Warning>),
    /// The files were replaced by something that can't be used. The certificates from before are shown on.
    Refused(Vec<CertificateError>),
}

/// What an operator wants to know about a certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its file.
    pub path: PathBuf,
    /// The DNS names that it is shown for, in lower case.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// Whole days until then; negative once it ended.
    pub days_left: i64,
}

impl Certificates {
    /// Reads all files and judges them as of `now`. The first certificate is shown to whoever asks for none or an
    /// unknown name.
    ///
    /// # Errors
    /// All that is wrong with any of them, in the order of `settings`.
    pub fn load(
        settings: Vec<CertificateSettings>,
        now: SystemTime,
    ) -> Result<(Self, Vec<Warning>), Vec<CertificateError>> {
        let files = read_all(&settings);
        let shown = Fingerprint::of(&files);
        let (table, warnings) = Table::new(&files, now)?;
        let certificates =
            Self { settings, table: ArcSwap::from_pointee(table), seen: Mutex::new(Seen { shown, refused: None }) };
        Ok((certificates, warnings))
    }

    /// Reads all files again and shows what is in them, if it is sound. For a signal of the operator's.
    pub fn reload(&self, now: SystemTime) -> Reload {
        let files = read_all(&self.settings);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&files, Fingerprint::of(&files), now, &mut seen).unwrap_or_else(|errors| {
            seen.refused = Some((Fingerprint::of(&files), Told::Yes));
            Reload::Refused(errors)
        })
    }

    /// Like [`Self::reload`] where the files have another content than before. For a look every few seconds.
    ///
    /// A certificate and its key are never replaced at the same moment, so that something broken is told only when the
    /// next look finds it the same.
    pub fn reload_if_changed(&self, now: SystemTime) -> Reload {
        let files = read_all(&self.settings);
        let found = Fingerprint::of(&files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found == seen.shown {
            seen.refused = None;
            return Reload::Unchanged;
        }
        if seen.refused == Some((found, Told::Yes)) {
            return Reload::Unchanged;
        }
        self.take(&files, found, now, &mut seen).unwrap_or_else(|errors| {
            if seen.refused == Some((found, Told::NotYet)) {
                seen.refused = Some((found, Told::Yes));
                Reload::Refused(errors)
            } else {
                seen.refused = Some((found, Told::NotYet));
                Reload::Unchanged
            }
        })
    }

    fn take(
        &self,
        files: &[Files],
        found: Fingerprint,
        now: SystemTime,
        seen: &mut Seen,
    ) -> Result<Reload, Vec<CertificateError>> {
        let (table, warnings) = Table::new(files, now)?;
        self.table.store(Arc::new(table));
        *seen = Seen { shown: found, refused: None };
        Ok(Reload::Reloaded(warnings))
    }

    /// The certificates in use as of `now`, in the order of the settings.
    pub fn status(&self, now: SystemTime) -> Vec<CertificateStatus> {
        let table = self.table.load();
        let entries = self.settings.iter().zip(table.entries());
        entries
            .map(|(settings, entry)| CertificateStatus {
                path: settings.cert.clone(),
                names: entry.names.clone(),
                not_before: entry.not_before,
                not_after: entry.not_after,
                days_left: days_between(now, entry.not_after),
            })
            .collect()
    }
}

fn read_all(settings: &[CertificateSettings]) -> Vec<Files> {
    settings.iter().map(Files::read).collect()
}

fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    const SECONDS: u64 = 24 * 60 * 60;
    let days = |seconds: u64| i64::try_from(seconds / SECONDS).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left.as_secs()),
        Err(past) => -1 - days(past.duration().as_secs()),
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.table.load().choose(client.server_name(), client.signature_schemes()))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}
