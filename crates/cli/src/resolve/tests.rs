use std::ffi::OsString;
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::Duration;

use wootz_runner::exec::ExecSettings;
use wootz_runner::fastcgi::{FastCgiSettings, Reload, WorkerSettings};
use wootz_runner::http::HttpSettings;
use wootz_server::config::{
    AllowedOrigin, ForwardedHeader, Network, Notify, PortTaken, Provider, ProxyProtocol, ReplyMode,
};

use super::*;
use crate::settings::{FileChoice, Kind, Override, Sources, TABLE, Way, find};

/// The environment of the tests: a `PATH` and nothing else.
fn surroundings(name: &str) -> Option<OsString> {
    (name == "PATH").then(|| OsString::from("/usr/bin:/bin"))
}

/// Resolves these pairs of `--set`, with a command where neither they nor another runner need none.
fn resolve_pairs(pairs: &[&str]) -> (Option<Resolved>, String) {
    let is_given = |key: &str| pairs.iter().any(|pair| pair.starts_with(key));
    let command = (!is_given("application.command=") && !is_given("application.runner=")).then_some("cat");
    let sources = Sources { file: FileChoice::None, overrides: overrides(pairs, command), ..Sources::default() };
    resolve_sources(&sources)
}

fn overrides(pairs: &[&str], command: Option<&str>) -> Vec<Override> {
    let sets = pairs.iter().map(|pair| Override::Set((*pair).to_owned()));
    command.map(|program| Override::Command(vec![program.into()])).into_iter().chain(sets).collect()
}

fn resolve_sources(sources: &Sources) -> (Option<Resolved>, String) {
    let mut problems = Problems::default();
    let settings = Settings::load(sources, &mut problems);
    let resolved = resolve(&settings, Dev::No, &surroundings, &mut problems);
    (resolved, problems.to_string())
}

/// What these pairs give, without a problem.
fn fine(pairs: &[&str]) -> Resolved {
    let (resolved, problems) = resolve_pairs(pairs);
    assert_eq!(problems, "");
    resolved.expect("there is a runner where there is no problem")
}

fn fine_exec(pairs: &[&str]) -> (Config, ExecSettings) {
    let Resolved { config, runner, .. } = fine(pairs);
    let Runner::Exec(exec) = runner else { panic!("the default is exec, not {runner:?}") };
    (config, exec)
}

/// The pairs that make calls run in this way.
fn pairs_of(way: Way) -> &'static [&'static str] {
    match way {
        Way::FreshProcess => &["application.command=cat"],
        Way::FastCgiServer => &[
            "application.runner=fastcgi",
            "application.fastcgi.address=127.0.0.1:9000",
            "application.fastcgi.script=/index.php",
        ],
        Way::KeptWorkers => &["application.runner=fastcgi", "application.command=cat"],
        Way::HttpServer => &["application.runner=http", "application.http.url=http://127.0.0.1:8000/base"],
    }
}

#[test]
fn defaults_are_those_of_the_library() {
    // The provider depends on the machine: see the test of its default.
    let (config, exec) = fine_exec(&["identity.provider=none"]);
    let library = Config::default();
    let text = |config: &Config| {
        format!("{:?}{:?}{:?}{:?}{:?}", config.listen, config.identity, config.calls, config.limits, config.mode)
    };
    assert_eq!(text(&config), text(&library));
    let library = ExecSettings { command: vec!["cat".into()], ..ExecSettings::default() };
    assert_eq!(format!("{exec:?}"), format!("{library:?}"));
}

#[test]
fn defaults_of_the_servers_are_those_of_the_library() {
    let Runner::FastCgi(fastcgi) = fine(pairs_of(Way::FastCgiServer)).runner else { panic!("it is fastcgi") };
    let address = "127.0.0.1:9000".parse().expect("it is one");
    assert_eq!(format!("{fastcgi:?}"), format!("{:?}", FastCgiSettings::new(address, "/index.php")));
    let Runner::Workers(workers) = fine(pairs_of(Way::KeptWorkers)).runner else { panic!("it is workers") };
    let process = ExecSettings { command: vec!["cat".into()], ..ExecSettings::default() };
    let library = WorkerSettings { process, workers: workers.workers, ..WorkerSettings::default() };
    assert_eq!(format!("{workers:?}"), format!("{library:?}"));
    let Runner::Http(http) = fine(pairs_of(Way::HttpServer)).runner else { panic!("it is http") };
    let url = "http://127.0.0.1:8000/base".parse().expect("it is one");
    assert_eq!(format!("{http:?}"), format!("{:?}", HttpSettings::new(url)));
}

