//! Pushes: by the operator's API and by commands, to exactly those who are named, with a receipt that is true.

mod support;

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::api::Api;
use support::client::Client;
use support::{Setup, Wootz, process, wait_until};
use tungstenite::Message;

/// The user is whom the cookie `user` names; a call says as whom it runs, why, and what it was given.
const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { printf '%s' "${HTTP_COOKIE#user=}"; exit; }
case $REQUEST_URI in
/hold*) echo "$REMOTE_USER" >>held; wait_for go; echo "$REQUEST_URI done";;
/count*) echo "$REMOTE_USER $WOOTZ_CONNECTION" >>counted; echo "$REQUEST_URI for $REMOTE_USER";;
/fail) exit 3;;
/nothing) ;;
/big) head -c 300000 /dev/zero | tr '\0' a;;
*) echo "$WOOTZ_EVENT|$REMOTE_USER|$REQUEST_URI|$(cat)";;
esac"#;

fn application() -> Setup {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"\nlisten.shards = 2\npipes.requests = false")
}

fn clients(wootz: &Wootz, users: &[&str]) -> Vec<Client> {
    users.iter().map(|user| wootz.connect_as(&format!("user={user}"))).collect()
}

fn receipt(reached: u64, queued: u64, dropped: u64) -> Value {
    json!({"reached": reached, "queued": queued, "dropped": dropped})
}

/// Runs `wootz push` with this on its standard input.
fn push_with(wootz: &Wootz, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = support::wootz(wootz.directory());
    command.arg("push").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the wootz binary");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    child.wait_with_output().expect("a child of ours")
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).expect("UTF-8").trim_end()
}

#[test]
fn each_target_reaches_exactly_those_it_names_on_every_shard() {
    let wootz = application().start();
    let names = ["1", "1", "12", "*", "[1]", "../1", ""];
    let mut all = clients(&wootz, &names);
    let mut api = wootz.api();
    assert_eq!(api.push(json!({"to": {"all": true}, "text": "everybody"})), receipt(7, 7, 0));
    for client in &mut all {
        assert_eq!(client.text(), "everybody");
    }
    for (user, reached) in
        [("1", 2), ("12", 1), ("*", 1), ("[1]", 1), ("../1", 1), ("2", 0), ("", 0), ("1*", 0), ("?", 0)]
    {
        let told = api.push(json!({"to": {"user": user}, "text": format!("to {user}")}));
        assert_eq!(told, receipt(reached, reached, 0), "{user:?}");
    }
    let id = wootz.id_of(all[2].port());
    assert_eq!(api.push(json!({"to": {"connection": id}, "binary": "AP8="})), receipt(1, 1, 0));
    assert_eq!(api.push(json!({"to": {"connection": "0".repeat(32)}, "text": "nobody"})), receipt(0, 0, 0));
    for (client, user) in all.iter_mut().zip(names) {
        if !user.is_empty() {
            assert_eq!(client.text(), format!("to {user}"));
        }
    }
    assert_eq!(all[2].binary(), [0, 255]);
    for client in &mut all {
        client.nothing_waits();
    }
}

#[test]
fn empty_text_any_unicode_and_a_payload_as_long_as_a_message_may_be_arrive_as_they_are() {
    let wootz = application().settings("limits.max_message = \"64KiB\"").start();
    let (mut client, mut api) = (wootz.connect(), wootz.api());
    let long = "\u{1}".repeat(64 * 1024);
    for text in ["", "\u{0}\n\u{20ac}\u{1f600}", "no URI, no call", &long] {
        assert_eq!(api.push(json!({"to": {"all": true}, "text": text})), receipt(1, 1, 0));
        assert_eq!(client.receive(), Message::text(text));
    }
    assert_eq!(api.push(json!({"to": {"all": true}, "binary": ""})), receipt(1, 1, 0));
    assert_eq!(client.binary(), b"");
    let answered = api.post(&json!({"to": {"all": true}, "text": format!("{long}a")}).to_string());
    assert_eq!((answered.status, answered.code().as_str()), (413, "too_large"));
    client.nothing_waits();
}

#[test]
fn pushes_of_one_client_arrive_in_their_order_also_when_they_are_pipelined() {
    let wootz = application().start();
    let mut all = clients(&wootz, &["1", "2", "3", "4"]);
    let mut api = wootz.api();
    for number in 0..200 {
        api.send_body("POST", "/v1/push", &json!({"to": {"all": true}, "text": number.to_string()}).to_string());
    }
    for _ in 0..200 {
        assert_eq!(api.answer().json(), receipt(4, 4, 0));
    }
    for client in &mut all {
        for number in 0..200 {
            assert_eq!(client.text(), number.to_string());
        }
    }
}

