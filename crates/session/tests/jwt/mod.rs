//! Keys and tokens that PyJWT and cryptography make.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use wootz_session::jwt::{JwtSettings, KeySource, Verifier};

/// The time of the tests.
pub const NOW: u64 = 1_800_000_000;

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A folder of keys, and tokens by name. The folder goes with it.
pub struct Made {
    folder: TempDir,
    tokens: BTreeMap<String, String>,
}

impl Made {
    pub fn new() -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = repository.join("target/tests/venv/bin/python");
        assert!(python.exists(), "{} is missing: run tests/run", python.display());
        let folder = tempfile::tempdir().expect("a folder");
        let output = Command::new(python)
            .args(["-W", "ignore"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jwt/make.py"))
            .arg(folder.path())
            .arg(NOW.to_string())
            .output()
            .expect("Python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tokens = std::fs::read(folder.path().join("tokens.json")).expect("tokens");
        let tokens = serde_json::from_slice(&tokens).expect("an object of texts");
        Self { folder, tokens }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn token(&self, name: &str) -> &str {
        self.tokens.get(name).unwrap_or_else(|| panic!("no token {name}"))
    }

    /// All tokens whose names begin so, at least one.
    pub fn tokens(&self, prefix: &str) -> Vec<(&str, &str)> {
        let pairs = self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()));
        let found: Vec<_> = pairs.filter(|(name, _)| name.starts_with(prefix)).collect();
        assert!(!found.is_empty(), "no token {prefix}…");
        found
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()))
    }

    /// Settings with these key files.
    pub fn files(&self, files: &[&str]) -> JwtSettings {
        let keys = files.iter().map(|file| KeySource::File(self.path(file))).collect();
        JwtSettings { keys, audience: "wootz".to_owned(), ..JwtSettings::default() }
    }

    /// Settings with this set of keys.
    pub fn set(&self, file: &str) -> JwtSettings {
        JwtSettings { jwks_file: Some(self.path(file)), audience: "wootz".to_owned(), ..JwtSettings::default() }
    }

    /// The keys of the site, one of each kind, in files.
    pub fn by_files(&self) -> Verifier {
        load(self.files(&["secret", "rsa.pem", "ec.pem", "ed.pem"]))
    }

    /// The same keys, in a set.
    pub fn by_set(&self) -> Verifier {
        load(self.set("jwks.json"))
    }
}

pub fn load(settings: JwtSettings) -> Verifier {
    Verifier::load(settings).unwrap_or_else(|errors| panic!("{errors:#?}"))
}
