//! A message becomes a call: what the application is given, what becomes of what it prints, and the bounds.

mod support;

use std::collections::BTreeMap;

use support::client::Client;
use support::raw::{Raw, frame, text};
use support::{Setup, Wootz, process, wait_until};

/// An application that prints its environment, and nothing else.
fn environment() -> Setup {
    Setup::command(&["/usr/bin/env"])
}

fn variables(printed: &str) -> BTreeMap<String, String> {
    let pairs = printed.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Asserts what a call was given; `None` is a variable that must not be there.
fn assert_given(given: &BTreeMap<String, String>, expected: &[(&str, Option<&str>)]) {
    for (name, value) in expected {
        assert_eq!(given.get(*name).map(String::as_str), *value, "{name} in {given:#?}");
    }
}

#[test]
fn call_is_given_the_variables_of_cgi() {
    let wootz = environment().variable("SECRET_OF_THE_SERVER", "x").variable("TZ", "Europe/Vienna").start();
    let fields = [
        ("Cookie", "PHPSESSID=abc; theme=dark"),
        ("X-Custom", "1"),
        ("X-Custom", "2"),
        ("Proxy", "http://evil.example"),
        ("User-Agent", "Test/1.0"),
    ];
    let mut client = Client::connect(wootz.address(), "/start?from=page", &fields);
    let port = client.port().to_string();
    let server_port = wootz.port().to_string();
    let given = variables(&client.ask("/cart/items?x=1&y=%20"));
    assert_given(
        &given,
        &[
            ("REQUEST_URI", Some("/cart/items?x=1&y=%20")),
            ("PATH_INFO", Some("/cart/items")),
            ("QUERY_STRING", Some("x=1&y=%20")),
            ("REQUEST_METHOD", Some("GET")),
            ("CONTENT_LENGTH", Some("21")),
            ("CONTENT_TYPE", Some("text/plain; charset=utf-8")),
            ("REMOTE_USER", None),
            ("REMOTE_ADDR", Some("127.0.0.1")),
            ("REMOTE_PORT", Some(&port)),
            ("SERVER_NAME", Some("127.0.0.1")),
            ("SERVER_PORT", Some(&server_port)),
            ("SERVER_PROTOCOL", Some("HTTP/1.1")),
            ("GATEWAY_INTERFACE", Some("CGI/1.1")),
            ("HTTPS", None),
            ("HTTP_COOKIE", Some("PHPSESSID=abc; theme=dark")),
            ("HTTP_X_CUSTOM", Some("1, 2")),
            ("HTTP_USER_AGENT", Some("Test/1.0")),
            ("HTTP_PROXY", None),
            ("WOOTZ_EVENT", Some("message")),
            ("SECRET_OF_THE_SERVER", None),
            ("TZ", Some("Europe/Vienna")),
        ],
    );
    assert!(given["SERVER_SOFTWARE"].starts_with("wootz"), "{given:#?}");
    assert!(given.contains_key("PATH") && given.contains_key("HTTP_HOST"), "{given:#?}");
    let connection = &given["WOOTZ_CONNECTION"];
    assert!(connection.len() == 32 && connection.bytes().all(|byte| byte.is_ascii_hexdigit()), "{connection}");
    assert_eq!(&variables(&client.ask("/again"))["WOOTZ_CONNECTION"], connection);
    assert_ne!(&variables(&wootz.connect().ask("/other"))["WOOTZ_CONNECTION"], connection);
    let control = wootz.path(&given["WOOTZ_CONTROL"]);
    assert!(control.is_absolute() && control.exists(), "{}", control.display());
    assert!(given["WOOTZ_CONTROL"].starts_with('/'), "a call may be in another directory");
}

#[test]
fn text_without_white_space_is_the_uri_and_everything_else_is_a_body() {
    let wootz = environment().start();
    let mut client = Client::connect(wootz.address(), "/start?from=page", &[]);
    let long = format!("/{}", "a".repeat(8 * 1024 - 1));
    for (message, path, query) in [
        ("/cart?x=1", "/cart", "x=1"),
        ("echo/abc", "echo/abc", ""),
        ("?only=query", "", "only=query"),
        ("/twice?a=b?c=d", "/twice", "a=b?c=d"),
        ("/%2e%2e/a%00", "/%2e%2e/a%00", ""),
        ("/stra\u{df}e", "/stra\u{df}e", ""),
        (&long, &long, ""),
    ] {
        let given = variables(&client.ask(message));
        let method = ("REQUEST_METHOD", Some("GET"));
        assert_given(
            &given,
            &[("REQUEST_URI", Some(message)), ("PATH_INFO", Some(path)), ("QUERY_STRING", Some(query)), method],
        );
    }
    let over = format!("{long}a");
    for message in [
        "two words",
        " /space",
        "/tab\t",
        "/line\n",
        "/\u{1}",
        "/\u{85}",
        "/\u{a0}no-break",
        "/\u{7f}",
        "{\"a\": 1}",
        &over,
    ] {
        let given = variables(&client.ask(message));
        let length = message.len().to_string();
        assert_given(
            &given,
            &[
                ("REQUEST_URI", Some("/start?from=page")),
                ("PATH_INFO", Some("/start")),
                ("QUERY_STRING", Some("from=page")),
                ("REQUEST_METHOD", Some("POST")),
                ("CONTENT_LENGTH", Some(&length)),
                ("CONTENT_TYPE", Some("text/plain; charset=utf-8")),
            ],
        );
    }
    client.send_binary(b"/uri");
    let given = variables(&client.text());
    assert_given(
        &given,
        &[
            ("REQUEST_URI", Some("/start?from=page")),
            ("REQUEST_METHOD", Some("POST")),
            ("CONTENT_TYPE", Some("application/octet-stream")),
            ("CONTENT_LENGTH", Some("4")),
        ],
    );
}

#[test]
fn every_message_is_a_body_where_the_file_says_so() {
    let wootz = environment().settings(r#"application.message = "body""#).start();
    let given = variables(&Client::connect(wootz.address(), "/start", &[]).ask("/cart"));
    assert_given(
        &given,
        &[("REQUEST_URI", Some("/start")), ("REQUEST_METHOD", Some("POST")), ("CONTENT_LENGTH", Some("5"))],
    );
}

#[test]
fn call_runs_in_the_directory_and_with_the_variables_of_the_file_and_with_three_descriptors() {
    let setup = Setup::sh(
        "pwd; echo \"$GREETING|$KEPT|$DROPPED\"; ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/self/fd >links",
    );
    let below = setup.path("below");
    std::fs::create_dir(&below).expect("a directory");
    let wootz = setup
        .settings("application.directory = \"below\"\napplication.command = [\"sh\", \"../application.sh\"]")
        .settings(
            "application.environment.GREETING = \"hello world\"\napplication.pass_environment = [\"PATH\", \"KEPT\"]",
        )
        .variable("KEPT", "kept")
        .variable("DROPPED", "dropped")
        .start();
    let printed = wootz.connect().ask("/");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], below.canonicalize().expect("it exists").to_str().expect("UTF-8"));
    assert_eq!(lines[1], "hello world|kept|");
    // The fourth is the one by which `ls` reads the list.
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{printed}");
    assert!(!wootz.content("below/links").contains("socket:"), "{}", wootz.content("below/links"));
}