#[test]
fn every_setting_means_something_to_the_ways_that_it_is_for_and_to_no_other() {
    for way in [Way::FreshProcess, Way::FastCgiServer, Way::KeptWorkers, Way::HttpServer] {
        let sources =
            Sources { file: FileChoice::None, overrides: overrides(pairs_of(way), None), ..Sources::default() };
        let settings = Settings::load(&sources, &mut Problems::default());
        resolve(&settings, Dev::No, &surroundings, &mut Problems::default());
        for row in TABLE {
            let is_used = settings.used().contains(row.key);
            // Whether there is an address is what tells the ways of this runner apart.
            let tells_ways = row.key == "application.fastcgi.address" && way == Way::KeptWorkers;
            let is_for = row.only.is_empty() || row.only.contains(&way) || tells_ways;
            assert_eq!(is_used, is_for, "{} with {}", row.key, way.describe());
        }
    }
}

#[test]
fn every_choice_is_understood() {
    for row in TABLE.iter().filter(|row| row.key != "application.runner") {
        let Kind::Choice(words) = row.kind else { continue };
        for word in words.iter().filter(|word| **word != "jwt") {
            let provider = format!("identity.provider={}", row.provider.unwrap_or("none"));
            fine(&[&provider, &format!("{}={word}", row.key)]);
        }
    }
}

#[test]
fn listeners_proxies_and_limits_arrive_where_they_belong() {
    let (config, _) = fine_exec(&[
        "listen.address=[::1]:7,unix:w.ws,systemd",
        "listen.unix_mode=0666",
        "listen.unix_group=root",
        "listen.proxy_protocol=true",
        "listen.trusted_proxies=loopback,192.0.2.7,2001:db8::/32",
        "listen.forwarded_header=forwarded",
        "limits.max_connections=1",
        "limits.per_address=2",
        "limits.per_user=3",
        "limits.handshakes_per_second=4",
        "limits.handshake_burst=5",
        "limits.max_handshakes=6",
    ]);
    let listen = config.listen;
    let here = std::env::current_dir().expect("there is one").join("w.ws");
    let addresses: Vec<String> = listen.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["[::1]:7".to_owned(), format!("unix:{}", here.display()), "systemd".to_owned()]);
    assert_eq!((listen.unix_mode, listen.unix_group), (0o666, Some(0)));
    assert_eq!(listen.proxy_protocol, ProxyProtocol::Required);
    assert_eq!(listen.forwarded_header, ForwardedHeader::Forwarded);
    let written = ["192.0.2.7", "2001:db8::/32"].map(|network| network.parse().expect("a network"));
    assert_eq!(listen.trusted_proxies, [&Network::LOOPBACK[..], &written].concat());
    let limits = config.limits;
    assert_eq!([limits.max_connections, limits.per_address, limits.per_user, limits.max_handshakes], [1, 2, 3, 6]);
    assert_eq!([limits.handshakes_per_second, limits.handshake_burst], [4, 5]);
    let private = fine_exec(&["listen.trusted_proxies=private"]).0.listen.trusted_proxies;
    assert!(
        ["127.0.0.1", "10.1.2.3", "fd00::1"]
            .map(|ip| ip.parse().expect("one"))
            .into_iter()
            .all(|ip| private.iter().any(|network| network.contains(ip)))
    );
}

