//! The pipes: what any program of the host writes into them arrives whole, at those for whom it is, or not at all.

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use support::client::Client;
use support::{Setup, Wootz, as_root, mode, run, wait_until, write_pipe};
use tungstenite::Message;

/// The user is whom the cookie `user` names; a call says as whom it runs, why, and what it was given.
const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { echo "${HTTP_COOKIE#user=}"; exit; }
echo "$WOOTZ_EVENT|$REMOTE_USER|$REQUEST_METHOD|$REQUEST_URI|$(cat)""#;

fn application() -> Setup {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"")
}

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a new pipe");
}

fn make_pipe_directory(setup: &Setup) -> std::path::PathBuf {
    let directory = setup.path("tmp/fifo");
    fs::create_dir_all(&directory).expect("a directory of the test");
    directory
}

#[test]
fn record_of_the_global_pipe_reaches_everybody_on_every_shard() {
    let wootz = application().settings("listen.shards = 2").start();
    let mut clients: Vec<Client> = (0..20).map(|number| wootz.connect_as(&format!("user={}", number % 3))).collect();
    wootz.push("hello everybody\nand again \u{20ac}\n");
    for client in &mut clients {
        assert_eq!([client.text(), client.text()], ["hello everybody", "and again \u{20ac}"]);
    }
    wootz.push(b"not \xff UTF-8\n");
    for client in &mut clients {
        assert_eq!(client.binary(), b"not \xff UTF-8");
    }
}

#[test]
fn record_of_a_connections_pipe_is_run_for_it_as_its_user() {
    let wootz = application().start();
    let mut one = wootz.connect_as("user=1");
    let mut tab = wootz.connect_as("user=1");
    let mut twelve = wootz.connect_as("user=12");
    let mut guest = wootz.connect_as("user=");
    for (client, user) in [(&mut one, "1"), (&mut twelve, "12"), (&mut guest, "")] {
        let name = wootz.pipe_of(client.port());
        assert_eq!(name, format!("{user}:127_0_0_1:{}.fifo", client.port()));
        write_pipe(&wootz.path("tmp/fifo").join(name), b"/news?since=1\nno URI\n");
        assert_eq!(client.text(), format!("push|{user}|GET|/news?since=1|/news?since=1"));
        assert_eq!(client.text(), format!("push|{user}|POST|/|no URI"));
    }
    for client in [&mut one, &mut tab, &mut twelve, &mut guest] {
        client.nothing_waits();
    }
}

#[test]
fn name_of_a_pipe_never_leaves_the_directory() {
    let wootz = application().start();
    for (user, prefix) in [
        ("a/b.c", "a:b_c"),
        ("../../escape", "__:__:escape"),
        ("/etc/passwd", ":etc:passwd"),
        ("..", "__"),
        (".hidden", "_hidden"),
        ("ann@example.com", "ann@example_com"),
        ("with space", "with space"),
    ] {
        let mut client = wootz.connect_as(&format!("user={user}"));
        let name = wootz.pipe_of(client.port());
        assert_eq!(name, format!("{prefix}:127_0_0_1:{}.fifo", client.port()));
        write_pipe(&wootz.path("tmp/fifo").join(&name), b"/who\n");
        assert_eq!(client.text(), format!("push|{user}|GET|/who|/who"));
    }
    assert!(!wootz.path("escape").exists());
}

#[test]
fn longest_id_of_a_user_still_has_its_pipe() {
    let wootz = application().start();
    let user = "u".repeat(128);
    let mut client = wootz.connect_as(&format!("user={user}"));
    assert_eq!(wootz.pipe_of(client.port()), format!("{user}:127_0_0_1:{}.fifo", client.port()));
    assert_eq!(client.ask("/who"), format!("message|{user}|GET|/who|/who"));
}

