//! Session files: PHP writes them, wootz reads them.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use support::{
    Beside, DEADLINE, id, impatient, patient, php, recheck, record, refused, run, said, set_mode, store, text,
};
use tempfile::TempDir;
use wootz_session::store::{Recheck, Store, StoreError, StoreOptions};

const ID: &str = "5e55104abcdef";

/// A `session.save_path` of a site.
struct Sessions {
    directory: TempDir,
}

impl Sessions {
    fn new() -> Self {
        Self { directory: support::directory() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn file(&self, id: &str) -> PathBuf {
        self.path().join(format!("sess_{id}"))
    }

    /// Writes a session as PHP would have a minute ago.
    fn write(&self, id: &str, data: &str) {
        fs::write(self.file(id), data).expect("a file of the test");
        self.set_age(id, Duration::from_secs(60));
    }

    fn set_age(&self, id: &str, age: Duration) {
        let file = File::options().append(true).open(self.file(id)).expect("a file of the test");
        file.set_modified(SystemTime::now() - age).expect("a file of the test");
    }

    fn store(&self, options: StoreOptions) -> Store {
        store(&format!("files:{}", self.path().display()), options)
    }

    /// PHP with a session that it has started; `$argv[1]` is its id.
    fn php(&self, id: &str, code: &str) -> Command {
        let path = self.path();
        let settings = [("session.save_path", path.to_str().expect("UTF-8"))];
        php(&settings, &format!("session_id($argv[1]); session_start(); {code}"), &[id])
    }
}

#[tokio::test]
async fn sessions_that_php_writes_are_read_at_every_depth_and_with_every_serializer() {
    for levels in [0, 2] {
        for (serializer, expected) in [
            ("php", "id|i:42;name|s:5:\"alice\";"),
            ("php_serialize", "a:2:{s:2:\"id\";i:42;s:4:\"name\";s:5:\"alice\";}"),
            ("php_binary", "\u{2}idi:42;\u{4}names:5:\"alice\";"),
        ] {
            let sessions = Sessions::new();
            // PHP does not make them.
            fs::create_dir_all(sessions.path().join("5/e")).expect("a directory");
            let save_path = format!("{levels};0600;{}", sessions.path().display());
            let settings = [("session.save_path", save_path.as_str()), ("session.serialize_handler", serializer)];
            let code = "session_id($argv[1]); session_start(); $_SESSION = ['id' => 42, 'name' => 'alice'];";
            run(&mut php(&settings, code, &[ID]));
            let store = store(&format!("files:{save_path}"), patient());
            assert_eq!(text(&store, &id(ID)).await, expected, "{levels} {serializer}");
            assert_eq!(store.read(&id("another")).await, Ok(None));
            assert_eq!(store.read(&id(&"x".repeat(256))).await, Ok(None), "longer than a file's name can be");
            assert_eq!(store.read(&id("5")).await, Ok(None), "too short for the levels");
        }
    }
}

#[tokio::test]
async fn a_session_that_php_has_locked_is_waited_for_until_the_deadline() {
    let sessions = Sessions::new();
    let mut page = Beside::start(&mut sessions.php(ID, "echo \"locked\\n\"; fgets(STDIN); $_SESSION['id'] = 7;"));
    let error = refused(sessions.store(impatient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Locked { waited, .. } if waited == impatient().deadline), "{error:?}");
    assert!(error.is_temporary() && said(&error).contains("session_write_close()"), "{error}");

    let store = sessions.store(patient());
    let id = id(ID);
    let read = text(&store, &id);
    let release = async {
        // The read has found the lock by now: it runs first, and waits for nothing else.
        tokio::task::yield_now().await;
        page.tell("go on");
        page.end();
    };
    let (data, ()) = tokio::join!(biased; read, release);
    assert_eq!(data, "id|i:7;");
}

#[tokio::test]
async fn a_session_that_is_destroyed_while_wootz_waits_for_its_lock_is_gone() {
    let sessions = Sessions::new();
    let mut page = Beside::start(&mut sessions.php(ID, "echo \"locked\\n\"; fgets(STDIN); session_destroy();"));
    let store = sessions.store(patient());
    let id = id(ID);
    let release = async {
        tokio::task::yield_now().await;
        page.tell("go on");
        page.end();
    };
    let (found, ()) = tokio::join!(biased; store.read(&id), release);
    assert_eq!(found, Ok(None));
}

#[tokio::test]
async fn a_session_that_php_rewrites_all_the_time_is_never_read_in_the_middle() {
    let sessions = Sessions::new();
    let loop_of_pages = "session_write_close(); fwrite(STDOUT, \"ready\\n\"); stream_set_blocking(STDIN, false);
        for ($i = 0; !feof(STDIN); $i++) {
            session_start(); $_SESSION = ['data' => str_repeat(chr(97 + $i % 26), 100 + $i * 37 % 9000)]; session_write_close();
            fread(STDIN, 1); usleep(200);
        }";
    let pages = Beside::start(&mut sessions.php(ID, loop_of_pages));
    let (store, id) = (sessions.store(patient()), id(ID));
    let (mut seen, began) = (std::collections::HashSet::new(), std::time::Instant::now());
    let mut reads = 0;
    while reads < 500 || seen.len() < 20 {
        // Five hundred waits for a lock, each of which may take a while on a busy machine.
        assert!(began.elapsed() < 4 * DEADLINE, "{} sessions in {reads} reads", seen.len());
        let data = text(&store, &id).await;
        if data.is_empty() {
            // PHP's first request has stored nothing.
            continue;
        }
        let (length, value) = data.strip_prefix("data|s:").and_then(|rest| rest.split_once(':')).expect("a session");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix("\";")).expect("a whole session");
        assert_eq!(length.parse(), Ok(value.len()));
        assert!(value.bytes().all(|byte| byte == value.as_bytes()[0]), "two sessions in one: {value}");
        seen.insert(data);
        reads += 1;
    }
    pages.end();
}

#[tokio::test]
async fn reading_leaves_no_lock_behind() {
    let sessions = Sessions::new();
    sessions.write(ID, "id|i:1;");
    let store = sessions.store(patient());
    let record = record(&store, &id(ID)).await;
    assert!(matches!(recheck(&store, &id(ID), record.version).await, Recheck::Same));
    let file = File::options().read(true).write(true).open(sessions.file(ID)).expect("a file of the test");
    file.try_lock().expect("nobody has it locked");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_without_being_opened_for_long() {
    let sessions = Sessions::new();
    let secret = sessions.path().join("other");
    fs::write(&secret, "id|i:1;").expect("a file of the test");
    symlink(&secret, sessions.file("link")).expect("a link");
    symlink("nowhere", sessions.file("dangling")).expect("a link");
    symlink(sessions.file("loop"), sessions.file("loop")).expect("a link");
    fs::create_dir(sessions.file("directory")).expect("a directory");
    let fifo = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, sessions.file("fifo"), fifo).expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(sessions.file("socket")).expect("a socket");
    let store = sessions.store(patient());
    for (name, kind) in [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("loop", "a symbolic link"),
        ("directory", "a directory"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
    ] {
        let error = refused(store.read(&id(name)).await);
        assert!(matches!(error, StoreError::NotAFile { what, .. } if what == kind), "{name}: {error}");
        assert!(!error.is_temporary() && error.is_of_one_session());
    }
}

#[tokio::test]
async fn a_directory_of_sessions_may_be_a_link() {
    let sessions = Sessions::new();
    sessions.write(ID, "id|i:1;");
    let elsewhere = support::directory();
    let link = elsewhere.path().join("sessions");
    symlink(sessions.path(), &link).expect("a link");
    let store = store(&format!("files:{}/", link.display()), patient());
    assert_eq!(text(&store, &id(ID)).await, "id|i:1;");
}

#[tokio::test]
async fn sizes_from_nothing_to_a_gigabyte() {
    let sessions = Sessions::new();
    let options = StoreOptions { max_bytes: 1000, ..patient() };
    sessions.write("empty", "");
    sessions.write("largest", &"x".repeat(1000));
    sessions.write("larger", &"x".repeat(1001));
    sessions.write("huge", "");
    let huge = File::options().write(true).open(sessions.file("huge")).expect("a file of the test");
    huge.set_len(1 << 30).expect("a sparse file");
    let store = sessions.store(options);
    assert_eq!(text(&store, &id("empty")).await, "");
    assert_eq!(text(&store, &id("largest")).await.len(), 1000);
    for (name, size) in [("larger", 1001), ("huge", 1 << 30)] {
        let error = refused(store.read(&id(name)).await);
        assert!(matches!(error, StoreError::TooLarge { bytes, max_bytes: 1000, .. } if bytes == size), "{error:?}");
    }
}

/// Does something on a thread that may not read other users' files. Rights are a thread's own on Linux.
fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        if support::is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        }
        work()
    });
    thread.join().expect("it does not panic")
}

