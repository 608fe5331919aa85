//! Certificates that openssl makes for a test: an authority, one below it, and servers' certificates of both kinds,
//! good and bad.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::run;

/// An authority of the test with an intermediate one, in a directory of their own.
pub struct Authority {
    directory: TempDir,
}

/// A server's files.
pub struct ServerCertificate {
    /// Its key.
    pub key: PathBuf,
    /// Its certificate alone.
    pub alone: PathBuf,
    /// Its certificate and the intermediate's.
    pub chain: PathBuf,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Validity {
    /// From now on for 30 days.
    Now,
    /// In January 2020.
    Until2020,
    /// In January 2045.
    From2045,
}

/// What `openssl ca` needs besides: the only command that signs for times that have passed.
const CA: &str = "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\n\
                  default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

impl Authority {
    /// "NAME Root" and "NAME Intermediate".
    pub fn new(name: &str) -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
        fs::write(authority.path("authority.ext"), extensions).expect("a file");
        authority.key("root");
        authority.key("intermediate");
        authority.request("intermediate", &format!("/CN={name} Intermediate"));
        authority.openssl(&[
            "req",
            "-x509",
            "-key",
            "root.key",
            "-out",
            "root.pem",
            "-subj",
            &format!("/CN={name} Root"),
            "-days",
            "30",
        ]);
        authority.sign("intermediate", "root", "authority.ext", Validity::Now);
        authority
    }

    /// The root's certificate.
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// A certificate for a name, signed by the intermediate authority.
    pub fn server(&self, name: &str, validity: Validity) -> ServerCertificate {
        self.server_with(name, validity, "")
    }

    /// The same with extensions besides, one a line.
    pub fn server_with(&self, name: &str, validity: Validity, extensions: &str) -> ServerCertificate {
        self.key("server");
        self.request("server", &format!("/CN={name}"));
        fs::write(self.path("server.ext"), format!("subjectAltName=DNS:{name}\n{extensions}")).expect("a file");
        self.sign("server", "intermediate", "server.ext", validity);
        let both = ["server.pem", "intermediate.pem"].map(|file| fs::read_to_string(self.path(file)).expect("made"));
        fs::write(self.path("chain.pem"), both.concat()).expect("a file");
        ServerCertificate {
            key: self.path("server.key"),
            alone: self.path("server.pem"),
            chain: self.path("chain.pem"),
        }
    }

    /// A certificate for a name that nobody but itself has signed.
    pub fn self_signed(&self, name: &str) -> ServerCertificate {
        self.key("server");
        let subject = format!("/CN={name}");
        let alternative = format!("subjectAltName=DNS:{name}");
        self.openssl(&[
            "req",
            "-x509",
            "-key",
            "server.key",
            "-out",
            "server.pem",
            "-subj",
            &subject,
            "-addext",
            &alternative,
            "-days",
            "30",
        ]);
        ServerCertificate {
            key: self.path("server.key"),
            alone: self.path("server.pem"),
            chain: self.path("server.pem"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn key(&self, name: &str) {
        let file = format!("{name}.key");
        self.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &file]);
    }

    fn request(&self, name: &str, subject: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        self.openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", subject]);
    }

    fn sign(&self, name: &str, by: &str, extensions: &str, validity: Validity) {
        fs::write(self.path("ca.conf"), CA).expect("a file");
        fs::write(self.path("index.txt"), "").expect("a file");
        let (request, certificate) = (format!("{name}.csr"), format!("{name}.pem"));
        let (issuer, key) = (format!("{by}.pem"), format!("{by}.key"));
        let dates: &[&str] = match validity {
            Validity::Now => &["-days", "30"],
            Validity::Until2020 => &["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"],
            Validity::From2045 => &["-startdate", "20450101000000Z", "-enddate", "20450201000000Z"],
        };
        let always = [
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.conf",
            "-in",
            &request,
            "-out",
            &certificate,
            "-cert",
            &issuer,
            "-keyfile",
            &key,
            "-extfile",
            extensions,
        ];
        self.openssl(&[&always[..], dates].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        run(Command::new("openssl").current_dir(self.directory.path()).args(arguments));
    }
}