#[test]
fn each_framing_cuts_records_where_it_says() {
    let cases: [(&str, &[u8], &[&str]); 3] = [
        ("lines", b"one\n\ntwo three\nhalf", &["one", "two three"]),
        (
            "carbonphp",
            b"one\nline two\nCarbonPHP\\Abstracts\\Pipe:29\n{\"a\":\n1}\n\nCarbonPHP\\Abstracts\\Pipe:4711\nCarbonPHP\\Abstracts\\Pipe:x\n?",
            &["one\nline two", "{\"a\":\n1}\n"],
        ),
        ("length", b"\0\0\0\x03one\0\0\0\0\0\0\0\x04t\nwo\0\0\0\x09half", &["one", "t\nwo"]),
    ];
    for (framing, bytes, records) in cases {
        let wootz = Setup::command(&["cat"]).settings(&format!("pipes.framing = {framing:?}")).start();
        let mut client = wootz.connect();
        let mut pipe = OpenOptions::new().write(true).open(wootz.global_pipe()).expect("a pipe with a reader");
        for byte in bytes {
            pipe.write_all(&[*byte]).expect("a reader");
        }
        for record in records {
            assert_eq!(client.text(), *record, "{framing}");
        }
        client.nothing_waits();
        drop(pipe);
        client.nothing_waits();
    }
}

#[test]
fn site_on_carbonphp_pushes_with_no_line_changed() {
    let wootz = Setup::command(&["cat"]).settings("pipes.framing = \"carbonphp\"").start();
    let mut client = wootz.connect();
    let push = support::repository().join("examples/carbonphp-pipe/push.php");
    for message in ["hello everybody", "two\nlines\n", &"x".repeat(20_000)] {
        run(std::process::Command::new("php").arg(&push).arg(wootz.global_pipe()).arg(message));
        assert_eq!(client.text(), message);
    }
}

#[test]
fn four_writers_at_once_tear_no_record_of_up_to_a_pipe_buffer_and_lose_none() {
    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let path = wootz.global_pipe();
            std::thread::spawn(move || {
                for number in 0..100 {
                    let filler = "x".repeat(if number % 10 == 0 { 4000 } else { 50 });
                    write_pipe(&path, format!("{writer} {number} {filler}\n").as_bytes());
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..400 {
        let text = client.text();
        let mut parts = text.split(' ');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).expect("a number");
        let (writer, number) = (number(), number());
        assert_eq!(next[writer], number, "writer {writer} is out of order");
        next[writer] += 1;
        let length = if number % 10 == 0 { 4000 } else { 50 };
        assert!(parts.next().is_some_and(|filler| filler.len() == length && filler.bytes().all(|byte| byte == b'x')));
    }
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
}

#[test]
fn record_of_a_megabyte_arrives_whole_and_one_over_the_limit_not_at_all() {
    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    let largest = "x".repeat(1 << 20);
    for size in [4096, 4097, 65_536, 65_537, 1 << 20] {
        wootz.push(format!("{}\n", &largest[..size]));
        assert_eq!(client.text().len(), size);
    }
    wootz.push(format!("{largest}y\nnext\n"));
    assert_eq!(client.text(), "next");
    wootz.wait_for_log("max_record");
}

#[test]
fn record_without_an_end_is_never_sent_and_holds_no_memory() {
    let wootz = Setup::command(&["cat"]).settings("pipes.max_record = \"64KiB\"").start();
    let mut client = wootz.connect();
    let mut endless = OpenOptions::new().write(true).open(wootz.global_pipe()).expect("a pipe with a reader");
    for _ in 0..64 {
        endless.write_all(&[b'x'; 1 << 20]).expect("a reader");
    }
    client.nothing_waits();
    assert!(support::process::peak_memory_bytes(wootz.pid()) < 60 << 20);
    endless.write_all(b"\nthe next record\n").expect("a reader");
    assert_eq!(client.text(), "the next record");
}

#[test]
fn half_a_record_whose_writer_is_gone_is_never_sent_alone_and_spoils_at_most_the_next_one() {
    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    write_pipe(&wootz.global_pipe(), b"whole\nhalf");
    assert_eq!(client.text(), "whole");
    client.nothing_waits();
    wootz.push("another\nthird\n");
    let next = client.text();
    assert!(["another", "halfanother"].contains(&next.as_str()), "{next}");
    assert_eq!(client.text(), "third");
}

#[test]
fn directory_of_the_pipes_is_made_where_it_is_missing_and_a_useless_one_stops_the_start() {
    let wootz = Setup::command(&["cat"]).settings("pipes.directory = \"a/b/c\"").start();
    let pipe = wootz.path("a/b/c/global_pipe.fifo");
    assert!(fs::metadata(&pipe).expect("the pipe").file_type().is_fifo());
    assert_eq!(mode(&wootz.path("a/b/c")) & 0o007, 0, "others may not look into it");
    wootz.stop();
    assert!(!pipe.exists());

    let blocked = Setup::command(&["cat"]).file("blocked", "a file").settings("pipes.directory = \"blocked/fifo\"");
    let output = blocked.refused();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("blocked"), "{output:?}");

    // Root may write everywhere but in /proc.
    let readonly = Setup::command(&["cat"]).settings("pipes.directory = \"/proc/self\"").refused();
    assert!(matches!(readonly.status.code(), Some(1 | 2)), "{readonly:?}");
    assert!(String::from_utf8_lossy(&readonly.stderr).contains("/proc/self"), "{readonly:?}");
}

#[test]
fn foreign_thing_of_the_pipes_name_is_never_replaced_followed_or_removed() {
    type Plant = fn(&Path);
    let things: [(&str, Plant); 5] = [
        ("a file", |path| fs::write(path, "precious").expect("a file")),
        ("a link to a file", |path| {
            fs::write(path.with_file_name("target"), "precious").expect("a file");
            symlink("target", path).expect("a link");
        }),
        ("a link to nothing", |path| symlink("nothing", path).expect("a link")),
        ("a directory", |path| fs::create_dir(path).expect("a directory")),
        ("a pipe of another owner", |path| {
            make_fifo(path);
            run(as_root("chown").arg("nobody").arg(path));
        }),
    ];
    for (name, plant) in things {
        let setup = Setup::command(&["cat"]);
        let path = make_pipe_directory(&setup).join("global_pipe.fifo");
        plant(&path);
        let before = fs::symlink_metadata(&path).expect("just planted");
        let output = setup.refused();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name}: {said}");
        assert!(said.contains("global_pipe.fifo"), "{name}: {said}");
        let after = fs::symlink_metadata(&path).unwrap_or_else(|_| panic!("{name} was removed"));
        assert_eq!((before.ino(), before.mode(), before.len()), (after.ino(), after.mode(), after.len()), "{name}");
        assert!(!path.with_file_name("nothing").exists());
    }
}