#[test]
fn standard_input_is_the_message_byte_for_byte() {
    let wootz = Setup::command(&["cat"]).settings("limits.max_message = \"4MiB\"").start();
    let mut client = wootz.connect();
    let every_byte: Vec<u8> = (0..=255).collect();
    client.send_binary(&every_byte);
    assert_eq!(client.binary(), every_byte);
    let long: Vec<u8> = every_byte.iter().copied().cycle().take(3 << 20).collect();
    client.send_binary(&long);
    assert!(client.binary() == long, "3 MiB came back changed");
    assert_eq!(client.ask("two\nlines\n\n\0end"), "two\nlines\n\n\0end");
    assert_eq!(client.ask("/uri"), "/uri");
    client.send("");
    assert_eq!(client.ask("/after-nothing"), "/after-nothing");
}

#[test]
fn reply_as_a_whole_loses_one_final_newline_and_nothing_printed_is_nothing_sent() {
    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    for (printed, reply) in
        [("a b", "a b"), ("a b\n", "a b"), ("a b\n\n", "a b\n"), ("\na b", "\na b"), ("a b\r\n", "a b")]
    {
        assert_eq!(client.ask(printed), reply, "{printed:?}");
    }
    client.send("\u{0}\n");
    assert_eq!(client.text(), "\0");
    let wootz = Setup::sh("[ \"$REQUEST_URI\" = /nothing ] || echo \"$REQUEST_URI\"").start();
    let mut client = wootz.connect();
    client.send("/nothing");
    assert_eq!(client.ask("/something"), "/something");
}

#[test]
fn reply_by_lines_is_sent_line_by_line_while_the_call_runs() {
    let wootz = Setup::sh(r"printf 'one\ntw'; wait_for go; printf 'o\n\nthree'")
        .settings("application.reply = \"lines\"")
        .start();
    let mut client = wootz.connect();
    client.send("/");
    assert_eq!(client.text(), "one");
    wootz.release("go");
    assert_eq!([client.text(), client.text(), client.text()], ["two", "", "three"]);
    client.nothing_waits();
}

