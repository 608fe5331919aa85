//! The binary as an operator meets it, as far as no server is needed: settings, help, exit codes, `status` against a
//! socket of the test's own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `wootz` in a directory, with `PATH` and nothing else in its environment.
fn wootz(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wootz"));
    command.current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    wootz(directory).args(arguments).output().expect("the binary runs")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8 is printed")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8 is printed")
}

fn directory_with(file: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("wootz.toml"), file).expect("it can be written");
    directory
}

#[test]
fn five_mistakes_are_five_lines_and_exit_code_2() {
    let directory = directory_with(
        "[listen]\npath = \"ws\"\n\n[application]\ncommand = [\"no-such-program\"]\nevents = [\"open\"]\n\n[limits]\nmax_mesage = \"1MiB\"\noutbox = \"big\"\n",
    );
    for arguments in [["check"].as_slice(), &["check", "wootz.toml"], &["serve"], &["websocket"]] {
        let output = run(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
        let lines: Vec<&str> = stderr(&output).lines().collect();
        let expected = [
            r#"wootz.toml:2: listen.path has to begin with "/""#,
            "wootz.toml:5: application.command can't run: no-such-program is in no directory of PATH (/usr/bin:/bin)",
            r#"wootz.toml:6: application.events has "open"; there are "connect" and "disconnect""#,
            "wootz.toml:9: limits.max_mesage is not a setting; did you mean limits.max_message?",
            r#"wootz.toml:10: limits.outbox is a size such as "64KiB", "1MiB" or a number of bytes, not "big""#,
        ];
        assert_eq!(lines, expected, "{arguments:?}");
    }
}

#[test]
fn good_configuration_is_fine_and_says_what_it_would_serve() {
    let directory =
        directory_with("[application]\ncommand = [\"sh\", \"-c\", \"echo 'hi'\"]\n[identity]\nguests = \"refuse\"\n");
    let output = run(directory.path(), &["check"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.starts_with("wootz.toml: fine\n"), "{text}");
    for part in ["ws://127.0.0.1:8888/", r"sh -c 'echo '\''hi'\'''", "guests are refused", "tmp/fifo", "wootz.sock"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn check_says_which_server_answers_and_warns_where_it_is_not_there_yet() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("it exists");
    std::fs::write(root.join("index.php"), "<?php").expect("it can be written");
    let socket = format!("unix:{}/fpm.sock", root.display());
    let arguments = ["check", "--fastcgi", &socket, "--script", "index.php"];
    let output = run(&root, &arguments);
    assert_eq!(output.status.code(), Some(0));
    let warning = format!(
        "warning: --fastcgi: application.fastcgi.address = \"{socket}\" is not there yet: is its server running?\n"
    );
    assert_eq!(stderr(&output), warning);
    let runs = format!("fastcgi: {}/index.php at {socket}", root.display());
    assert!(stdout(&output).contains(&runs), "{}", stdout(&output));

    let _listener = UnixListener::bind(root.join("fpm.sock")).expect("the socket can be made");
    assert_eq!(stderr(&run(&root, &arguments)), "");

    let output = run(&root, &["check", "--http", "http://localhost:8000/app/"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("http: http://localhost:8000/app\n"), "{}", stdout(&output));
}

#[test]
fn flags_that_contradict_each_other_stop_the_start_and_are_both_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["serve", "--http", "http://localhost:8000", "--fastcgi", "127.0.0.1:9000", "--script", "/x.php"];
    let output = run(directory.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    let told = "--http: application.http.url does nothing with runner = \"fastcgi\" with an address (--fastcgi)";
    assert!(stderr(&output).starts_with(told), "{}", stderr(&output));
}

#[test]
fn named_file_that_is_not_there_stops_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    for arguments in [
        ["check", "other.toml"].as_slice(),
        &["config", "--config", "other.toml"],
        &["serve", "--config=other.toml", "--", "cat"],
        &["status", "--config", "other.toml"],
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(
            (output.status.code(), stderr(&output)),
            (Some(2), "other.toml: there is no such file\n"),
            "{arguments:?}"
        );
    }
}

#[test]
fn serve_without_a_command_says_what_to_try() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = run(directory.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("try: wootz serve --dev -- sh -c "), "{}", stderr(&output));
    std::fs::write(directory.path().join("index.php"), "<?php").expect("it can be written");
    let output = run(directory.path(), &["serve"]);
    assert!(stderr(&output).contains("try: wootz serve --dev -- php index.php\n"), "{}", stderr(&output));
}

#[test]
fn effective_configuration_says_where_each_part_came_from() {
    let directory = directory_with("[limits]\nmax_frames = 7\nmax_head = \"1KiB\"\n");
    let mut command = wootz(directory.path());
    command.env("WOOTZ_LIMITS_MAX_HEAD", "2KiB").env("WOOTZ_LOG_FORMAT", "json").env("WOOTZ_EVENT", "message");
    command.args([
        "config",
        "--set",
        "log.format=text",
        "--listen",
        "127.0.0.1:0",
        "--auto-port",
        "--dev",
        "--",
        "cat",
        "-",
    ]);
    let output = command.output().expect("the binary runs");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let commented: Vec<String> = stdout(&output)
        .lines()
        .filter(|line| line.contains('#'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        r#"address = "127.0.0.1:0" # --listen"#,
        "auto_port = true # --auto-port",
        r#"command = ["cat", "-"] # --"#,
        r#"max_head = "2KiB" # WOOTZ_LIMITS_MAX_HEAD"#,
        "max_frames = 7 # wootz.toml:2",
        r#"level = "debug" # --dev"#,
        r#"format = "text" # --set"#,
    ];
    assert_eq!(commented, expected);
}

#[test]
fn printed_configurations_are_fine_configurations() {
    let directory = tempfile::tempdir().expect("a directory");
    for arguments in [["config", "--default"].as_slice(), &["config", "--set", "log.level=warn"]] {
        let printed = run(directory.path(), arguments);
        assert_eq!(printed.status.code(), Some(0));
        std::fs::write(directory.path().join("printed.toml"), &printed.stdout).expect("it can be written");
        let output = run(directory.path(), &["check", "printed.toml", "--", "cat"]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn reader_of_the_output_may_go_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = wootz(directory.path())
        .args(["config", "--default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn wrong_usage_ends_with_2_and_help_and_version_with_0() {
    let directory = tempfile::tempdir().expect("a directory");
    let exit = |arguments: &[&str]| run(directory.path(), arguments).status.code();
    for arguments in
        [[].as_slice(), &["unknown"], &["serve", "--unknown"], &["serve", "--tls-cert", "x"], &["serve", "stray"]]
    {
        assert_eq!(exit(arguments), Some(2), "{arguments:?}");
    }
    for arguments in [
        ["--help"].as_slice(),
        &["--version"],
        &["help", "serve"],
        &["serve", "--help"],
        &["serve", "-h"],
        &["status", "--help"],
    ] {
        assert_eq!(exit(arguments), Some(0), "{arguments:?}");
    }
    let version = run(directory.path(), &["--version"]);
    assert_eq!(stdout(&version), concat!("wootz ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_of_serve_knows_every_setting_and_has_no_colour_in_a_pipe() {
    let directory = tempfile::tempdir().expect("a directory");
    let help = run(directory.path(), &["serve", "--help"]);
    let effective = run(directory.path(), &["config"]);
    let mut section = "";
    for line in stdout(&effective).lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix('[') {
            Some(name) => section = name.trim_end_matches(']'),
            None => {
                let name = line.split(" = ").next().expect("a line has a name");
                assert!(stdout(&help).contains(&format!("  {section}.{name} = ")), "{section}.{name}");
            }
        }
    }
    assert!(!stdout(&help).contains('\x1b'));
}

#[test]
fn status_without_a_server_says_where_it_looked() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = run(directory.path(), &["status", "--socket", "none.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let socket = directory.path().canonicalize().expect("it exists").join("none.sock");
    assert!(
        stderr(&output).starts_with(&format!("wootz: no server listens at {}", socket.display())),
        "{}",
        stderr(&output)
    );
}

/// Answers one request on `wootz.sock` of `directory` and gives the request back.
fn answer_once(directory: &Path, response: &'static str) -> std::thread::JoinHandle<String> {
    let listener = UnixListener::bind(directory.join("wootz.sock")).expect("the socket can be made");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut part).expect("the request can be read");
            assert_ne!(length, 0, "the request is whole");
            request.extend_from_slice(&part[..length]);
        }
        stream.write_all(response.as_bytes()).expect("the response can be written");
        String::from_utf8(request).expect("a request is ASCII")
    })
}

#[test]
fn status_shows_what_the_server_says_as_a_table_or_as_it_is() {
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n{\"pid\": 7, \"calls\":{\"running\":1}}";
    for (arguments, shown) in [
        (["status"].as_slice(), "pid        7\ncalls\n  running  1\n"),
        (&["status", "--json"], "{\"pid\": 7, \"calls\":{\"running\":1}}\n"),
    ] {
        // A mistake elsewhere in the file is not the business of this command.
        let directory = directory_with("[limits]\nwrong = 1\n");
        let server = answer_once(directory.path(), RESPONSE);
        let output = run(directory.path(), arguments);
        assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(0), shown, ""));
        let request = server.join().expect("the request was whole");
        assert!(request.starts_with("GET /v1/status HTTP/1.1\r\n"), "{request}");
    }
}

#[test]
fn status_passes_an_error_of_the_server_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = answer_once(directory.path(), "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nbusy\n");
    let output = run(directory.path(), &["status"]);
    server.join().expect("the request was whole");
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(1), "wootz: the server answered 503 Service Unavailable: busy\n")
    );
}