#[test]
fn sessions_that_only_php_may_read_are_explained() {
    let sessions = Sessions::new();
    sessions.write(ID, "id|i:1;");
    set_mode(&sessions.file(ID), if support::is_root() { 0o600 } else { 0 });
    // As Debian makes it: everybody may write and nobody list.
    set_mode(&sessions.path(), 0o1733);
    let path = sessions.path();
    let [read, rechecked] = as_nobody(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = store(&format!("files:{}", path.display()), patient());
            let read = refused(store.read(&id(ID)).await);
            assert_eq!(store.read(&id("another")).await, Ok(None), "there is none, and that can be known");
            // Any version: what counts is that the file is looked into.
            let version = some_version().await;
            match recheck(&store, &id(ID), version).await {
                Recheck::Unreadable(error) => [read, error],
                other => panic!("{other:?}"),
            }
        })
    });
    set_mode(&sessions.path(), 0o755);
    assert_eq!(read, rechecked);
    let said = said(&read);
    assert!(matches!(read, StoreError::Denied(_)) && !read.is_temporary(), "{read:?}");
    assert!(said.contains("www-data") && said.contains("User=") && said.contains("identity.session.store"), "{said}");
}

/// A version of another session.
async fn some_version() -> wootz_session::store::Version {
    let sessions = Sessions::new();
    sessions.write("another", "x");
    record(&sessions.store(patient()), &id("another")).await.version
}

