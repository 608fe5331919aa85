//! A certificate authority in a temporary directory, made by OpenSSL: a root, an intermediate, and what they issue.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::TempDir;
use wootz_tls::{CertificateSettings, Certificates, TlsAcceptor, TlsSettings};

pub(crate) struct Authority {
    directory: TempDir,
}

/// Runs `openssl` with `arguments`, which are split at spaces, in `directory`.
pub(crate) fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(arguments.split_ascii_whitespace())
        .current_dir(directory)
        .output()
        .expect("openssl runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a directory") };
        authority.openssl(&format!(
            "req -x509 {EC} -nodes -keyout root.key -out root.pem -subj /CN=root -days 30 -addext keyUsage=keyCertSign"
        ));
        authority.openssl(&format!("req {EC} -nodes -keyout intermediate.key -out intermediate.csr -subj /CN=inter"));
        authority.write("ca.ext", "basicConstraints=critical,CA:true\nkeyUsage=keyCertSign\n");
        authority.openssl(
            "x509 -req -in intermediate.csr -CA root.pem -CAkey root.key -days 30 -extfile ca.ext -out intermediate.pem",
        );
        authority
    }

    pub(crate) fn openssl(&self, arguments: &str) -> String {
        openssl(self.directory.path(), arguments)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("a file of the authority")
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(file), content).expect("the directory is writable");
    }

    /// Issues `NAME.pem`, `NAME.key` and `NAME.chain.pem` for DNS names, with a key as `newkey` says.
    pub(crate) fn issue_with(&self, name: &str, dns: &[&str], newkey: &str) -> CertificateSettings {
        let names: Vec<String> = dns.iter().map(|name| format!("DNS:{name}")).collect();
        self.openssl(&format!("req {newkey} -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.write("leaf.ext", format!("subjectAltName={}\n", names.join(",")));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA intermediate.pem -CAkey intermediate.key -days 10 -extfile leaf.ext \
             -out {name}.pem"
        ));
        self.write(&format!("{name}.chain.pem"), self.read(&format!("{name}.pem")) + &self.read("intermediate.pem"));
        self.settings(&format!("{name}.chain.pem"), &format!("{name}.key"))
    }

    pub(crate) fn issue(&self, name: &str, dns: &[&str]) -> CertificateSettings {
        self.issue_with(name, dns, EC)
    }

    pub(crate) fn settings(&self, cert: &str, key: &str) -> CertificateSettings {
        CertificateSettings { cert: self.path(cert), key: self.path(key), passphrase_file: None }
    }

    /// An acceptor for `localhost`.
    pub(crate) fn acceptor(&self, settings: &TlsSettings) -> TlsAcceptor {
        let (certificates, warnings) =
            Certificates::load(vec![self.issue("localhost", &["localhost"])], SystemTime::now())
                .expect("they are sound");
        assert_eq!(warnings, []);
        TlsAcceptor::new(settings, Arc::new(certificates)).expect("an acceptor")
    }
}