#[test]
fn reply_as_a_stream_is_sent_flush_by_flush_and_never_splits_a_character() {
    let wootz = Setup::sh(r"printf 'one\342\202'; wait_for go; printf '\254two'; wait_for on; printf 'three\n'")
        .settings("application.reply = \"stream\"")
        .start();
    let mut client = wootz.connect();
    client.send("/");
    assert_eq!(client.text(), "one");
    wootz.release("go");
    assert_eq!(client.text(), "\u{20ac}two");
    wootz.release("on");
    assert_eq!(client.text(), "three\n");
}

#[test]
fn reply_goes_as_text_if_it_is_utf8_and_else_as_binary_unless_the_file_says_otherwise() {
    let script = r"case $REQUEST_URI in /text) printf 'gr\303\274n';; /binary) printf 'a\377b';; esac";
    let auto = Setup::sh(script).start();
    let mut client = auto.connect();
    assert_eq!(client.ask("/text"), "gr\u{fc}n");
    client.send("/binary");
    assert_eq!(client.binary(), b"a\xffb");

    let binary = Setup::sh(script).settings("application.frame = \"binary\"").start();
    let mut client = binary.connect();
    client.send("/text");
    assert_eq!(client.binary(), "gr\u{fc}n".as_bytes());

    let text = Setup::sh(script).settings("application.frame = \"text\"\napplication.error_reply = \"sorry\"").start();
    let mut client = text.connect();
    assert_eq!(client.ask("/text"), "gr\u{fc}n");
    assert_eq!(client.ask("/binary"), "sorry");
    text.wait_for_log("UTF-8");
}

#[test]
fn pipelined_messages_of_one_connection_run_one_at_a_time_and_come_back_in_order() {
    let script = r#"mkdir running || echo overlap; printf '%s' "$REQUEST_URI"; rmdir running"#;
    let wootz = Setup::sh(script).start();
    let mut client = wootz.connect();
    let messages: Vec<String> = (0..200).map(|number| format!("/{number}")).collect();
    client.send_all(messages.iter().map(String::as_str));
    let replies: Vec<String> = messages.iter().map(|_| client.text()).collect();
    assert_eq!(replies, messages);
}

#[test]
fn calls_of_one_connection_that_may_run_together_still_answer_in_order() {
    let script = r#"echo "$REQUEST_URI" >>started; [ "$REQUEST_URI" = /slow ] && wait_for go; echo "$REQUEST_URI""#;
    let wootz = Setup::sh(script).settings("application.limits.per_connection = 3").start();
    let mut client = wootz.connect();
    client.send_all(["/slow", "/a", "/b", "/c"]);
    let mut started = wootz.wait_for_lines("started", 3);
    started.sort();
    assert_eq!(started, ["/a", "/b", "/slow"]);
    assert_eq!(wootz.connect().ask("/elsewhere"), "/elsewhere");
    wootz.release("go");
    let replies: Vec<String> = (0..4).map(|_| client.text()).collect();
    assert_eq!(replies, ["/slow", "/a", "/b", "/c"]);
}

/// A user is whoever the cookie `user` names; a call says that it began, and waits if its URI begins with `/hold`.
const USERS: &str = r#"
if [ "$WOOTZ_EVENT" = validate ]; then echo "${HTTP_COOKIE#user=}"; exit; fi
echo "$REMOTE_USER$REQUEST_URI" >>started
case $REQUEST_URI in /hold*) wait_for go;; esac
echo "$REQUEST_URI""#;

/// Connections of three tabs of one user and one of another; the first two calls of the first user hold.
#[test]
fn flood_of_one_user_is_held_at_per_user_and_delays_nobody_else() {
    let wootz = Setup::sh(USERS)
        .settings(
            "identity.provider = \"application\"\napplication.limits.per_user = 2\napplication.limits.max_running = 3",
        )
        .start();
    let mut tabs: Vec<Client> = (0..4).map(|_| wootz.connect_as("user=ann")).collect();
    for tab in &mut tabs {
        tab.send_all(["/hold", "/next"]);
    }
    wootz.wait_for_lines("started", 2);
    let mut other = wootz.connect_as("user=bob");
    assert_eq!(other.ask("/free"), "/free");
    assert_eq!(wootz.content("started").lines().filter(|line| line.starts_with("ann")).count(), 2);
    wootz.release("go");
    for tab in &mut tabs {
        assert_eq!([tab.text(), tab.text()], ["/hold", "/next"]);
    }
}