#[test]
fn request_runs_as_the_user_of_each_connection_and_answers_only_there() {
    let wootz = application().start();
    let mut all = clients(&wootz, &["1", "1", "12", ""]);
    let told = wootz.api().push(json!({"to": {"all": true}, "request": "/cart?x=1"}));
    assert_eq!(told, json!({"reached": 4, "queued": 4, "dropped": 0, "joined": 0}));
    for (client, user) in all.iter_mut().zip(["1", "1", "12", ""]) {
        assert_eq!(client.text(), format!("push|{user}|/cart?x=1|/cart?x=1"));
        client.nothing_waits();
    }
}

#[test]
fn equal_requests_that_wait_run_once_and_the_next_one_after_that_runs_again() {
    let wootz = application().start();
    let (mut client, mut api) = (wootz.connect_as("user=1"), wootz.api());
    client.send("/hold");
    wootz.wait_for_lines("held", 1);
    let push = |api: &mut Api, uri: &str| api.push(json!({"to": {"user": "1"}, "request": uri}));
    assert_eq!(push(&mut api, "/count/a")["queued"], 1);
    for _ in 0..10 {
        assert_eq!(push(&mut api, "/count/a"), json!({"reached": 1, "queued": 0, "dropped": 0, "joined": 1}));
    }
    assert_eq!(push(&mut api, "/count/b")["queued"], 1);
    wootz.release("go");
    for text in ["/hold done", "/count/a for 1", "/count/b for 1"] {
        assert_eq!(client.text(), text);
    }
    client.nothing_waits();
    assert_eq!(push(&mut api, "/count/a")["queued"], 1);
    assert_eq!(client.text(), "/count/a for 1");
    assert_eq!(wootz.status()["pushes"]["joined"], 10);
}

#[test]
fn request_once_runs_once_per_user_and_all_their_connections_get_its_output() {
    let wootz = application().start();
    let mut all = clients(&wootz, &["1", "1", "1", "1", "1", "12", "", ""]);
    let told = wootz.api().push(json!({"to": {"all": true}, "request": "/count", "once": true}));
    assert_eq!(told, json!({"reached": 8, "queued": 4, "dropped": 0, "joined": 4}));
    for (client, user) in all.iter_mut().zip(["1", "1", "1", "1", "1", "12", "", ""]) {
        assert_eq!(client.text(), format!("/count for {user}"));
        client.nothing_waits();
    }
    let lines = wootz.wait_for_lines("counted", 4);
    let of_one = lines.iter().filter(|line| line.starts_with("1 ")).count();
    assert_eq!((lines.len(), of_one), (4, 1), "{lines:?}");
}

#[test]
fn request_once_goes_on_when_the_connection_closes_that_it_began_with() {
    let wootz = application().start();
    let mut all = clients(&wootz, &["1", "1"]);
    wootz.api().push(json!({"to": {"user": "1"}, "request": "/hold/once", "once": true}));
    wootz.wait_for_lines("held", 1);
    let mut stays = all.pop().expect("two");
    all.pop().expect("one more").leave();
    wait_until("one connection is left", || (wootz.status()["connections"]["open"] == 1).then_some(()));
    wootz.release("go");
    assert_eq!(stays.text(), "/hold/once done");
}