#[test]
fn proxies_that_are_none_and_sockets_that_cannot_be_are_refused() {
    for (pairs, problem) in [
        (
            &["listen.trusted_proxies=10.0.0.1/8"][..],
            "--set: listen.trusted_proxies has \"10.0.0.1/8\", which has bits behind its prefix; 10.0.0.0/8 is the whole network",
        ),
        (
            &["listen.trusted_proxies=nginx"],
            "--set: listen.trusted_proxies has \"nginx\", which is no address and no network such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            &["listen.proxy_protocol=true"],
            "--set: listen.proxy_protocol = true needs listen.trusted_proxies: a PROXY header is taken from nobody else, so nobody could connect",
        ),
        (&["listen.address=unix:/no/such/w.ws"], "--set: listen.address can't be made: /no/such is no directory"),
        (
            &["listen.unix_group=no such group"],
            "--set: listen.unix_group = \"no such group\": this machine has no such group",
        ),
    ] {
        assert_eq!(resolve_pairs(pairs).1, problem);
    }
    fine(&["listen.proxy_protocol=true", "listen.address=unix:/tmp/w.ws"]);
}

#[test]
fn sessions_are_the_default_where_php_keeps_some_and_nobody_is_told_apart_elsewhere() {
    let has_php = std::path::Path::new("/var/lib/php/sessions").is_dir();
    let (config, _) = fine_exec(&[]);
    assert_eq!(matches!(config.identity.provider, Provider::Session(_)), has_php);
    let here = tempfile::tempdir().expect("a temporary directory");
    let (config, _) = fine_exec(&[&format!("identity.session.store=files:{}", here.path().display())]);
    assert!(matches!(config.identity.provider, Provider::Session(_)), "a store that is named is used");
}

