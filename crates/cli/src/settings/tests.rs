use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use toml_edit::Item;

use super::render::reference_page;
use super::*;
use crate::problem::{Origin, Problems};

fn from_text(text: &str) -> (Settings, String) {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written");
    let sources = Sources { file: FileChoice::Named(file.path().to_owned()), ..Sources::default() };
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    (settings, problems.to_string().replace(&file.path().display().to_string(), "wootz.toml"))
}

fn from_variables(variables: &[(&str, &str)]) -> (Settings, String) {
    let variables = variables.iter().map(|(name, text)| (name.into(), text.into())).collect();
    load(Sources { file: FileChoice::None, variables, ..Sources::default() })
}

fn from_set(pair: &str) -> (Settings, String) {
    load(Sources { file: FileChoice::None, overrides: vec![Override::Set(pair.to_owned())], ..Sources::default() })
}

fn load(sources: Sources) -> (Settings, String) {
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    (settings, problems.to_string())
}

/// A value of the kind that is not the default, as it would stand in the file.
fn another(row: &Row) -> String {
    match row.kind {
        Kind::Bool => (row.default == "false").to_string(),
        Kind::Count(_) => "77".to_owned(),
        Kind::Duration(_) => r#""77s""#.to_owned(),
        Kind::Size(_) => r#""77KiB""#.to_owned(),
        Kind::Text | Kind::Path => r#""/a \"b\" \\ é""#.to_owned(),
        Kind::Choice(words) => format!("{:?}", words.last().expect("a choice has words")),
        Kind::List(_) | Kind::Command => r#"["x", "y z"]"#.to_owned(),
        Kind::Files => r#"["/x", "/y z"]"#.to_owned(),
        Kind::Map => r#"{ A = "1", "b.c" = "2 = 3" }"#.to_owned(),
        Kind::Mode => r#""0600""#.to_owned(),
        Kind::Addresses => r#"["[::1]:7", "plain:127.0.0.1:8", "unix:/a \"b\".ws", "systemd"]"#.to_owned(),
    }
}

#[test]
fn every_default_is_of_its_own_kind() {
    let settings = Settings::defaults();
    for row in TABLE {
        assert_eq!(settings.origin(row.key), &Origin::Default, "{}", row.key);
    }
}

#[test]
fn every_row_is_in_a_known_section_and_has_a_key_a_variable_and_a_flag_of_its_own() {
    let unique = |names: Vec<String>| assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    unique(TABLE.iter().map(|row| row.key.to_owned()).collect());
    unique(TABLE.iter().map(Row::variable).collect());
    unique(TABLE.iter().filter_map(|row| row.flag).map(|flag| flag.name.to_owned()).collect());
    for row in TABLE {
        let section = row.section_and_name().0;
        assert!(SECTIONS.iter().any(|(name, _)| *name == section), "{} is in no section", row.key);
        assert!(!row.help.ends_with('.') && row.why.ends_with('.'), "{}: help is a phrase, why is a sentence", row.key);
    }
}

#[test]
fn every_setting_can_be_written_in_the_file_and_read_back_from_the_effective_one() {
    for row in TABLE {
        let (section, name) = row.section_and_name();
        let (settings, problems) = from_text(&format!("[{section}]\n{name} = {}\n", another(row)));
        assert_eq!(problems, "", "{}", row.key);
        let (value, origin) = settings.entry(row.key);
        assert!(matches!(origin, Origin::File { line: Some(2), .. }), "{}: {origin}", row.key);
        let expected = row.kind.read_toml(&another(row).parse().map(Item::Value).expect("it is TOML"));
        assert_eq!(Ok(value), expected.as_ref(), "{}", row.key);

        let (again, problems) = from_text(&effective_file(&settings));
        assert_eq!(problems, "", "{}", row.key);
        if row.secret != Secret::Texts {
            assert_eq!(&again.entry(row.key).0, value, "{}", row.key);
        }
    }
}