#[test]
fn request_pushed_to_many_users_starves_no_message_and_exceeds_no_limit_and_what_has_no_room_is_counted() {
    let limits = "application.limits.max_running = 3\napplication.limits.max_waiting = 20\napplication.limits.max_wait = \"30s\"";
    let wootz = application().settings(limits).start();
    let names: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let mut all = clients(&wootz, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut holders = clients(&wootz, &["a", "b", "c"]);
    holders.iter_mut().for_each(|holder| holder.send("/hold"));
    wootz.wait_for_lines("held", 3);
    let told = wootz.api().push(json!({"to": {"all": true}, "request": "/hold/pushed"}));
    // As many as may run and wait have a place.
    assert_eq!(told, json!({"reached": 63, "queued": 23, "dropped": 40, "joined": 0}));
    // Those who hold the turns have their own push behind their message; the others wait in line.
    wait_until("they wait", || (wootz.status()["calls"]["waiting"].as_u64() >= Some(20)).then_some(()));
    // A message waits behind at most one of the pushed calls: its line has the next turn but one.
    all[59].send("/count");
    let waiting = wootz.status()["calls"]["waiting"].as_u64();
    wait_until("the message waits too", || (wootz.status()["calls"]["waiting"].as_u64() >= waiting).then_some(()));
    assert_eq!(wootz.status()["calls"]["running"], 3);
    wootz.release("go");
    let mut texts = vec![all[59].text()];
    if texts[0] != "/count for 59" {
        texts.push(all[59].text());
    }
    assert!(texts.contains(&"/count for 59".to_owned()), "{texts:?}");
    wait_until("all have run", || {
        (wootz.status()["calls"]["succeeded"].as_u64() >= Some(63 + 3 + 23 + 1)).then_some(())
    });
    assert_eq!(wootz.content("held").lines().count(), 3 + 23);
}

#[test]
fn receipt_that_waits_comes_when_everything_was_written_and_says_to_how_many() {
    let wootz = application().start();
    let mut all = clients(&wootz, &["1", "1", "2"]);
    let mut api = wootz.api();
    let told = api.push(json!({"to": {"all": true}, "text": "hi", "wait": true}));
    assert_eq!(told, json!({"reached": 3, "queued": 3, "dropped": 0, "written": 3}));
    for (uri, written) in [("/count", 3), ("/nothing", 3), ("/fail", 0)] {
        let told = api.push(json!({"to": {"all": true}, "request": uri, "wait": true}));
        assert_eq!(told, json!({"reached": 3, "queued": 3, "dropped": 0, "joined": 0, "written": written}), "{uri}");
    }
    let told = api.push(json!({"to": {"user": "1"}, "request": "/count", "once": true, "wait": true}));
    assert_eq!(told, json!({"reached": 2, "queued": 1, "dropped": 0, "joined": 1, "written": 2}));
    for client in &mut all {
        assert_eq!(client.text(), "hi");
    }
}

#[test]
fn receipt_waits_no_longer_than_its_deadline_for_a_reader_that_reads_nothing() {
    let wootz = application().settings("limits.outbox = \"16MiB\"\nlimits.max_message = \"8MiB\"").start();
    let (mut reads, mut api) = (wootz.connect(), wootz.api());
    let _reads_nothing = wootz.open();
    wait_until("both are there", || (wootz.status()["connections"]["open"] == 2).then_some(()));
    let text = "a".repeat(8 << 20);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reads.text().len());
        let told = api.push(json!({"to": {"all": true}, "text": text, "wait": true, "deadline": 2}));
        assert_eq!(told, json!({"reached": 2, "queued": 2, "dropped": 0, "written": 1}));
        assert_eq!(reading.join().expect("a text"), text.len());
    });
    assert_eq!(api.push(json!({"to": {"connection": "0".repeat(32)}, "text": "x", "wait": true}))["written"], 0);
}

#[test]
fn waiting_receipt_comes_at_once_when_the_last_reader_has_gone() {
    let wootz = application().settings("limits.outbox = \"16MiB\"\nlimits.max_message = \"8MiB\"").start();
    let reads_nothing = wootz.open();
    wait_until("it is there", || (wootz.status()["connections"]["open"] == 1).then_some(()));
    let mut api = wootz.api();
    let body = json!({"to": {"all": true}, "text": "a".repeat(8 << 20), "wait": true, "deadline": 60});
    api.send_body("POST", "/v1/push", &body.to_string());
    let id = wait_until("something waits for it", || {
        let row = wootz.api().get("/v1/connections")["connections"][0].clone();
        (row["queued_bytes"].as_u64() > Some(0)).then(|| row["id"].as_str().expect("an id").to_owned())
    });
    drop(reads_nothing);
    assert_eq!(api.answer().json(), json!({"reached": 1, "queued": 1, "dropped": 0, "written": 0}));
    wait_until("it is gone", || {
        (wootz.api().ask("DELETE", &format!("/v1/connections/{id}")).status == 404).then_some(())
    });
}

#[test]
fn slow_reader_is_dropped_by_a_push_and_others_are_not() {
    let wootz = application().settings("limits.outbox = \"64KiB\"").start();
    let mut client = wootz.connect();
    let slow = wootz.open();
    rustix::net::sockopt::set_socket_recv_buffer_size(slow.stream(), 4096).expect("a socket");
    wait_until("both are there", || (wootz.status()["connections"]["open"] == 2).then_some(()));
    let (text, mut api) = ("a".repeat(60_000), wootz.api());
    let mut sent = 0;
    // However much the kernel holds, some push is too much.
    let told = loop {
        let told = api.push(json!({"to": {"all": true}, "text": text}));
        sent += 1;
        assert_eq!(client.text().len(), text.len());
        if told != receipt(2, 2, 0) {
            break told;
        }
        assert!(sent < 2000, "nothing is ever too much");
    };
    assert_eq!(told, receipt(2, 1, 1));
    wait_until("the slow one is gone", || (wootz.status()["connections"]["open"] == 1).then_some(()));
    assert_eq!(api.push(json!({"to": {"all": true}, "text": "on"})), receipt(1, 1, 0));
    assert_eq!(wootz.status()["connections"]["slow_readers"], 1);
}