/// An application that says that it began and waits for the test.
fn holding() -> Setup {
    Setup::sh("echo \"$REQUEST_URI\" >>started\ncase $REQUEST_URI in /hold*) wait_for go;; esac\necho \"$REQUEST_URI\"")
}

#[test]
fn calls_over_max_running_wait_for_their_turn() {
    let wootz = holding().settings("application.limits.max_running = 1").start();
    let mut first = wootz.connect();
    let mut second = wootz.connect();
    first.send("/hold");
    wootz.wait_for_lines("started", 1);
    second.send("/second");
    second.nothing_waits();
    assert_eq!(wootz.content("started"), "/hold\n");
    wootz.release("go");
    assert_eq!([first.text(), second.text()], ["/hold", "/second"]);
}

#[test]
fn full_house_closes_with_1013_or_answers_with_the_busy_reply() {
    let limits = "application.limits.max_running = 1\napplication.limits.max_waiting = 0";
    let wootz = holding().settings(limits).start();
    let mut first = wootz.connect();
    first.send("/hold");
    wootz.wait_for_lines("started", 1);
    let mut second = wootz.connect();
    second.send("/second");
    assert_eq!(second.closed(), 1013);
    wootz.release("go");
    assert_eq!(first.text(), "/hold");
    assert_eq!(wootz.connect().ask("/third"), "/third");

    let wootz = holding().settings(limits).settings("application.busy_reply = \"come back later\"").start();
    let mut first = wootz.connect();
    first.send("/hold");
    wootz.wait_for_lines("started", 1);
    let mut second = wootz.connect();
    assert_eq!(second.ask("/second"), "come back later");
    wootz.release("go");
    assert_eq!(first.text(), "/hold");
    assert_eq!(second.ask("/third"), "/third");
}

#[test]
fn call_that_waits_longer_than_max_wait_is_answered_as_busy_and_never_runs() {
    let wootz = holding()
        .settings("application.limits.max_running = 1\napplication.limits.max_wait = \"200ms\"")
        .settings("application.busy_reply = \"busy\"")
        .start();
    let mut first = wootz.connect();
    first.send("/hold");
    wootz.wait_for_lines("started", 1);
    let mut second = wootz.connect();
    assert_eq!(second.ask("/second"), "busy");
    wootz.release("go");
    assert_eq!(first.text(), "/hold");
    assert_eq!(first.ask("/after"), "/after");
    assert_eq!(wootz.content("started"), "/hold\n/after\n");
}

#[test]
fn call_over_the_timeout_is_ended_with_its_children() {
    let wootz = Setup::sh("case $REQUEST_URI in /hang) sleep 600 & echo $$ $! >pids; wait;; *) echo ok;; esac")
        .settings("application.limits.timeout = \"500ms\"\napplication.error_reply = \"failed\"")
        .start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/hang"), "failed");
    for pid in wootz.wait_for_file("pids").split_whitespace() {
        let pid = pid.parse().expect("a process id");
        wait_until("the call and its child have ended", || (!process::runs(pid)).then_some(()));
    }
    assert_eq!(client.ask("/next"), "ok");
}

#[test]
fn output_over_max_output_fails_the_call_and_nothing_of_it_is_sent() {
    let wootz = Setup::sh("head -c \"${QUERY_STRING}\" /dev/zero | tr '\\0' a")
        .settings("application.limits.max_output = \"64KiB\"\napplication.error_reply = \"failed\"")
        .start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/?65536").len(), 65_536);
    assert_eq!(client.ask("/?65537"), "failed");
    assert_eq!(client.ask("/?5000000"), "failed");
    assert_eq!(client.ask("/?3"), "aaa");
}

#[test]
fn failed_call_sends_nothing_half_and_tells_only_a_developer_why() {
    let script = "case $REQUEST_URI in /fail) echo half; echo the database is away >&2; exit 3;; *) echo ok;; esac";
    let silent = Setup::sh(script).start();
    let mut client = silent.connect();
    client.send("/fail");
    assert_eq!(client.ask("/next"), "ok");
    silent.wait_for_log("the database is away");

    let polite = Setup::sh(script).settings("application.error_reply = \"{\\\"error\\\": true}\"").start();
    assert_eq!(polite.connect().ask("/fail"), "{\"error\": true}");

    let developer = Setup::sh(script).dev().start();
    let told = developer.connect().ask("/fail");
    assert!(told.contains('3') && told.contains("the database is away") && !told.contains("half"), "{told}");
}