#[test]
fn every_setting_can_be_written_in_its_variable_and_with_set() {
    for row in TABLE {
        let toml = another(row);
        let text = match toml.parse::<toml_edit::Value>().expect("it is TOML") {
            toml_edit::Value::String(text) => text.into_value(),
            _ => toml,
        };
        let (by_variable, problems) = from_variables(&[(&row.variable(), &text)]);
        assert_eq!(problems, "", "{}", row.key);
        assert_eq!(by_variable.origin(row.key), &Origin::Variable(row.variable()));
        let expected = row.kind.read_toml(&another(row).parse().map(Item::Value).expect("it is TOML"));
        assert_eq!(Ok(&by_variable.entry(row.key).0), expected.as_ref(), "{}", row.key);

        let (by_set, problems) = from_set(&format!("{}={text}", row.key));
        assert_eq!(problems, "", "{}", row.key);
        assert_eq!(by_set.entry(row.key).0, by_variable.entry(row.key).0);
    }
}

#[test]
fn default_file_with_its_lines_switched_on_holds_the_defaults() {
    let file = default_file();
    let switched_on: Vec<&str> =
        file.lines().map(|line| if line.starts_with("# ") { line } else { line.trim_start_matches('#') }).collect();
    let (settings, problems) = from_text(&switched_on.join("\n"));
    assert_eq!(problems, "");
    for row in TABLE {
        let (value, origin) = settings.entry(row.key);
        assert!(matches!(origin, Origin::File { .. }), "{} is not in the default file", row.key);
        assert_eq!(value, &Settings::defaults().entry(row.key).0, "{}", row.key);
    }
}

#[test]
fn default_file_changes_nothing_as_it_is() {
    let (settings, problems) = from_text(&default_file());
    assert_eq!(problems, "");
    assert!(TABLE.iter().all(|row| settings.origin(row.key) == &Origin::Default));
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("some.toml");
    let all = "[limits]\nmax_message = \"1KiB\"\nmax_head = \"1KiB\"\noutbox = \"1KiB\"\n";
    std::fs::write(&path, all).expect("it can be written");
    let set = |key: &str| Override::Set(format!("{key}=3KiB"));
    let (settings, problems) = load(Sources {
        file: FileChoice::Named(path),
        variables: vec![("WOOTZ_LIMITS_MAX_HEAD".into(), "2KiB".into()), ("WOOTZ_LIMITS_OUTBOX".into(), "2KiB".into())],
        overrides: vec![set("limits.outbox")],
        dev: load::Dev::No,
    });
    assert_eq!(problems, "");
    let sizes =
        ["pipes.max_record", "limits.max_message", "limits.max_head", "limits.outbox"].map(|key| settings.size(key));
    assert_eq!(sizes, [1 << 20, 1 << 10, 2 << 10, 3 << 10]);
}

#[test]
fn own_flag_wins_over_set_and_the_command_after_the_dashes_over_both() {
    let listen = find("listen.address").expect("a row");
    let (settings, problems) = load(Sources {
        file: FileChoice::None,
        overrides: vec![
            Override::Set("listen.address=127.0.0.1:1".to_owned()),
            Override::Set("application.command=one".to_owned()),
            Override::Flag { row: listen, text: "localhost:2".to_owned() },
            Override::Command(vec!["two".into(), "a b".into()]),
        ],
        ..Sources::default()
    });
    assert_eq!(problems, "");
    assert_eq!(settings.addresses("listen.address")[0].to_string(), "127.0.0.1:2");
    assert_eq!(settings.list("application.command"), ["two", "a b"]);
}

