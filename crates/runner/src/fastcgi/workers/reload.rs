//! Fresh workers when files of the application change.

use std::ffi::OsStr;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::Pool;

/// Files are at rest when nothing has changed for so long.
const REST: Duration = Duration::from_millis(200);
/// Files that never rest are taken as they are after this.
const RESTLESS: Duration = Duration::from_secs(2);

/// Directories that hold no source of the application, or only what changes with it.
const IGNORED_DIRECTORIES: [&str; 7] = [".git", ".hg", ".svn", "node_modules", "target", "tmp", "__pycache__"];
/// What applications write as they run, and what editors leave for a moment.
const IGNORED_EXTENSIONS: [&str; 16] = [
    "fifo", "sock", "log", "pid", "lock", "pyc", "sqlite", "sqlite3", "db", "swp", "swo", "swx", "tmp", "bak", "orig",
    "part",
];
const IGNORED_ENDINGS: [&str; 5] = ["~", "#", "-journal", "-wal", "-shm"];
/// vim tries with this name whether it may write.
const VIMS_TRIAL: &str = "4913";

/// Watches until it is dropped.
pub(super) struct Watcher {
    _watcher: RecommendedWatcher,
    waiter: tokio::task::AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.waiter.abort();
    }
}

/// Watches everything below this directory; inside the runtime of the keeper.
pub(super) fn watch(directory: &Path, pool: Arc<Pool>) -> notify::Result<Watcher> {
    let changed = Arc::new(Notify::new());
    let (ring, root) = (Arc::clone(&changed), directory.to_owned());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matters(&root, &event)) {
            ring.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::Recursive)?;
    let waiter = tokio::spawn(reload_after_changes(changed, pool)).abort_handle();
    Ok(Watcher { _watcher: watcher, waiter })
}

async fn reload_after_changes(changed: Arc<Notify>, pool: Arc<Pool>) {
    loop {
        changed.notified().await;
        let restless = Instant::now() + RESTLESS;
        while Instant::now() < restless && tokio::time::timeout(REST, changed.notified()).await.is_ok() {}
        tracing::info!("files of the application have changed: its workers are replaced");
        pool.lock().reload(Instant::now());
        pool.changed.notify_one();
    }
}

fn matters(root: &Path, event: &notify::Event) -> bool {
    let changes = match event.kind {
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    };
    changes && event.paths.iter().any(|path| !is_ignored(path.strip_prefix(root).unwrap_or(path)))
}

/// Whether a change of this path, from the watched directory on, is none of the application.
fn is_ignored(path: &Path) -> bool {
    let is_within = |component: Component<'_>| IGNORED_DIRECTORIES.iter().any(|name| component.as_os_str() == *name);
    if path.components().any(is_within) {
        return true;
    }
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    IGNORED_EXTENSIONS.contains(&extension)
        || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || name.starts_with(".#")
        || name == VIMS_TRIAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_matter_and_what_tools_leave_does_not() {
        for source in ["index.php", "src/app.py", "templates/a.html", ".env", "targets/x.php"] {
            assert!(!is_ignored(Path::new(source)), "{source}");
        }
        for other in [
            ".git/HEAD",
            "node_modules/a/index.js",
            "target/debug/x",
            "tmp/fifo/global_pipe.fifo",
            "src/.app.py.swp",
            "index.php~",
            "#index.php#",
            ".#index.php",
            "4913",
            "wootz.sock",
            "__pycache__/app.cpython-311.pyc",
        ] {
            assert!(is_ignored(Path::new(other)), "{other}");
        }
    }
}
