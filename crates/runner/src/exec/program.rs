//! Which file a command means.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::ProgramError;

/// Where `PATH` is not set: what the C library takes.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds the file that runs for `command`: as it is when it has a slash (relative to `directory`), else in `path`.
///
/// # Errors
/// Why there is none that can be run.
pub fn find_program(command: &OsStr, path: Option<&OsStr>, directory: &Path) -> Result<PathBuf, ProgramError> {
    if command.is_empty() {
        return Err(ProgramError::Empty);
    }
    if command.as_bytes().contains(&b'/') {
        let program = directory.join(command);
        return check(&program).map(|()| program);
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut unusable = None;
    for directory_of_path in std::env::split_paths(path) {
        // An empty element means the working directory, which is that of the call.
        let program = directory.join(directory_of_path).join(command);
        match check(&program) {
            Ok(()) => return Ok(program),
            Err(ProgramError::NotExecutable(program)) => {
                unusable.get_or_insert(ProgramError::NotExecutable(program));
            }
            Err(_missing_or_directory) => {}
        }
    }
    Err(unusable.unwrap_or_else(|| ProgramError::NotInPath { name: command.to_owned(), path: OsString::from(path) }))
}

/// Whether the file can be run at all. May the *application's* user run it? Only the kernel knows, at the time of the call.
fn check(program: &Path) -> Result<(), ProgramError> {
    match program.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(ProgramError::Directory(program.to_owned())),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Err(ProgramError::NotExecutable(program.to_owned()))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(ProgramError::Missing(program.to_owned())),
    }
}