#[test]
fn addresses_are_one_or_a_list_in_every_source() {
    let written = |text: &str| {
        let (settings, problems) = from_set(&format!("listen.address={text}"));
        assert_eq!(problems, "", "{text}");
        settings.addresses("listen.address").iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(written("[::1]:7"), ["[::1]:7"]);
    assert_eq!(written("localhost:7, unix:/run/w.ws ,systemd"), ["127.0.0.1:7", "unix:/run/w.ws", "systemd"]);
    assert_eq!(written(r#"["[::1]:7", "unix:/a,b"]"#), ["[::1]:7", "unix:/a,b"]);
    assert_eq!(written("127.0.0.1:0,127.0.0.1:0"), ["127.0.0.1:0", "127.0.0.1:0"]);
    assert_eq!(from_text("[listen]\naddress = [\"0.0.0.0:1\", \"[::]:1\"]").1, "");
}

#[test]
fn dev_logs_more_unless_told_otherwise() {
    let dev =
        |overrides| load(Sources { file: FileChoice::None, overrides, dev: load::Dev::Yes, ..Sources::default() }).0;
    assert_eq!(dev(vec![]).text("log.level"), "debug");
    assert_eq!(dev(vec![Override::Set("log.level=warn".to_owned())]).text("log.level"), "warn");
}

#[test]
fn five_mistakes_are_five_lines_each_with_its_line_number() {
    let text = "[listen]\naddress = \"here\"\n\n[limits]\nmax_mesage = \"1MiB\"\nmax_frames = \"many\"\nping_interval = 25\n\n[log]\nlevel = \"loud\"\n";
    let (_, problems) = from_text(text);
    assert_eq!(
        problems,
        r#"wootz.toml:2: listen.address is an IP address with a port such as "127.0.0.1:8888", "unix:/path", "systemd", or a list of these, not "here"
wootz.toml:5: limits.max_mesage is not a setting; did you mean limits.max_message?
wootz.toml:6: limits.max_frames is a whole number, not "many"
wootz.toml:7: limits.ping_interval is a duration such as "500ms", "10s", "2m" or "1h", not 25
wootz.toml:10: log.level is "error", "warn", "info", "debug" or "trace", not "loud""#
    );
}

#[test]
fn mistakes_are_explained() {
    let cases = [
        ("[limts]\noutbox = 1", "1: [limts] is not a section; did you mean [limits]?"),
        ("[log]\nmax_message = 1", "2: log.max_message is not a setting; did you mean limits.max_message?"),
        ("[log]\nzzz = 1", "2: log.zzz is not a setting"),
        ("level = 1", "1: level is not a setting; did you mean log.level?"),
        ("limits = 1", "1: limits is a section: write [limits] on a line of its own"),
        ("[[listen]]\npath = \"/\"", "1: listen is a section: write [listen] on a line of its own"),
        ("[cluster]\nurl = \"x\"", "1: [cluster] is not supported by this version"),
        (
            "[identity]\nprovider = \"ldap\"",
            "2: identity.provider is \"session\", \"application\", \"jwt\" or \"none\", not \"ldap\"",
        ),
        ("[application]\nrunner = \"cgi\"", "2: application.runner is \"exec\", \"fastcgi\" or \"http\", not \"cgi\""),
        (
            "[application.fastcgi]\nadress = \"x\"",
            "2: application.fastcgi.adress is not a setting; did you mean application.fastcgi.address?",
        ),
        (
            "[application]\ncommand = \"php x\"",
            "2: application.command is a list such as [\"php\", \"index.php\"], not \"php x\"",
        ),
        (
            "[application]\ncommand = [1]",
            "2: application.command is a list such as [\"php\", \"index.php\"], not a list with other things in it",
        ),
        (
            "[application.environment]\nKEY = 1",
            "1: application.environment is a table of texts such as { APP_ENV = \"production\" }, not a table with other things in it",
        ),
        ("[application.limits]\nper_user = 0", "2: application.limits.per_user is at least 1"),
        ("[application.limits]\nper_user = -1", "2: application.limits.per_user is a whole number, not -1"),
        ("[limits]\noutbox = 0", "2: limits.outbox is at least 1 byte"),
        (
            "[limits]\noutbox = \"1MB\"",
            "2: limits.outbox is a size such as \"64KiB\", \"1MiB\" or a number of bytes, not \"1MB\"",
        ),
        ("[limits]\npong_timeout = 0", "2: limits.pong_timeout is longer than 0"),
        ("[limits]\npong_timeout = \"9999999h\"", "2: limits.pong_timeout is at most a year (8760h)"),
        ("[pipes]\nmode = \"0999\"", "2: pipes.mode is permission bits such as \"0660\", not \"0999\""),
        ("[pipes]\nmode = 660", "2: pipes.mode is permission bits such as \"0660\", not 660"),
        (
            "[listen]\naddress = \"9000\"",
            "2: listen.address needs an address too: 127.0.0.1:9000 for this machine only, 0.0.0.0:9000 for all",
        ),
        ("[listen]\naddress = \"unix:\"", "2: listen.address has a unix: without a path: unix:/run/wootz.ws"),
        (
            "[listen]\naddress = [\"a\"]",
            "2: listen.address is an IP address with a port such as \"127.0.0.1:8888\", \"unix:/path\", \"systemd\", or a list of these, not \"a\"",
        ),
        (
            "[listen]\naddress = []",
            "2: listen.address is an IP address with a port such as \"127.0.0.1:8888\", \"unix:/path\", \"systemd\", or a list of these, not an empty list",
        ),
        (
            "[listen]\naddress = [1]",
            "2: listen.address is an IP address with a port such as \"127.0.0.1:8888\", \"unix:/path\", \"systemd\", or a list of these, not a list with other things in it",
        ),
        ("[listen]\naddress = [\"[::1]:1\", \"systemd\", \"[::1]:1\"]", "2: listen.address has \"[::1]:1\" twice"),
        (
            "[listen]\naddress = [\"127.0.0.1:1\", \"plain:127.0.0.1:1\"]",
            "2: listen.address has \"plain:127.0.0.1:1\" twice",
        ),
        (
            "[listen]\naddress = \"plain:unix:/a\"",
            "2: listen.address has \"plain:unix:/a\": plain: is for an IP address with a port",
        ),
        ("[tls]\ncert = 1", "2: tls.cert is a path, or a list of paths, not 1"),
        ("[listen]\npath = 1979-05-27", "2: listen.path is a text, not a date"),
        ("[listen]\npath = \"a\\u0000b\"", "2: listen.path can't hold the character U+0000"),
    ];
    for (text, problem) in cases {
        let (_, problems) = from_text(text);
        assert_eq!(problems, format!("wootz.toml:{problem}"), "{text}");
    }
}

#[test]
fn torn_toml_is_reported_with_its_line() {
    for (text, line) in
        [("[limits]\n\nmax_message = \n", 3), ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", 3), ("[log\n", 1)]
    {
        let (_, problems) = from_text(text);
        assert!(problems.starts_with(&format!("wootz.toml:{line}: is not valid TOML: ")), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}

#[test]
fn keys_may_be_dotted_and_tables_inline() {
    let (settings, problems) =
        from_text("limits.max_frames = 7\nlog = { level = \"warn\" }\n[application]\nlimits.per_user = 9\n");
    assert_eq!(problems, "");
    assert_eq!((settings.count("limits.max_frames"), settings.text("log.level")), (7, "warn"));
    assert_eq!(settings.count("application.limits.per_user"), 9);
}

#[test]
fn environment_may_be_a_section_of_its_own() {
    let (settings, problems) = from_text("[application.environment]\nAPP_ENV = \"dev\"\n");
    assert_eq!(problems, "");
    assert_eq!(settings.map("application.environment"), [("APP_ENV".to_owned(), "dev".to_owned())]);
}

#[test]
fn variables_and_flags_report_under_their_own_names() {
    let (_, problems) = from_variables(&[
        ("WOOTZ_LIMITS_MAX_MESAGE", "1"),
        ("WOOTZ_LISTEN_SHARDS", "two"),
        ("WOOTZ_CLUSTER_URL", "x"),
        ("WOOTZ_EVENT", "message"),
        ("WOOTZ_CONTROL", "/run/wootz.sock"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(
        problems,
        "WOOTZ_CLUSTER_URL: is not supported by this version\n\
         WOOTZ_LIMITS_MAX_MESAGE: is not a setting; did you mean WOOTZ_LIMITS_MAX_MESSAGE?\n\
         WOOTZ_LISTEN_SHARDS: listen.shards is a whole number, not \"two\""
    );
    assert_eq!(from_set("limits.outbox").1, "--set: limits.outbox needs a value: --set limits.outbox=VALUE");
    assert_eq!(from_set("limit.outbox=1").1, "--set: limit.outbox is not a setting; did you mean limits.outbox?");
    assert_eq!(from_set("log.format=xml").1, "--set: log.format is \"text\" or \"json\", not \"xml\"");
}

#[test]
fn lists_commands_and_tables_can_be_written_as_plain_text() {
    let list = |pair: &str, key: &str| from_set(pair).0.list(key).to_vec();
    assert_eq!(list("application.events=connect, disconnect", "application.events"), ["connect", "disconnect"]);
    assert_eq!(list("application.events=", "application.events"), [""; 0]);
    assert_eq!(list("application.command=php index.php  -v", "application.command"), ["php", "index.php", "-v"]);
    assert_eq!(list(r#"application.command=["a b"]"#, "application.command"), ["a b"]);
    assert_eq!(
        from_set("application.command=sh -c 'a b'").1,
        r#"--set: application.command with quotes has to be a list: ["program", "its first argument"]"#
    );
    let pairs = from_set("application.environment=A=1,B=x=y").0.map("application.environment").to_vec();
    assert_eq!(pairs, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x=y".to_owned())]);
}

#[test]
fn values_have_units() {
    let duration =
        |text: &str| from_set(&format!("limits.drain_timeout={text}")).0.duration("limits.drain_timeout").as_millis();
    assert_eq!(["500ms", "10s", "2m", "1h", "0", ""].map(duration), [500, 10_000, 120_000, 3_600_000, 0, 0]);
    let size = |text: &str| from_set(&format!("application.limits.memory={text}")).0.size("application.limits.memory");
    assert_eq!(["1000", "64KiB", "1MiB", "2GiB", "0", "", "7B"].map(size), [1000, 65_536, 1 << 20, 2 << 30, 0, 0, 7]);
    for wrong in ["s", "10", "1.5s", "-1s", "10 years", "18446744073709551615h"] {
        assert_ne!(from_set(&format!("limits.drain_timeout={wrong}")).1, "", "{wrong}");
    }
    assert_ne!(from_set("limits.outbox=99999999999GiB").1, "");
}

#[test]
fn broken_value_keeps_the_one_below_it_and_is_remembered() {
    let (settings, _) = from_text("[log]\nlevel = \"loud\"\n");
    assert_eq!(settings.text("log.level"), "info");
    assert!(settings.is_broken("log.level"));
    assert!(!settings.is_broken("log.format"));
}

#[test]
fn named_file_has_to_exist_and_to_be_readable() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing.toml");
    let problems = |path: PathBuf| load(Sources { file: FileChoice::Named(path), ..Sources::default() }).1;
    assert_eq!(problems(missing.clone()), format!("{}: there is no such file", missing.display()));
    let text = problems(directory.path().to_owned());
    assert!(text.contains("can't be read"), "{text}");
    let latin = directory.path().join("latin.toml");
    std::fs::write(&latin, b"# caf\xe9\n").expect("it can be written");
    assert!(problems(latin).contains("can't be read"));
}

#[test]
fn reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is old: UPDATE_DOCS=1 cargo test -p wootz reference_page");
}

#[test]
fn flag_of_a_runner_asks_for_it_unless_another_flag_names_one() {
    let flag = |key: &str, text: &str| Override::Flag { row: find(key).expect("a row"), text: text.to_owned() };
    let runner = |overrides| {
        let variables = vec![("WOOTZ_APPLICATION_RUNNER".into(), "exec".into())];
        let (settings, problems) = load(Sources { file: FileChoice::None, overrides, variables, ..Sources::default() });
        assert_eq!(problems, "");
        format!("{} by {}", settings.text("application.runner"), settings.origin("application.runner"))
    };
    assert_eq!(runner(vec![]), "exec by WOOTZ_APPLICATION_RUNNER");
    assert_eq!(runner(vec![flag("application.fastcgi.address", "x")]), "fastcgi by --fastcgi");
    assert_eq!(runner(vec![flag("application.fastcgi.script", "x")]), "fastcgi by --script");
    assert_eq!(runner(vec![flag("application.http.url", "x")]), "http by --http");
    let named = vec![flag("application.runner", "exec"), flag("application.http.url", "x")];
    assert_eq!(runner(named), "exec by --runner");
    assert_eq!(runner(vec![Override::Set("application.http.url=x".to_owned())]), "exec by WOOTZ_APPLICATION_RUNNER");
}