#[tokio::test]
async fn a_session_that_nobody_used_for_max_age_is_none() {
    let sessions = Sessions::new();
    sessions.write(ID, "id|i:1;");
    let store = sessions.store(patient());
    sessions.set_age(ID, Duration::from_secs(23 * 60));
    let version = record(&store, &id(ID)).await.version;
    assert!(matches!(recheck(&store, &id(ID), version).await, Recheck::Same));
    sessions.set_age(ID, Duration::from_secs(24 * 60 + 1));
    assert_eq!(store.read(&id(ID)).await, Ok(None));
    assert!(matches!(recheck(&store, &id(ID), version).await, Recheck::Gone));
}

#[tokio::test]
async fn recheck_tells_what_has_become_of_each_session() {
    let sessions = Sessions::new();
    let names = ["same", "changed", "destroyed", "regenerated", "touched", "locked", "busy", "replaced"];
    for name in names {
        sessions.write(name, "id|i:1;");
    }
    let store = sessions.store(patient());
    let mut known = Vec::new();
    for name in names {
        known.push((id(name), record(&store, &id(name)).await.version));
    }
    run(&mut sessions.php("changed", "$_SESSION['id'] = 2;"));
    run(&mut sessions.php("destroyed", "session_destroy();"));
    run(&mut sessions.php("regenerated", "session_regenerate_id(true);"));
    run(&mut sessions.php("touched", ""));
    let locked = Beside::start(&mut sessions.php("locked", "echo \"locked\\n\"; fgets(STDIN);"));
    sessions.write("busy", "id|i:12;");
    let busy = Beside::start(&mut sessions.php("busy", "echo \"locked\\n\"; fgets(STDIN);"));
    fs::remove_file(sessions.file("replaced")).expect("a file of the test");
    symlink(sessions.file("same"), sessions.file("replaced")).expect("a link");

    let found = store.recheck(&known).await.expect("the directory is there");
    let words: Vec<String> = found.iter().map(|recheck| format!("{recheck:?}")).collect();
    assert!(matches!(&found[0], Recheck::Same), "{words:?}");
    assert!(matches!(&found[1], Recheck::Changed(record) if record.data == "id|i:2;"), "{words:?}");
    assert!(matches!(&found[2], Recheck::Gone), "{words:?}");
    assert!(matches!(&found[3], Recheck::Gone), "{words:?}");
    // PHP notes by the time of the file that the session is in use.
    assert!(matches!(&found[4], Recheck::Changed(record) if record.data == "id|i:1;"), "{words:?}");
    assert!(matches!(&found[5], Recheck::Same), "a lock alone changes nothing: {words:?}");
    assert!(matches!(&found[6], Recheck::Unreadable(StoreError::Locked { .. })), "{words:?}");
    assert!(matches!(&found[7], Recheck::Unreadable(StoreError::NotAFile { .. })), "{words:?}");
    locked.end();
    busy.end();
}