#[test]
fn things_of_others_in_the_directory_stay() {
    let setup = Setup::command(&["cat"]);
    let directory = make_pipe_directory(&setup);
    fs::write(directory.join("42:127_0_0_1:4711.fifo"), "a file").expect("a file");
    fs::write(directory.join("notes.txt"), "a file").expect("a file");
    make_fifo(&directory.join("backup.fifo"));
    make_fifo(&directory.join("backup"));
    let wootz = setup.start();
    for name in ["42:127_0_0_1:4711.fifo", "notes.txt", "backup.fifo", "backup"] {
        assert!(wootz.path("tmp/fifo").join(name).exists(), "{name} was removed at the start");
    }
    let directory = wootz.path("tmp/fifo");
    let kept = tempfile::tempdir().expect("a temporary directory");
    // The server's directory ends with it, so what must stay is looked at from elsewhere.
    wootz.signal(Signal::TERM);
    wait_until("the pipe of the server is gone", || (!directory.join("global_pipe.fifo").exists()).then_some(()));
    for name in ["42:127_0_0_1:4711.fifo", "notes.txt", "backup.fifo", "backup"] {
        fs::rename(directory.join(name), kept.path().join(name))
            .unwrap_or_else(|_| panic!("{name} was removed at the end"));
    }
    let mut wootz = wootz;
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn pipes_have_the_mode_and_the_group_of_the_file() {
    let check = |wootz: &Wootz, bits: u32, group: Option<u32>| {
        let client = wootz.connect();
        let own = wootz.path("tmp/fifo").join(wootz.pipe_of(client.port()));
        let group = group.unwrap_or_else(|| fs::metadata(wootz.directory()).expect("the test's own").gid());
        for path in [wootz.global_pipe(), own] {
            wait_until("the pipe has its mode", || (mode(&path) == bits).then_some(()));
            let metadata = fs::symlink_metadata(&path).expect("a pipe");
            assert!(metadata.file_type().is_fifo() && metadata.gid() == group, "{metadata:?}");
        }
    };
    check(&Setup::command(&["cat"]).start(), 0o660, None);
    check(&Setup::command(&["cat"]).settings("pipes.mode = \"0622\"").start(), 0o622, None);
    if rustix::process::geteuid().is_root() {
        // On every Debian.
        let daemon = 1;
        check(&Setup::command(&["cat"]).settings("pipes.group = \"daemon\"").start(), 0o660, Some(daemon));
    }
}

#[test]
fn pipe_of_a_connection_is_removed_when_it_closes() {
    let wootz = application().start();
    let polite = wootz.connect_as("user=1");
    let rude = wootz.connect_as("user=2");
    let (first, second) = (wootz.pipe_of(polite.port()), wootz.pipe_of(rude.port()));
    assert_eq!(wootz.pipes().len(), 3);
    polite.leave();
    drop(rude);
    wait_until("the pipes of closed connections are gone", || (wootz.pipes() == ["global_pipe.fifo"]).then_some(()));
    assert_ne!(first, second);
}

#[test]
fn kinds_of_pipes_can_be_switched_off() {
    let wootz = Setup::command(&["cat"]).settings("pipes.requests = false").start();
    let mut client = wootz.connect();
    wootz.push("hello\n");
    assert_eq!(client.text(), "hello");
    assert_eq!(wootz.pipes(), ["global_pipe.fifo"]);
    let wootz = Setup::command(&["cat"]).settings("pipes.requests = false\npipes.global = false").start();
    assert_eq!(wootz.connect().ask("/"), "/");
    assert_eq!(wootz.pipes(), Vec::<String>::new());
}

#[test]
fn pipes_that_a_killed_server_left_are_taken_over_by_the_next_one() {
    let setup = application();
    let shared = tempfile::tempdir().expect("a temporary directory");
    let setting = format!("pipes.directory = {:?}", shared.path().to_str().expect("UTF-8"));
    let mut killed = setup.settings(&setting).start();
    let client = killed.connect_as("user=1");
    let own = shared.path().join(format!("1:127_0_0_1:{}.fifo", client.port()));
    wait_until("the pipe of the connection", || own.exists().then_some(()));
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(own.exists(), "nobody could remove it");
    let next = application().settings(&setting).start();
    assert!(!own.exists(), "a pipe of a connection that is gone");
    let mut client = next.connect_as("user=1");
    write_pipe(&shared.path().join("global_pipe.fifo"), b"hello\n");
    assert_eq!(client.text(), "hello");
}

#[test]
fn second_server_does_not_take_the_pipes_of_a_running_one() {
    let wootz = Setup::command(&["cat"]).start();
    let directory = wootz.path("tmp/fifo");
    let second =
        Setup::command(&["cat"]).setting("pipes.directory", format!("{:?}", directory.to_str().expect("UTF-8")));
    assert!(matches!(second.refused().status.code(), Some(1 | 2)));
    let mut client = wootz.connect();
    wootz.push("still mine\n");
    assert_eq!(client.text(), "still mine");
}

#[test]
fn flood_of_pushes_loses_nothing_for_readers_and_holds_bounded_memory() {
    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    let path = wootz.global_pipe();
    let writer = std::thread::spawn(move || {
        for number in 0..2000 {
            write_pipe(&path, format!("{number} {}\n", "x".repeat(2000)).as_bytes());
        }
    });
    for number in 0..2000 {
        let Message::Text(text) = client.receive() else { panic!("text was expected") };
        assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
    }
    writer.join().expect("no panic");
    assert!(support::process::peak_memory_bytes(wootz.pid()) < 60 << 20);
}

#[test]
fn pipe_can_be_written_by_a_member_of_its_group_and_by_no_other() {
    // Only root can give a pipe to a group that it is not in itself.
    let group = if rustix::process::geteuid().is_root() { "pipes.group = \"daemon\"" } else { "" };
    let wootz = Setup::command(&["cat"]).settings(group).start();
    let mut client = wootz.connect();
    // The way to the pipe is open; only the pipe itself decides.
    for directory in ["", "tmp", "tmp/fifo"] {
        fs::set_permissions(wootz.path(directory), fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let pipe = wootz.global_pipe();
    let may_write = |group: u32| {
        let script = format!("printf 'from group\\n' >{}", pipe.display());
        let somebody =
            ["--reuid=nobody", &format!("--regid={group}"), "--clear-groups", "sh", "-c", &script].map(str::to_owned);
        as_root("setpriv").args(somebody).output().expect("setpriv").status.success()
    };
    assert!(may_write(fs::metadata(&pipe).expect("a pipe").gid()));
    assert_eq!(client.text(), "from group");
    let nogroup = 65_534;
    assert!(!may_write(nogroup));
    client.nothing_waits();
}
