use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use wootz_server::config::{AllowedOrigin, Notify};

use super::*;
use crate::settings::{FileChoice, Kind, Override, Sources, TABLE};

/// The environment of the tests: a `PATH` and nothing else.
fn surroundings(name: &str) -> Option<OsString> {
    (name == "PATH").then(|| OsString::from("/usr/bin:/bin"))
}

fn resolve_pairs(pairs: &[&str]) -> (Resolved, String) {
    let command = Override::Command(vec!["cat".into()]);
    let sets = pairs.iter().map(|pair| Override::Set((*pair).to_owned()));
    let overrides =
        std::iter::once(command).filter(|_| !pairs.iter().any(|pair| pair.starts_with("application.command=")));
    let sources = Sources { file: FileChoice::None, overrides: overrides.chain(sets).collect(), ..Sources::default() };
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    let resolved = resolve(&settings, Dev::No, &surroundings, &mut problems);
    (resolved, problems.to_string())
}

#[test]
fn defaults_are_those_of_the_library() {
    let (resolved, problems) = resolve_pairs(&[]);
    assert_eq!(problems, "");
    let library = Config::default();
    let text = |config: &Config| {
        format!("{:?}{:?}{:?}{:?}{:?}", config.listen, config.identity, config.calls, config.limits, config.mode)
    };
    assert_eq!(text(&resolved.config), text(&library));
    let exec = ExecSettings { command: vec!["cat".into()], ..ExecSettings::default() };
    assert_eq!(format!("{:?}", resolved.exec), format!("{exec:?}"));
}

#[test]
fn every_setting_means_something() {
    let settings = Settings::defaults();
    resolve(&settings, Dev::No, &surroundings, &mut Problems::default());
    let idle: Vec<_> = TABLE.iter().filter(|row| !settings.used().contains(row.key)).map(|row| row.key).collect();
    assert_eq!(idle, [""; 0], "these settings are accepted and do nothing");
}