#[tokio::test]
async fn a_file_that_was_written_to_a_moment_ago_is_looked_into_again() {
    // A time that lies ahead stays a moment ago for as long as the test takes.
    let sessions = Sessions::new();
    let now = SystemTime::now() + Duration::from_secs(3600);
    let write = |data: &str| {
        fs::write(sessions.file(ID), data).expect("a file of the test");
        let file = File::options().append(true).open(sessions.file(ID)).expect("a file of the test");
        file.set_modified(now).expect("a file of the test");
    };
    write("id|i:1;");
    let store = sessions.store(patient());
    let version = record(&store, &id(ID)).await.version;
    write("id|i:2;");
    match recheck(&store, &id(ID), version).await {
        Recheck::Changed(record) => assert_eq!(record.data, "id|i:2;"),
        other => panic!("same inode, time and size, but another user: {other:?}"),
    }
}

#[tokio::test]
async fn thousands_are_rechecked_and_others_have_their_turns_between() {
    let sessions = Sessions::new();
    let store = sessions.store(patient());
    let mut known = Vec::new();
    for number in 0..2000 {
        let name = format!("s{number}");
        sessions.write(&name, "id|i:1;");
        known.push((id(&name), record(&store, &id(&name)).await.version));
    }
    let turns = std::cell::Cell::new(0);
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::select! { found = store.recheck(&known) => found.expect("the directory is there"), () = others => unreachable!() };
    assert!(found.len() == 2000 && found.iter().all(|recheck| matches!(recheck, Recheck::Same)));
    assert!(turns.get() >= 20, "{} turns", turns.get());
}

#[tokio::test]
async fn a_directory_that_is_gone_is_an_error_and_not_everybodys_logout() {
    let sessions = Sessions::new();
    sessions.write(ID, "id|i:1;");
    let store = sessions.store(patient());
    let version = record(&store, &id(ID)).await.version;
    fs::rename(sessions.path(), sessions.path().with_extension("away")).expect("a directory of the test");
    let errors = [refused(store.read(&id(ID)).await), refused(store.recheck(&[(id(ID), version)]).await)];
    fs::rename(sessions.path().with_extension("away"), sessions.path()).expect("a directory of the test");
    for error in errors {
        assert!(matches!(&error, StoreError::Settings(text) if text.contains("session_save_path()")), "{error:?}");
    }
    assert_eq!(text(&store, &id(ID)).await, "id|i:1;");
}

#[tokio::test]
async fn a_dropped_read_leaves_nothing_behind() {
    let sessions = Sessions::new();
    let page = Beside::start(&mut sessions.php(ID, "echo \"locked\\n\"; fgets(STDIN); $_SESSION['id'] = 7;"));
    let (store, id) = (sessions.store(patient()), id(ID));
    let open = || {
        fs::read_dir("/proc/self/fd")
            .expect("/proc")
            .filter_map(|entry| leads_to(&entry.ok()?.path(), &sessions))
            .count()
    };
    {
        let read = std::pin::pin!(store.read(&id));
        let waited = tokio::time::timeout(Duration::from_millis(1), read).await;
        assert!(waited.is_err(), "it waits for the lock");
        assert_eq!(open(), 1);
    }
    assert_eq!(open(), 0);
    page.end();
    assert_eq!(text(&store, &id).await, "id|i:7;");
    assert!(store.read(&id).await.is_ok_and(|found| found.is_some()), "within {DEADLINE:?}");
}

fn leads_to(descriptor: &Path, sessions: &Sessions) -> Option<()> {
    fs::read_link(descriptor).ok()?.starts_with(sessions.path()).then_some(())
}