#[test]
fn push_to_a_closing_connection_is_counted_as_dropped() {
    let wootz = application().start();
    let mut raw = wootz.open();
    let (id, mut api) = (wootz.id_of(raw.port()), wootz.api());
    assert_eq!(api.ask("DELETE", &format!("/v1/connections/{id}")).status, 204);
    // The browser does not answer the Close, so the connection is there and takes nothing more.
    assert_eq!(raw.close_code(), 1000);
    assert_eq!(api.push(json!({"to": {"connection": id}, "text": "late"})), receipt(1, 0, 1));
    let told = api.push(json!({"to": {"connection": id}, "request": "/count"}));
    assert_eq!(told, json!({"reached": 1, "queued": 0, "dropped": 1, "joined": 0}));
}

#[test]
fn hundred_thousand_pushes_in_a_burst_lose_nothing_for_readers_and_hold_bounded_memory() {
    const PUSHES: usize = 100_000;
    let wootz = application().settings("limits.outbox = \"256KiB\"").start();
    let mut good = wootz.connect();
    let slow: Vec<_> = (0..10).map(|_| wootz.open()).collect();
    wait_until("all are there", || (wootz.status()["connections"]["open"] == 11).then_some(()));
    let reading = std::thread::spawn(move || {
        for number in 0..PUSHES {
            assert_eq!(good.text(), format!("{number:0>100}"));
        }
        good
    });
    let mut api = wootz.api();
    let mut reached = 0;
    for batch in 0..PUSHES / 100 {
        let mut requests = String::new();
        for number in batch * 100..(batch + 1) * 100 {
            let body = json!({"to": {"all": true}, "text": format!("{number:0>100}")}).to_string();
            requests +=
                &format!("POST /v1/push HTTP/1.1\r\nHost: wootz\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        api.write(requests);
        for _ in 0..100 {
            let answered = api.answer();
            assert_eq!(answered.status, 200, "{answered:?}");
            reached += answered.json()["queued"].as_u64().expect("a number");
        }
    }
    assert!(reached >= PUSHES as u64, "{reached}");
    let mut good = reading.join().expect("every push in its order");
    good.nothing_waits();
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 100 << 20, "{memory} bytes of memory");
    drop(slow);
}

#[test]
fn command_pushes_an_argument_standard_input_lines_and_bytes() {
    let wootz = application().start();
    let mut client = wootz.connect_as("user=42");
    let run = |arguments: &[&str], input: &str| {
        let output = push_with(&wootz, arguments, input.as_bytes());
        stdout(&output).to_owned()
    };
    assert_eq!(run(&["--all", "hello you"], ""), "reached 1, queued 1, dropped 0");
    assert_eq!(client.text(), "hello you");
    assert_eq!(run(&["--user", "42", "-"], "from a pipe\nof two lines\n"), "reached 1, queued 1, dropped 0");
    assert_eq!(client.text(), "from a pipe\nof two lines");
    assert_eq!(run(&["--user", "42"], "nothing said\n\n"), "reached 1, queued 1, dropped 0");
    assert_eq!(client.text(), "nothing said\n");
    assert_eq!(run(&["--all", "--lines", "-"], "one\n\nthree"), "reached 3, queued 3, dropped 0");
    for text in ["one", "", "three"] {
        assert_eq!(client.text(), text);
    }
    assert_eq!(run(&["--all", "--", "--binary"], ""), "reached 1, queued 1, dropped 0");
    assert_eq!(client.text(), "--binary");
    let output = push_with(&wootz, &["--all", "--binary"], b"\xff\n");
    assert_eq!(stdout(&output), "reached 1, queued 1, dropped 0");
    assert_eq!(client.binary(), b"\xff\n");
    assert_eq!(run(&["--user", "42", "--request", "/count"], ""), "reached 1, queued 1, dropped 0, joined 0");
    assert_eq!(client.text(), "/count for 42");
    let told = run(&["--user", "42", "--request", "--once", "--wait", "--json", "/count"], "");
    assert_eq!(told, r#"{"reached":1,"queued":1,"dropped":0,"joined":0,"written":1}"#);
    assert_eq!(client.text(), "/count for 42");
    // Nobody there is no failure: the receipt says so.
    assert_eq!(run(&["--user", "4", "hi"], ""), "reached 0, queued 0, dropped 0");
    assert_eq!(run(&["--all", "--lines"], ""), "nothing to push");
    client.nothing_waits();
}

#[test]
fn command_that_can_not_mean_anything_says_why_and_pushes_nothing() {
    let wootz = application().start();
    let mut client = wootz.connect();
    for (arguments, code, part) in [
        (["--all", "--user", "1", "x"].as_slice(), 2, "cannot be used with"),
        (&["x"], 2, "--all"),
        (&["--all", "--once", "x"], 2, "--request"),
        (&["--all", "--binary", "--request", "x"], 2, "cannot be used with"),
        (&["--all", "--lines", "x"], 2, "takes no TEXT"),
        (&["--connection", "7", "x"], 1, "to.connection is 32 hexadecimal digits"),
        (&["--channel", "", "x"], 1, "not empty"),
        (&["--all", "--socket", "none.sock", "x"], 1, "no server listens at"),
    ] {
        let output = wootz.run(&[&["push"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let output = push_with(&wootz, &["--all", "-"], b"not \xff UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not UTF-8 (--binary pushes any bytes)"), "{output:?}");
    client.nothing_waits();
}

#[test]
fn line_of_standard_input_is_pushed_as_soon_as_it_comes() {
    let wootz = application().start();
    let mut client = wootz.connect();
    let mut command = support::wootz(wootz.directory());
    let mut child =
        command.args(["push", "--all", "--lines"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("wootz");
    let mut input = child.stdin.take().expect("piped");
    for text in ["first", "second"] {
        writeln!(input, "{text}").expect("it reads");
        assert_eq!(client.text(), text);
    }
    drop(input);
    assert!(child.wait().expect("a child of ours").success());
}

#[test]
fn curl_a_shell_pipe_and_python_push_as_the_documentation_says() {
    let wootz = application().start();
    let mut client = wootz.connect_as("user=42");
    let body = r#"{"to": {"user": "42"}, "text": "from curl"}"#;
    let mut curl = std::process::Command::new("curl");
    curl.current_dir(wootz.directory()).args([
        "-sS",
        "--unix-socket",
        "wootz.sock",
        "http://wootz/v1/push",
        "-d",
        body,
    ]);
    assert_eq!(support::run(&mut curl), r#"{"reached":1,"queued":1,"dropped":0}"#);
    assert_eq!(client.text(), "from curl");
    wootz.push("from a shell\n");
    assert_eq!(client.text(), "from a shell");
    assert_eq!(client.ask("ping"), "pong");
    // The log never has what was pushed.
    assert!(!wootz.log().contains("from curl"), "{}", wootz.log());
}

#[test]
fn server_that_ends_answers_a_waiting_push_or_closes_and_never_hangs() {
    let mut wootz = application().settings("limits.outbox = \"16MiB\"\nlimits.max_message = \"8MiB\"").start();
    let _reads_nothing = wootz.open();
    wait_until("it is there", || (wootz.status()["connections"]["open"] == 1).then_some(()));
    let mut api = wootz.api();
    let body = json!({"to": {"all": true}, "text": "a".repeat(8 << 20), "wait": true, "deadline": 60});
    api.send_body("POST", "/v1/push", &body.to_string());
    wait_until("something waits for it", || {
        (wootz.api().get("/v1/connections")["connections"][0]["queued_bytes"].as_u64() > Some(0)).then_some(())
    });
    wootz.signal(rustix::process::Signal::TERM);
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn every_curl_of_the_documentation_works_as_it_is_written() {
    let text = std::fs::read_to_string(support::repository().join("docs/push.md")).expect("docs/push.md");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("curl --unix-socket wootz.sock ")).collect();
    assert!(lines.len() >= 8, "{lines:?}");
    for line in lines {
        let wootz = application().start();
        let mut client = wootz.connect_as("user=42");
        let id = wootz.id_of(client.port());
        // Events do not end by themselves: 28 says that the time was up.
        let line =
            if line.contains("/v1/events") { format!("{line} -m 1 || [ $? = 28 ]") } else { format!("{line} --fail") };
        let mut shell = std::process::Command::new("sh");
        support::run(shell.args(["-c", &line]).current_dir(wootz.directory()).env("ID", &id));
        if line.contains("\"user\"") {
            assert_eq!(client.text(), "hi");
        } else if line.contains("DELETE") {
            assert_eq!(client.closed(), 1000);
        }
    }
}