#[test]
fn every_choice_is_understood() {
    for row in TABLE {
        let Kind::Choice { now, .. } = row.kind else { continue };
        for word in now {
            let (_, problems) = resolve_pairs(&[&format!("{}={word}", row.key)]);
            assert_eq!(problems, "", "{} = {word}", row.key);
        }
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let (resolved, problems) = resolve_pairs(&[
        "listen.shards=3",
        "listen.auto_port=true",
        "identity.allowed_origins=same-origin,https://Example.com:443",
        "application.events=disconnect",
        "application.limits.cpu=1500ms",
        "application.limits.memory=1GiB",
        "application.limits.max_waiting=0",
        "application.environment=PATH=/bin,A=1",
        "pipes.mode=0600",
        "limits.text_ping=false",
        "control.socket=some.sock",
    ]);
    assert_eq!(problems, "");
    let Resolved { config, exec, .. } = resolved;
    assert_eq!((config.listen.shards, config.listen.port_taken), (3, PortTaken::TryNext));
    let example = AllowedOrigin::Exact("https://example.com".to_owned());
    assert_eq!(config.identity.allowed_origins, [AllowedOrigin::SameOrigin, example]);
    assert_eq!((config.calls.on_connect, config.calls.on_disconnect), (Notify::Silent, Notify::Call));
    assert_eq!(
        (exec.limits.cpu_seconds, exec.limits.memory_bytes, exec.limits.processes),
        (Some(2), Some(1 << 30), None)
    );
    assert_eq!((config.calls.max_waiting, config.limits.text_ping), (0, TextPing::Call));
    assert_eq!(config.pipes.expect("pipes are made").mode, 0o600);
    let here = std::env::current_dir().expect("there is one");
    assert_eq!(config.control.expect("a socket is made").socket, here.join("some.sock"));
    assert_eq!(exec.timeout, Duration::from_secs(30));
}

#[test]
fn mistakes_of_meaning_are_told_with_their_key() {
    let cases = [
        ("listen.path=ws", r#"listen.path has to begin with "/""#),
        ("listen.path=/a b", "listen.path is a path alone"),
        ("listen.shards=5000", "listen.shards is at most 1024"),
        (
            "identity.allowed_origins=example.com",
            r#"identity.allowed_origins has "example.com": an origin begins with its scheme"#,
        ),
        ("application.events=open", r#"application.events has "open"; there are "connect" and "disconnect""#),
        ("application.subprotocols=a b", r#"application.subprotocols has "a b", which is no token"#),
        ("application.pass_environment=A=B", r#"application.pass_environment has "A=B""#),
        ("application.directory=/no/such", r#"application.directory = "/no/such" does not exist"#),
        ("application.directory=/bin/sh", r#"application.directory = "/bin/sh" is not a directory"#),
        ("application.command=[]", "application.command is empty, so nothing would run; try: wootz serve"),
        (
            "application.command=no-such-program",
            "application.command can't run: no-such-program is in no directory of PATH",
        ),
        ("application.command=/no/such/program", "application.command can't run: /no/such/program does not exist"),
        ("application.command=/etc/passwd", "application.command can't run: /etc/passwd is not executable"),
        ("application.command=/etc", "application.command can't run: /etc is a directory"),
        (
            "application.environment=PATH=/no/such",
            "application.command can't run: cat is in no directory of PATH (/no/such)",
        ),
        ("application.environment==1", r#"application.environment has the name """#),
        (
            "application.limits.user=no-such-user",
            r#"application.limits.user = "no-such-user": this machine has no such user"#,
        ),
        ("pipes.group=no-such-group", r#"pipes.group = "no-such-group": this machine has no such group"#),
        ("control.group=no-such-group", r#"control.group = "no-such-group": this machine has no such group"#),
        ("control.socket=/no/such/wootz.sock", "control.socket can't be made: /no/such is no directory"),
    ];
    for (pair, problem) in cases {
        let (_, problems) = resolve_pairs(&[pair]);
        let told = problems.lines().any(|line| line.contains(problem));
        assert!(told, "{pair}: {problems}");
    }
    let long = format!("control.socket=/{}", "x".repeat(107));
    assert!(resolve_pairs(&[&long]).1.contains("is too long for a Unix socket"));
}

#[test]
fn mistake_that_only_follows_from_another_is_not_told() {
    let (_, problems) = resolve_pairs(&["application.command='"]);
    assert_eq!(problems.lines().count(), 1, "{problems}");
    let (_, problems) = resolve_pairs(&["application.directory=/no/such", "application.command=./run"]);
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[test]
fn missing_command_says_what_to_try() {
    let settings = Settings::defaults();
    let mut problems = Problems::default();
    resolve(&settings, Dev::No, &surroundings, &mut problems);
    let text = problems.to_string();
    assert!(
        text.starts_with("application.command is not set, so nothing would run; try: wootz serve --dev -- "),
        "{text}"
    );
}

#[test]
fn no_pipes_are_made_where_none_is_wanted() {
    let none = |pairs: &[&str]| resolve_pairs(pairs).0.config.pipes.is_none();
    assert!(none(&["pipes.directory="]));
    assert!(none(&["pipes.global=false", "pipes.requests=false"]));
    assert!(!none(&["pipes.global=false"]));
}

#[test]
fn control_socket_is_found_in_one_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for name in ["systemd", "user"] {
        std::fs::create_dir(at(name)).expect("it can be made");
    }
    let found = |settings: &Settings, runtime: &Path, user: &Path| {
        control_socket(settings, &|name| match name {
            "RUNTIME_DIRECTORY" => Some(runtime.into()),
            "XDG_RUNTIME_DIR" => Some(user.into()),
            _ => None,
        })
    };
    let default = Settings::defaults();
    assert_eq!(found(&default, &at("systemd"), &at("user")), at("systemd/wootz.sock"));
    let two = format!("{}:/other", at("systemd").display());
    assert_eq!(found(&default, Path::new(&two), &at("user")), at("systemd/wootz.sock"));
    assert_eq!(found(&default, Path::new(""), &at("user")), at("user/wootz.sock"));
    let here = std::env::current_dir().expect("there is one").join("wootz.sock");
    assert_eq!(found(&default, Path::new(""), &at("missing")), here);
    assert_eq!(control_socket(&default, &|_| None), here);
    let sources = Sources {
        file: FileChoice::None,
        variables: vec![("WOOTZ_CONTROL_SOCKET".into(), "/x/y".into())],
        ..Sources::default()
    };
    let written = Settings::load(&sources, &mut Problems::default());
    assert_eq!(found(&written, &at("systemd"), &at("user")), Path::new("/x/y"));
}
