//! Certificates and keys: read once while the settings are checked, so that none of their faults waits for the first browser.

use std::path::PathBuf;
use std::time::SystemTime;

use wootz_server::config::{Address, CertificateSettings, Certificates, Http2, Tls};

use super::Resolver;

impl Resolver<'_> {
    pub(super) fn tls(&mut self) -> Option<Tls> {
        let settings = self.settings;
        let (certs, keys) = (settings.files("tls.cert"), settings.files("tls.key"));
        let passphrase_file = Some(settings.text("tls.key_passphrase_file")).filter(|path| !path.is_empty());
        let http2 = if settings.flag("tls.http2") { Http2::Offered } else { Http2::Never };
        match (certs.len(), keys.len()) {
            (0, 0) => {
                if passphrase_file.is_some() {
                    self.problem("tls.key_passphrase_file", "opens no key: tls.cert and tls.key are not set");
                }
                return None;
            }
            (0, _) => self.problem("tls.key", "needs tls.cert too: the certificate that it belongs to"),
            (_, 0) => self.problem("tls.cert", "needs tls.key too: the key that it belongs to"),
            (certs, keys) if certs != keys => {
                self.problem(
                    "tls.key",
                    &format!("has {keys} for {certs} in tls.cert: each needs its own, in the same order"),
                );
            }
            _ => {
                let certificates = self.certificates(certs, keys, passphrase_file);
                return Some(Tls { certificates, http2 });
            }
        }
        None
    }

    fn certificates(
        &mut self,
        certs: &[String],
        keys: &[String],
        passphrase_file: Option<&str>,
    ) -> Vec<CertificateSettings> {
        // Named in the log and in `wootz status`, which are read elsewhere.
        let absolute = |path: &str| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let pairs = certs.iter().zip(keys);
        let certificates: Vec<_> = pairs
            .map(|(cert, key)| CertificateSettings {
                cert: absolute(cert),
                key: absolute(key),
                passphrase_file: passphrase_file.map(absolute),
            })
            .collect();
        match Certificates::load(certificates.clone(), SystemTime::now()) {
            Ok((_, warnings)) => {
                for warning in warnings {
                    self.warnings.add(self.settings.origin("tls.cert").clone(), format!("tls.cert {warning}"));
                }
            }
            Err(errors) => {
                for error in errors {
                    let is_cert = certificates.iter().any(|of| of.cert == error.path);
                    self.problem(if is_cert { "tls.cert" } else { "tls.key" }, &error.to_string());
                }
            }
        }
        let addresses = self.settings.addresses("listen.address");
        if addresses.iter().all(|address| matches!(address, Address::Unix(_) | Address::Plain(_))) {
            self.problem("tls.cert", "is shown to nobody: listen.address has only Unix sockets and plain: addresses");
        }
        certificates
    }
}
