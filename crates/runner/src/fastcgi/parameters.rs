//! The parameters of a FastCGI request: the variables of the call, and what the server must be told about the script.
//!
//! One script answers every URI, as behind `try_files … /index.php`: its directory is the document root, and its name there is
//! `SCRIPT_NAME`, so that PHP finds `PHP_SELF` and routers the base of the site where a web server would put them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::records::RequestHead;
use crate::call::Call;
use crate::environment::{self, Value};

/// What every request has besides the variables of its call. One per application.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters {
    /// These win over the variables of the call.
    script: Vec<(&'static str, Vec<u8>)>,
    /// The variables of the call win over these.
    environment: Vec<(String, Vec<u8>)>,
}

impl Parameters {
    /// For a server that runs this script, as the server sees it.
    ///
    /// `environment` may say `SCRIPT_NAME`, `DOCUMENT_ROOT`, `DOCUMENT_URI` and `REDIRECT_STATUS` itself, for a script that lies below the
    /// document root.
    pub(crate) fn of_script(script: &Path, environment: &[(String, String)]) -> Self {
        let directory = script.parent().unwrap_or(Path::new("/"));
        let name = script.file_name().unwrap_or_default();
        let said = |variable: &str| {
            let (_, value) = environment.iter().rfind(|(name, _)| name == variable)?;
            Some(value.clone().into_bytes())
        };
        let script_name = said("SCRIPT_NAME").unwrap_or_else(|| [b"/", name.as_bytes()].concat());
        let own = vec![
            ("SCRIPT_FILENAME", script.as_os_str().as_bytes().to_vec()),
            ("DOCUMENT_ROOT", said("DOCUMENT_ROOT").unwrap_or_else(|| directory.as_os_str().as_bytes().to_vec())),
            ("DOCUMENT_URI", said("DOCUMENT_URI").unwrap_or_else(|| script_name.clone())),
            ("SCRIPT_NAME", script_name),
            // PHP built with force-cgi-redirect runs nothing without it.
            ("REDIRECT_STATUS", said("REDIRECT_STATUS").unwrap_or_else(|| b"200".to_vec())),
        ];
        Self { script: own, ..Self::of_program(environment) }
    }

    /// For a program that is itself the application.
    pub(crate) fn of_program(environment: &[(String, String)]) -> Self {
        let mut unique: Vec<(String, Vec<u8>)> = Vec::with_capacity(environment.len());
        for (name, value) in environment {
            unique.retain(|(other, _)| other != name);
            unique.push((name.clone(), value.clone().into_bytes()));
        }
        Self { script: Vec::new(), environment: unique }
    }

    /// The script, where there is one.
    pub(super) fn script_filename(&self) -> PathBuf {
        let path = self.script.iter().find(|(name, _)| *name == "SCRIPT_FILENAME").map(|(_, path)| path.as_slice());
        PathBuf::from(OsStr::from_bytes(path.unwrap_or_default()))
    }

    /// All parameters of a call. No name comes twice.
    pub(super) fn push(&self, call: &Call, head: &mut RequestHead) {
        let is_of_script = |name: &[u8]| self.script.iter().any(|(other, _)| other.as_bytes() == name);
        for (name, value) in &self.script {
            head.parameter(name.as_bytes(), value);
        }
        let mut overridden = vec![false; self.environment.len()];
        let mut overrides = |name: &[u8]| {
            for ((other, _), overridden) in self.environment.iter().zip(&mut overridden) {
                *overridden |= other.as_bytes() == name;
            }
        };
        for (name, value) in environment::computed(call).filter(|(name, _)| !is_of_script(name.as_bytes())) {
            overrides(name.as_bytes());
            match &value {
                Value::Bytes(bytes) => head.parameter(name.as_bytes(), bytes),
                Value::Connection(_) | Value::Token(_) | Value::Number(_) | Value::Address(_) => {
                    head.short_parameter(name, |out| value.write(out));
                }
            }
        }
        for pair in call.caller.pairs().filter(|pair| !is_of_script(pair.name)) {
            overrides(pair.name);
            head.written_parameter(&pair);
        }
        for ((name, value), overridden) in self.environment.iter().zip(overridden) {
            if !overridden && !is_of_script(name.as_bytes()) {
                head.parameter(name.as_bytes(), value);
            }
        }
    }
}
