//! The certificates of a server that runs: loaded at the start, looked at again every few seconds and when the operator asks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use wootz_tls::{
    Alpn, CertificateError, CertificateProblem, CertificateSettings, Certificates, Reload, TlsAcceptor, TlsError,
    TlsSettings,
};

use super::expiry::Expiry;
use crate::config::Http2;

/// How often the files are looked at: often enough that nobody waits for a renewal, and reading a few files costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificates that are shown now, for all threads.
#[derive(Debug, Clone)]
pub(crate) struct LoadedCertificates {
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
    expiry: Arc<Mutex<Expiry>>,
}

/// A certificate in use, as a [`Status`](crate::Status) shows it.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// Its file.
    pub file: PathBuf,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Whole days until it ends; negative once it has ended.
    pub days_left: i64,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCertificates {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Files(Vec<CertificateError>),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl LoadedCertificates {
    /// Reads the files. What is to be warned of was said when the settings were checked, but for an end that is near.
    pub(crate) fn load(settings: &[CertificateSettings], http2: Http2) -> Result<Self, NoCertificates> {
        if settings.is_empty() {
            let problem = CertificateProblem::NoneConfigured;
            return Err(NoCertificates::Files(vec![CertificateError { path: PathBuf::new(), problem }]));
        }
        let loaded = Certificates::load(settings.to_vec(), SystemTime::now());
        let certificates = Arc::new(loaded.map_err(NoCertificates::Files)?.0);
        let alpn = match http2 {
            Http2::Offered => vec![Alpn::Http2, Alpn::Http1],
            Http2::Never => vec![Alpn::Http1],
        };
        let tls = TlsSettings { alpn, ..TlsSettings::default() };
        let acceptor = TlsAcceptor::new(&tls, Arc::clone(&certificates))?;
        let loaded = Self { certificates, acceptor, expiry: Arc::default() };
        loaded.tell_of_ends(SystemTime::now());
        Ok(loaded)
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Takes what is in the files now; the log says what came of it.
    pub(crate) fn reload(&self) {
        self.tell(self.certificates.reload(SystemTime::now()));
        self.tell_of_ends(SystemTime::now());
    }

    pub(crate) fn status(&self) -> Vec<CertificateStatus> {
        let status = self.certificates.status(SystemTime::now()).into_iter();
        status.map(|of| CertificateStatus { file: of.path, names: of.names, days_left: of.days_left }).collect()
    }

    /// Tells of certificates that end soon, or have ended: each once.
    fn tell_of_ends(&self, now: SystemTime) {
        let status = self.certificates.status(now);
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        for (certificate, nearness) in expiry.look(&status, now) {
            nearness.tell(certificate);
        }
    }

    fn tell(&self, reload: Reload) {
        match reload {
            Reload::Unchanged => {}
            Reload::Reloaded(warnings) => {
                for of in self.status() {
                    tracing::info!(file = %of.file.display(), names = of.names.join(" "), days_left = of.days_left, "certificate reloaded: new connections are shown it");
                }
                for warning in warnings {
                    tracing::warn!("tls.cert {warning}");
                }
            }
            Reload::Refused(errors) => {
                for error in errors {
                    tracing::error!("certificates not reloaded, those from before are shown on: {error}");
                }
            }
        }
    }
}

/// Looks at the files for ever.
pub(crate) async fn watch(loaded: LoadedCertificates) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        loaded.tell(loaded.certificates.reload_if_changed(SystemTime::now()));
        loaded.tell_of_ends(SystemTime::now());
    }
}