#[test]
fn call_whose_browser_is_gone_is_ended_with_its_whole_group() {
    let script = "(sleep 600 & echo $! >>pids; wait) & echo $$ $! >>pids; wait";
    for way in ["close", "reset"] {
        let wootz = Setup::sh(script).start();
        let mut client = wootz.connect();
        client.send("/");
        let pids = wootz.wait_for_lines("pids", 2).join(" ");
        match way {
            "close" => client.leave(),
            _ => drop(client),
        }
        for pid in pids.split_whitespace().map(|pid| pid.parse().expect("a process id")) {
            wait_until("the call and its grandchildren have ended", || (!process::runs(pid)).then_some(()));
        }
        wootz.stop();
    }
}

#[test]
fn waiting_calls_of_a_browser_that_is_gone_never_run() {
    let wootz = holding().settings("application.limits.max_running = 1").start();
    let mut first = wootz.connect();
    first.send("/hold");
    wootz.wait_for_lines("started", 1);
    let mut gone = wootz.connect();
    gone.send_all(["/never", "/never"]);
    gone.nothing_waits();
    gone.leave();
    wootz.release("go");
    assert_eq!(first.text(), "/hold");
    assert_eq!(first.ask("/after"), "/after");
    assert_eq!(wootz.content("started"), "/hold\n/after\n");
}

#[test]
fn limits_of_the_process_reach_the_call() {
    // Without another process: the limit of processes counts all of this user.
    let script = r#"while read -r line; do set -- $line
case $line in "Max open files"*) echo files $4;; "Max address space"*) echo memory $4;;
"Max cpu time"*) echo cpu $4;; "Max processes"*) echo processes $3;; esac; done </proc/$$/limits"#;
    let wootz = Setup::sh(script)
        .settings("application.limits.open_files = 64\napplication.limits.memory = \"512MiB\"")
        .settings("application.limits.cpu = \"7s\"\napplication.limits.processes = 50")
        .start();
    assert_eq!(wootz.connect().ask("/"), "cpu 7\nprocesses 50\nfiles 64\nmemory 536870912");
}

#[test]
fn call_runs_as_the_user_of_the_file_and_with_no_other_group() {
    let setup = Setup::command(&["sh", "-c", "id -un; id -Gn"])
        .settings("application.limits.user = \"nobody\"\napplication.directory = \"/\"");
    if rustix::process::geteuid().is_root() {
        assert_eq!(setup.start().connect().ask("/"), "nobody\nnogroup");
    } else {
        // Nobody else can become somebody else, and that is said at the start.
        assert_eq!(setup.refused().status.code(), Some(2));
    }
}

#[test]
fn call_is_in_a_process_group_of_its_own_and_in_a_session_where_asked() {
    let script = "echo $$; cut -d' ' -f5,6 /proc/$$/stat";
    let group_of = |setup: Setup| {
        let printed = setup.start().connect().ask("/");
        let numbers: Vec<u32> = printed.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        (numbers[0] == numbers[1], numbers[0] == numbers[2])
    };
    assert_eq!(group_of(Setup::sh(script)), (true, false));
    assert_eq!(group_of(Setup::sh(script).settings("application.new_session = true")), (true, true));
}

#[test]
fn message_in_the_middle_of_a_reply_is_not_mixed_into_it() {
    let wootz = Setup::sh("head -c 1000000 /dev/zero | tr '\\0' a").start();
    let mut raw = Raw::open(wootz.address());
    raw.write(text("/big"));
    for number in 0_u8..50 {
        raw.write(frame(support::raw::PING, [number]));
    }
    let mut pongs = 0_u8;
    loop {
        let frame = raw.frame();
        if frame.first == support::raw::TEXT {
            assert_eq!(frame.payload.len(), 1_000_000);
            break;
        }
        assert_eq!((frame.first, &frame.payload[..]), (support::raw::PONG, &[pongs][..]));
        pongs += 1;
    }
    for _ in pongs..50 {
        assert_eq!(raw.frame().first, support::raw::PONG);
    }
}

#[test]
fn status_counts_what_happens() {
    let wootz: Wootz = holding().start();
    let mut client = wootz.connect();
    let before = wootz.status();
    assert_eq!(client.ask("/one"), "/one");
    client.send("/hold");
    wootz.wait_for_lines("started", 2);
    let after = wootz.status();
    assert_ne!(before, after);
    assert_eq!(after["connections"]["open"], serde_json::json!(1), "{after:#}");
    assert_eq!(after["calls"]["running"], serde_json::json!(1), "{after:#}");
    wootz.release("go");
    assert_eq!(client.text(), "/hold");
}