#[test]
fn settings_of_another_provider_are_mistakes_unless_overridden() {
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "a secret of more than thirty-two bytes").expect("ours");
    let key = format!("identity.jwt.keys=HS256:{}", secret.path().display());
    let (config, _) = fine_exec(&["identity.provider=jwt", &key]);
    assert!(matches!(config.identity.provider, Provider::Jwt(_)));
    let (_, problems) = resolve_pairs(&["identity.provider=jwt", &key, "identity.session.cookie=SID"]);
    assert!(problems.contains("identity.session.cookie does nothing with identity.provider = \"jwt\""), "{problems}");
    let (_, problems) = resolve_pairs(&["identity.provider=jwt"]);
    assert!(problems.contains("identity.jwt.keys") && problems.contains("no key"), "{problems}");
    let (_, problems) = resolve_pairs(&["identity.provider=jwt", "identity.jwt.keys=/no/such/key"]);
    assert!(problems.contains("/no/such/key"), "{problems}");
    let bad =
        ["identity.session.store=mongo://x", "identity.session.query=SELECT 1", "identity.session.user_keys=a..b"];
    let (_, problems) = resolve_pairs(&bad);
    for pair in bad {
        let (key, _) = pair.split_once('=').expect("a pair");
        assert!(problems.contains(key), "{key} in {problems}");
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let (config, exec) = fine_exec(&[
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
    let none = |pairs: &[&str]| fine(pairs).config.pipes.is_none();
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

#[test]
fn values_of_a_fastcgi_server_arrive() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("site.php");
    std::fs::write(&script, "<?php").expect("it can be written");
    let socket = directory.path().join("fpm.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("it can be made");
    let resolved = fine(&[
        "application.runner=fastcgi",
        &format!("application.fastcgi.address=unix:{}", socket.display()),
        &format!("application.directory={}", directory.path().display()),
        "application.fastcgi.script=site.php",
        "application.fastcgi.keep=2",
        "application.fastcgi.connect_timeout=1s",
        "application.fastcgi.first_byte_timeout=2s",
        "application.limits.timeout=3s",
        "application.limits.max_output=4KiB",
        "application.reply=stream",
        "application.environment=A=1",
    ]);
    assert!(resolved.warnings.is_empty(), "{}", resolved.warnings);
    let Runner::FastCgi(fastcgi) = resolved.runner else { panic!("it is fastcgi") };
    assert_eq!(fastcgi.address.to_string(), format!("unix:{}", socket.display()));
    assert_eq!((fastcgi.script, fastcgi.keep), (script, 2));
    let times = [fastcgi.connect_timeout, fastcgi.first_byte_timeout, fastcgi.timeout];
    assert_eq!(times.map(|time| time.as_secs()), [1, 2, 3]);
    assert_eq!((fastcgi.max_output_bytes, fastcgi.reply), (4096, ReplyMode::Stream));
    assert_eq!(fastcgi.environment, [("A".to_owned(), "1".to_owned())]);
}

#[test]
fn values_of_kept_workers_arrive() {
    let Runner::Workers(workers) = fine(&[
        "application.runner=fastcgi",
        "application.command=cat -",
        "application.fastcgi.script=/etc/passwd",
        "application.fastcgi.workers=3",
        "application.fastcgi.max_calls=5",
        "application.fastcgi.max_idle=6s",
        "application.fastcgi.max_memory=7MiB",
        "application.fastcgi.connect_timeout=1s",
        "application.fastcgi.first_byte_timeout=2s",
        "application.limits.timeout=3s",
        "application.limits.memory=1GiB",
        "application.environment=A=1",
        "application.reply=lines",
    ])
    .runner
    else {
        panic!("it is workers")
    };
    assert_eq!(workers.process.command, ["cat", "-"]);
    assert_eq!(workers.process.environment, [("A".into(), "1".into())]);
    assert_eq!((workers.process.reply, workers.process.limits.memory_bytes), (ReplyMode::Lines, Some(1 << 30)));
    assert_eq!(workers.script.as_deref(), Some(Path::new("/etc/passwd")));
    assert_eq!(workers.parameters, [("A".to_owned(), "1".to_owned())]);
    assert_eq!((workers.workers, workers.max_calls, workers.max_memory_bytes), (3, 5, 7 << 20));
    let times = [workers.connect_timeout, workers.first_byte_timeout, workers.process.timeout, workers.max_idle];
    assert_eq!(times.map(|time| time.as_secs()), [1, 2, 3, 6]);
    assert_eq!(workers.reload, Reload::Never);
}

#[test]
fn workers_are_one_per_core_and_at_least_two_and_reloaded_in_development() {
    let pairs = ["application.runner=fastcgi"];
    let sources = Sources { file: FileChoice::None, overrides: overrides(&pairs, Some("cat")), ..Sources::default() };
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    let resolved = resolve(&settings, Dev::Yes, &surroundings, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    let Some(Runner::Workers(workers)) = resolved.map(|resolved| resolved.runner) else { panic!("it is workers") };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    assert_eq!((workers.workers, workers.script, workers.reload), (cores.max(2), None, Reload::OnChange));
}

#[test]
fn values_of_an_http_server_arrive() {
    let Runner::Http(http) = fine(&[
        "application.runner=http",
        "application.http.url=http://localhost:8000",
        "application.http.keep=0",
        "application.http.connect_timeout=1s",
        "application.http.first_byte_timeout=2s",
        "application.limits.timeout=3s",
        "application.limits.max_output=4KiB",
        "application.reply=lines",
    ])
    .runner
    else {
        panic!("it is http")
    };
    assert_eq!((http.url.to_string().as_str(), http.keep), ("http://localhost:8000", 0));
    let times = [http.connect_timeout, http.first_byte_timeout, http.timeout];
    assert_eq!(times.map(|time| time.as_secs()), [1, 2, 3]);
    assert_eq!((http.max_output_bytes, http.reply), (4096, ReplyMode::Lines));
}

#[test]
fn mistakes_about_servers_are_told_with_their_key_and_a_remedy() {
    const FASTCGI: &str = "application.runner=fastcgi";
    const ADDRESS: &str = "application.fastcgi.address=127.0.0.1:9000";
    let cases: &[(&[&str], &str)] = &[
        (&[FASTCGI], r#"--set: application.runner = "fastcgi" needs application.fastcgi.address or a command; try: "#),
        (
            &[FASTCGI, ADDRESS],
            r#"application.runner = "fastcgi" needs application.fastcgi.script, the file that answers; try: "#,
        ),
        (
            &[FASTCGI, "application.fastcgi.address=localhost", "application.fastcgi.script=/x"],
            r#"application.fastcgi.address = "localhost" has no port"#,
        ),
        (
            &[FASTCGI, "application.fastcgi.address=unix:/no/such", "application.fastcgi.script=/no/such.php"],
            r#"application.fastcgi.script = "/no/such.php" does not exist"#,
        ),
        (
            &[FASTCGI, "application.fastcgi.address=unix:/no/such", "application.fastcgi.script=/etc"],
            r#"application.fastcgi.script = "/etc" is not a file"#,
        ),
        (
            &[
                FASTCGI,
                "application.fastcgi.address=unix:/no/such",
                "application.directory=/etc",
                "application.fastcgi.script=no.php",
            ],
            r#"application.fastcgi.script = "/etc/no.php" does not exist"#,
        ),
        (
            &["application.runner=http"],
            r#"application.runner = "http" needs application.http.url; try: wootz serve --http "#,
        ),
        (
            &[FASTCGI, "application.command=no-such-program"],
            "application.command can't run: no-such-program is in no directory of PATH",
        ),
        (
            &[FASTCGI, "application.command=cat", "application.fastcgi.script=/no/such.php"],
            r#"application.fastcgi.script = "/no/such.php" does not exist"#,
        ),
        (&[FASTCGI, "application.command=cat", "application.fastcgi.workers=5000"], "workers is at most 4096"),
        (
            &[FASTCGI, "application.command=cat", "application.fastcgi.keep=1"],
            r#"application.fastcgi.keep does nothing with runner = "fastcgi" with a command (--set)"#,
        ),
        (
            &["application.runner=http", "application.http.url=https://a"],
            r#"application.http.url = "https://a": https is not spoken"#,
        ),
        (
            &["application.runner=http", "application.http.url=a:80"],
            r#"application.http.url = "a:80": "a:80" is no address of an HTTP server"#,
        ),
        (
            &["application.fastcgi.script=/etc/passwd"],
            r#"--set: application.fastcgi.script does nothing with runner = "exec" (default); it is for runner = "fastcgi""#,
        ),
        (
            &[FASTCGI, ADDRESS, "application.fastcgi.workers=2"],
            r#"application.fastcgi.workers does nothing with runner = "fastcgi" with an address (--set); it is for runner = "fastcgi" with a command"#,
        ),
        (
            &[FASTCGI, ADDRESS, "application.limits.memory=1GiB"],
            r#"application.limits.memory does nothing with runner = "fastcgi" with an address (--set); it is for runner = "exec" and runner = "fastcgi" with a command"#,
        ),
        (
            &[FASTCGI, ADDRESS, "application.command=cat"],
            "application.command would never run: calls go to application.fastcgi.address (--set); take one of the two away",
        ),
        (
            &["application.runner=http", "application.directory=/etc"],
            r#"application.directory does nothing with runner = "http" (--set); it is for runner = "exec" and runner = "fastcgi""#,
        ),
    ];
    for (pairs, problem) in cases {
        let (_, problems) = resolve_pairs(pairs);
        let told = problems.lines().any(|line| line.contains(problem));
        assert!(told, "{pairs:?}: {problems}");
    }
}

#[test]
fn unknown_runner_is_reported_alone() {
    let (_, problems) = resolve_pairs(&["application.runner=php", "application.fastcgi.script=/x"]);
    assert_eq!(problems, r#"--set: application.runner is "exec", "fastcgi" or "http", not "php""#);
}

#[test]
fn value_that_is_the_default_harms_no_other_runner() {
    fine(&["application.fastcgi.max_calls=1000", "application.http.keep=8", "application.fastcgi.address="]);
}

/// What the flags say of a file with these lines.
fn flags_over_file(file: &str, flags: &[(&str, &str)], command: Option<&str>) -> (Option<Resolved>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("wootz.toml");
    std::fs::write(&path, file).expect("it can be written");
    let flag = |(key, text): &(&str, &str)| Override::Flag { row: find(key).expect("a key"), text: (*text).to_owned() };
    let flags = flags.iter().map(flag).chain(overrides(&[], command)).collect();
    let sources = Sources { file: FileChoice::Named(path.clone()), overrides: flags, ..Sources::default() };
    let (resolved, problems) = resolve_sources(&sources);
    (resolved, problems.replace(&path.display().to_string(), "wootz.toml"))
}

#[test]
fn flag_of_a_runner_asks_for_it_and_overrides_the_file() {
    let file = "[application]\nrunner = \"exec\"\ncommand = [\"cat\"]\n";
    let (resolved, problems) = flags_over_file(file, &[("application.http.url", "http://127.0.0.1:8000")], None);
    assert_eq!(problems, "");
    assert!(matches!(resolved.expect("it is fine").runner, Runner::Http(_)));
    let flags = [("application.fastcgi.address", "127.0.0.1:9000"), ("application.fastcgi.script", "/x.php")];
    let (resolved, problems) = flags_over_file(file, &flags, None);
    assert_eq!(problems, "");
    assert!(matches!(resolved.expect("it is fine").runner, Runner::FastCgi(_)));
}

#[test]
fn flags_that_contradict_each_other_are_both_named() {
    let http = ("application.http.url", "http://127.0.0.1:8000");
    let address = ("application.fastcgi.address", "127.0.0.1:9000");
    let script = ("application.fastcgi.script", "/x.php");
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, &'a str);
    let cases: &[Case<'_>] = &[
        (
            &[("application.runner", "http"), http, address],
            None,
            r#"--fastcgi: application.fastcgi.address does nothing with runner = "http" (--runner); it is for runner = "fastcgi" with an address"#,
        ),
        (
            &[address, script, http],
            None,
            r#"--http: application.http.url does nothing with runner = "fastcgi" with an address (--fastcgi); it is for runner = "http""#,
        ),
        (
            &[address, script],
            Some("cat"),
            "--: application.command would never run: calls go to application.fastcgi.address (--fastcgi); take one of the two away",
        ),
        (
            &[http],
            Some("cat"),
            r#"--: application.command does nothing with runner = "http" (--http); it is for runner = "exec" and runner = "fastcgi" with a command"#,
        ),
    ];
    for (flags, command, problem) in cases {
        assert_eq!(flags_over_file("", flags, *command).1, *problem);
    }
}

#[test]
fn keys_of_another_runner_in_the_file_are_told_with_their_lines() {
    let file = "[application]\nrunner = \"http\"\ncommand = [\"cat\"]\n[application.fastcgi]\nkeep = 2\n[application.http]\nurl = \"http://a\"\n";
    assert_eq!(
        flags_over_file(file, &[], None).1,
        r#"wootz.toml:3: application.command does nothing with runner = "http" (wootz.toml:2); it is for runner = "exec" and runner = "fastcgi" with a command
wootz.toml:5: application.fastcgi.keep does nothing with runner = "http" (wootz.toml:2); it is for runner = "fastcgi" with an address"#
    );
}

#[test]
fn server_that_may_be_started_later_is_a_warning() {
    let warnings = |pairs: &[&str]| fine(pairs).warnings.to_string();
    assert_eq!(
        warnings(&["application.runner=http", "application.http.url=unix:/no/such.sock"]),
        r#"--set: application.http.url = "unix:/no/such.sock" is not there yet: is its server running?"#
    );
    let script = format!("application.fastcgi.script={}", file!());
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    let directory = format!("application.directory={}", here.display());
    let at = |address: &str| {
        let address = format!("application.fastcgi.address={address}");
        warnings(&["application.runner=fastcgi", &directory, &script, &address])
    };
    assert_eq!(at("unix:/etc/passwd"), r#"--set: application.fastcgi.address = "unix:/etc/passwd" is no socket"#);
    assert_eq!(at("127.0.0.1:9000"), "");
    let elsewhere = fine(pairs_of(Way::FastCgiServer)).warnings.to_string();
    assert!(
        elsewhere.starts_with(r#"--set: application.fastcgi.script = "/index.php" does not exist here"#),
        "{elsewhere}"
    );
}
