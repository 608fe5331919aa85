//! Keeps the keys, and notices when their files change.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use super::jwks;
use super::keys::{self, Key, KeyError, KeyProblem, KeySource};
use super::token::{self, Claims, Rejected};

/// A token without a kid is tried with each key that fits, so there is a bound.
pub(super) const MAX_KEYS: usize = 64;

/// The files are looked at not more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// Key files: `identity.jwt.keys`.
    pub keys: Vec<KeySource>,
    /// A set of keys: `identity.jwt.jwks_file`.
    pub jwks_file: Option<PathBuf>,
    /// The claim that names the user, or a path of names with dots: `identity.jwt.user_claim`.
    pub user_claim: String,
    /// Who must have made it (`iss`); empty: anybody whose key is here. `identity.jwt.issuer`.
    pub issuer: String,
    /// For whom it must be (`aud`); empty: it must not say. `identity.jwt.audience`.
    pub audience: String,
    /// By how much clocks may differ: added to `exp`, taken from `nbf`.
    pub leeway: Duration,
}

/// No key, user from `sub`, any issuer and audience, 30 s of leeway.
impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks_file: None,
            user_claim: "sub".to_owned(),
            issuer: String::new(),
            audience: String::new(),
            leeway: Duration::from_secs(30),
        }
    }
}

/// What a look at the files found. It is in the log already.
#[derive(Debug)]
pub enum Reload {
    /// Nothing has changed, or it is too early to look again.
    Unchanged,
    /// The keys are the new ones.
    Reloaded,
    /// The files have changed and are broken; the old keys stay. Said once for each change.
    Broken(Vec<KeyError>),
}

/// Verifies tokens, from any thread.
pub struct Verifier {
    settings: JwtSettings,
    keys: RwLock<Arc<[Key]>>,
    watch: Mutex<Watch>,
}

/// What the files were like when they were read last.
struct Watch {
    stamps: Vec<Option<Stamp>>,
    /// Not before this are they looked at again.
    next_look: Option<Instant>,
}

/// Tells one state of a file from another. The change time is in it because a copy may keep the modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Never the keys.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads all keys. Blocks for as long as the files take.
    ///
    /// # Errors
    /// Everything that is wrong with the settings and the files, each with its remedy.
    pub fn load(settings: JwtSettings) -> Result<Self, Vec<KeyError>> {
        // Before the files are read: a change while they are read is then one to come.
        let stamps = stamps(&settings);
        let keys = load(&settings)?;
        Ok(Self { settings, keys: RwLock::new(keys), watch: Mutex::new(Watch { stamps, next_look: None }) })
    }

    /// What the token says, if it is to be believed at this time.
    ///
    /// # Errors
    /// The reason for the log. A browser is told only that it is refused.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Rejected> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        token::verify(token, &keys, &self.settings, now)
    }

    /// Looks at the files, at most once a second, and reads them again if one has changed. Cheap enough before each
    /// token: a look is one `stat` for each file. Only one thread looks at a time; others go on with the keys that are
    /// there.
    pub fn reload_if_changed(&self, now: Instant) -> Reload {
        let mut watch = match self.watch.try_lock() {
            Ok(watch) => watch,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Reload::Unchanged,
        };
        if watch.next_look.is_some_and(|next| now < next) {
            return Reload::Unchanged;
        }
        watch.next_look = now.checked_add(LOOK_INTERVAL);
        let stamps = stamps(&self.settings);
        if stamps == watch.stamps {
            return Reload::Unchanged;
        }
        match self.read(&mut watch, stamps) {
            Ok(()) => {
                tracing::info!("the keys for tokens were read anew");
                Reload::Reloaded
            }
            Err(errors) => {
                for error in &errors {
                    tracing::error!(%error, "the new keys for tokens are broken; the old ones stay");
                }
                Reload::Broken(errors)
            }
        }
    }

    /// Reads the files again, changed or not. Blocks for as long as they take.
    ///
    /// # Errors
    /// As [`load`](Self::load); the old keys stay then. Nothing is logged here.
    pub fn reload(&self) -> Result<(), Vec<KeyError>> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.settings);
        self.read(&mut watch, stamps)
    }

    fn read(&self, watch: &mut Watch, stamps: Vec<Option<Stamp>>) -> Result<(), Vec<KeyError>> {
        watch.stamps = stamps;
        let keys = load(&self.settings)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

fn stamps(settings: &JwtSettings) -> Vec<Option<Stamp>> {
    settings.keys.iter().map(KeySource::path).chain(settings.jwks_file.as_deref()).map(Stamp::of).collect()
}

fn load(settings: &JwtSettings) -> Result<Arc<[Key]>, Vec<KeyError>> {
    const KEYS: &str = "identity.jwt.keys";
    const JWKS: &str = "identity.jwt.jwks_file";
    let mut errors = Vec::new();
    let mut all = Vec::new();
    if settings.user_claim.is_empty() {
        errors.push(KeyError { setting: "identity.jwt.user_claim", file: None, problem: KeyProblem::NoUserClaim });
    }
    if settings.keys.is_empty() && settings.jwks_file.is_none() {
        errors.push(KeyError { setting: KEYS, file: None, problem: KeyProblem::NoKeys });
    }
    for source in &settings.keys {
        match keys::load(source) {
            Ok(key) => all.push(key),
            Err(problem) => errors.push(KeyError { setting: KEYS, file: Some(source.path().to_owned()), problem }),
        }
    }
    if let Some(file) = &settings.jwks_file {
        match jwks::load(file) {
            Ok(keys) => all.extend(keys),
            Err(problem) => errors.push(KeyError { setting: JWKS, file: Some(file.clone()), problem }),
        }
    }
    if all.len() > MAX_KEYS {
        let setting = if settings.jwks_file.is_some() { JWKS } else { KEYS };
        errors.push(KeyError {
            setting,
            file: settings.jwks_file.clone(),
            problem: KeyProblem::TooManyKeys(all.len()),
        });
    }
    if errors.is_empty() { Ok(all.into()) } else { Err(errors) }
}
