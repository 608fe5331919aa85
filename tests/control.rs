//! The operator's socket: every endpoint answers as `docs/openapi.json` says, bad clients harm nobody, and strangers get nothing.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::api::{Answered, Api, EventLines};
use support::raw;
use support::{DEADLINE, Setup, Wootz, as_root, mode, process, repository, run, wait_until};

const TOKEN: &str = "correct-horse-battery-staple-4217";

fn application() -> Setup {
    Setup::sh(
        "[ \"$WOOTZ_EVENT\" = validate ] && { printf '%s' \"${HTTP_COOKIE#user=}\"; exit; }\necho \"$REQUEST_URI\"",
    )
    .settings("identity.provider = \"application\"\nlisten.shards = 2\npipes.requests = false")
}

/// What the file says about one answer of one endpoint.
struct Described {
    file: Value,
    exercised: BTreeSet<(String, String, String)>,
}

impl Described {
    fn read() -> Self {
        let text = fs::read_to_string(repository().join("docs/openapi.json")).expect("docs/openapi.json");
        Self { file: serde_json::from_str(&text).expect("JSON"), exercised: BTreeSet::new() }
    }

    fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => self.file.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} is there")),
            None => value,
        }
    }

    /// All that the file says, as (method, path, status).
    fn all(&self) -> BTreeSet<(String, String, String)> {
        let mut all = BTreeSet::new();
        for (path, item) in self.file["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item").iter().filter(|(key, _)| *key != "parameters")
            {
                for status in operation["responses"].as_object().expect("responses").keys() {
                    all.insert((method.clone(), path.clone(), status.clone()));
                }
            }
        }
        all
    }

    /// Checks an answer against the file.
    fn check(&mut self, method: &str, path: &str, answered: &Answered) {
        let (method, status) = (method.to_lowercase(), answered.status.to_string());
        let response = &self.file["paths"][path][&method]["responses"][&status];
        assert!(!response.is_null(), "{method} {path} {status} is not in the file: {answered:?}");
        let response = self.resolve(response);
        match response["content"].as_object() {
            None => assert_eq!(answered.body, "", "{method} {path} {status}"),
            Some(content) => {
                let (media, described) = content.iter().next().expect("a media type");
                let head = answered.head.to_lowercase();
                assert!(head.contains(&format!("content-type: {media}")), "{media}: {answered:?}");
                if media == "application/json" {
                    self.check_schema(self.resolve(&described["schema"]), &answered.json(), path);
                }
            }
        }
        self.exercised.insert((method, path.to_owned(), status));
    }

    fn check_schema(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.resolve(schema);
        let kind = if value.is_null() {
            "null"
        } else if value.is_string() {
            "string"
        } else if value.is_u64() {
            "integer"
        } else if value.is_array() {
            "array"
        } else if value.is_object() {
            "object"
        } else {
            "other"
        };
        match &schema["type"] {
            Value::String(wanted) => assert_eq!(wanted, kind, "{at}: {value}"),
            Value::Array(wanted) => assert!(wanted.contains(&json!(kind)), "{at}: {value}"),
            _ => {}
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            assert!(value.get(name).is_some(), "{at}: {name} is missing in {value}");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.check_schema(property, value, &format!("{at}.{name}"));
            }
        }
        for item in value.as_array().into_iter().flatten() {
            self.check_schema(&schema["items"], item, &format!("{at}[]"));
        }
    }
}

fn with_door(setup: Setup) -> Setup {
    let setup = setup.file("token", TOKEN);
    fs::set_permissions(setup.path("token"), fs::Permissions::from_mode(0o600)).expect("a file of ours");
    setup.settings("control.http_address = \"127.0.0.1:0\"\ncontrol.token_file = \"token\"")
}

fn door(wootz: &Wootz) -> std::net::SocketAddr {
    wait_until("the door is announced", || {
        let log = wootz.log();
        let (_, rest) = log.split_once("operator's API http://")?;
        rest.split_once('/')?.0.parse().ok()
    })
}

/// A body whose rest never comes, so that the server has to give it up.
fn push_half(api: &mut Api) {
    api.write("POST /v1/push HTTP/1.1\r\nHost: wootz\r\nContent-Length: 100\r\n\r\n{\"to\"");
}

#[test]
fn every_endpoint_and_status_of_the_openapi_file_is_answered_as_it_says() {
    let limits = "limits.max_channels = 1\nlimits.max_message = \"1KiB\"\nlimits.drain_timeout = \"30s\"";
    let setup = with_door(application()).settings(limits).file("hold", "");
    let wootz = setup.file("application.sh", "[ \"$WOOTZ_EVENT\" = validate ] && exit\nwhile [ -e hold ]; do sleep 0.02; done; printf '%s' \"$WOOTZ_TOKEN\"").start();
    let mut file = Described::read();
    let (mut client, address) = (wootz.connect(), door(&wootz));
    let id = wootz.id_of(client.port());
    let nobody = "0".repeat(32);
    let mut slow = wootz.api();
    push_half(&mut slow);

    let fill = |path: &str, id: &str, name: &str| path.replace("{id}", id).replace("{name}", name);
    let ask = |file: &mut Described, method: &str, path: &str, target: &str| {
        let answered = wootz.api().ask(method, target);
        file.check(method, path, &answered);
        answered.status
    };
    let (join, one, room) = ("/v1/connections/{id}/channels/{name}", "/v1/connections/{id}", "/v1/channels/{name}");
    for (method, path, target, status) in [
        ("GET", "/v1/status", "/v1/status".to_owned(), 200),
        ("GET", "/v1/connections", "/v1/connections".to_owned(), 200),
        ("PUT", join, fill(join, &id, "a"), 204),
        ("PUT", join, fill(join, &id, "b"), 409),
        ("PUT", join, fill(join, &nobody, "a"), 404),
        ("GET", "/v1/channels", "/v1/channels".to_owned(), 200),
        ("GET", room, "/v1/channels/a".to_owned(), 200),
        ("DELETE", join, fill(join, &id, "a"), 204),
        ("DELETE", join, fill(join, &nobody, "a"), 404),
        ("DELETE", one, fill(one, &nobody, ""), 404),
        ("GET", "/metrics", "/metrics".to_owned(), 200),
        ("GET", "/healthz", "/healthz".to_owned(), 200),
        ("GET", "/readyz", "/readyz".to_owned(), 200),
    ] {
        assert_eq!(ask(&mut file, method, path, &target), status, "{method} {target}");
    }
    for (path, target) in [
        ("/v1/status", "/v1/status?x"),
        ("/v1/connections", "/v1/connections?users=1"),
        ("/v1/channels", "/v1/channels?x"),
        (room, "/v1/channels/%00"),
        ("/v1/events", "/v1/events?payload=yes"),
        ("/metrics", "/metrics?x"),
    ] {
        assert_eq!(ask(&mut file, "GET", path, target), 400, "{target}");
    }
    assert_eq!(ask(&mut file, "DELETE", one, &format!("/v1/connections/{id}?code=7")), 400);
    assert_eq!(ask(&mut file, "PUT", join, "/v1/connections/7/channels/a"), 400);
    assert_eq!(ask(&mut file, "DELETE", join, "/v1/connections/7/channels/a"), 400);

    let everybody = json!({"to": {"all": true}, "text": "hi"}).to_string();
    let long = json!({"to": {"all": true}, "text": "a".repeat(2000)}).to_string();
    for (body, status) in [(everybody.as_str(), 200), ("{}", 400), (&long, 413)] {
        let answered = wootz.api().post(body);
        file.check("POST", "/v1/push", &answered);
        assert_eq!(answered.status, status, "{answered:?}");
    }

    // By TCP: nobody, and then too often.
    let operations: BTreeSet<(String, String)> = file
        .all()
        .into_iter()
        .filter(|(_, _, status)| status == "401")
        .map(|(method, path, _)| (method, path))
        .collect();
    let refused = |file: &mut Described, status: u16| {
        for (method, path) in &operations {
            let method = method.to_uppercase();
            let answered = Api::tcp(address).ask(&method, &fill(path, &id, "a"));
            file.check(&method, path, &answered);
            assert_eq!(answered.status, status, "{method} {path}");
        }
    };
    refused(&mut file, 401);
    for _ in 0..10 {
        assert_eq!(Api::tcp(address).with_token("wrong").ask("GET", "/v1/status").status, 401);
    }
    refused(&mut file, 429);

    // With the token of a call: only its own connection's channels.
    assert_eq!(client.text(), "hi");
    client.send("/token");
    wait_until("the call runs", || (wootz.status()["calls"]["running"] == 1).then_some(()));
    fs::remove_file(wootz.path("hold")).expect("a file of the test");
    let token = client.text();
    for (method, path) in &operations {
        let method = method.to_uppercase();
        let answered = wootz.api().with_token(&token).ask(&method, &fill(path, &nobody, "a"));
        file.check(&method, path, &answered);
        assert_eq!(answered.status, 403, "{method} {path}");
    }

    let mut listeners: Vec<EventLines> = (0..16).map(|_| EventLines::listen(wootz.api(), "")).collect();
    file.exercised.insert(("get".to_owned(), "/v1/events".to_owned(), "200".to_owned()));
    assert_eq!(ask(&mut file, "GET", "/v1/events", "/v1/events"), 503);
    listeners.clear();
    assert_eq!(ask(&mut file, "DELETE", one, &fill(one, &id, "")), 204);
    assert_eq!(client.closed(), 1000);
    client.leave();
    let answered = slow.answer();
    file.check("POST", "/v1/push", &answered);
    assert_eq!(answered.status, 408, "{answered:?}");

    fs::write(wootz.path("hold"), "").expect("a file of the test");
    let mut last = wootz.connect();
    last.send("/hold");
    wait_until("the call runs", || (wootz.status()["calls"]["running"] == 1).then_some(()));
    wootz.signal(rustix::process::Signal::TERM);
    wait_until("it says that it drains", || (wootz.api().ask("GET", "/readyz").status == 503).then_some(()));
    file.check("GET", "/readyz", &wootz.api().ask("GET", "/readyz"));
    fs::remove_file(wootz.path("hold")).expect("a file of the test");
    last.text();
    assert_eq!(last.closed(), 1001);
    last.leave();

    // A server whose shard is stuck can't be had from outside: its two answers are tested where they are made.
    let mut expected = file.all();
    for status in ["503", "504"] {
        assert!(expected.remove(&("post".to_owned(), "/v1/push".to_owned(), status.to_owned())));
    }
    let missing: Vec<_> = expected.difference(&file.exercised).collect();
    assert!(missing.is_empty(), "in the file, and not seen here: {missing:?}");
    let mut wootz = wootz;
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn what_is_not_served_is_404_and_a_wrong_method_is_told_the_right_ones() {
    let wootz = application().start();
    let mut api = wootz.api();
    for target in ["/", "/v1", "/v1/push/", "/v2/push", "/v1/../v1/status", "/v1/connections/x/y"] {
        let answered = api.ask("GET", target);
        assert_eq!((answered.status, answered.code().as_str()), (404, "not_found"), "{target}");
    }
    let answered = api.ask("GET", "/v1/push");
    assert_eq!((answered.status, answered.code().as_str()), (405, "method_not_allowed"));
    assert!(answered.head.to_lowercase().contains("allow: post"), "{answered:?}");
}

#[test]
fn all_mistakes_of_a_body_are_named_at_once() {
    let wootz = application().start();
    let mut api = wootz.api();
    let answered = api.post(r#"{"to": {"user": 1, "all": true}, "text": 5, "text": "x", "extra": null}"#);
    assert_eq!((answered.status, answered.code().as_str()), (400, "bad_request"));
    for part in ["to has exactly one of", "text is a string, not a number", "text is there twice", "extra is no field"]
    {
        assert!(answered.message().contains(part), "{part}: {answered:?}");
    }
    for body in ["", "nonsense", "\"text\"", "{\"to\": {\"all\": true}, \"text\": \"\\ud800\"}"] {
        assert_eq!(api.post(body).status, 400, "{body}");
    }
    // Invalid UTF-8 as text is no JSON.
    let body = b"{\"to\": {\"all\": true}, \"text\": \"\xff\"}";
    api.write(format!("POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
    api.write(body);
    let answered = api.answer();
    assert!(answered.status == 400 && answered.message().contains("not JSON in UTF-8"), "{answered:?}");
    assert_eq!(api.ask("GET", "/v1/status").status, 200, "and the connection goes on");
}

#[test]
fn client_that_sends_nothing_or_half_a_request_is_let_go_and_keeps_nobody_else_waiting() {
    let wootz = application().start();
    let mut silent = wootz.api();
    let mut half = wootz.api();
    half.write("GET /v1/status HTT");
    let mut idle = wootz.api();
    assert_eq!(idle.ask("GET", "/healthz").status, 200);
    let began = Instant::now();
    assert_eq!(wootz.api().ask("GET", "/v1/status").status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "others are served at once");
    silent.ends();
    let answered = half.try_write("P/1.1\r\n\r\n");
    drop((answered, half));
    idle.ends();
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn gigabyte_is_refused_without_being_read_or_held() {
    let wootz = application().start();
    let mut api = wootz.api();
    api.write("POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n");
    let answered = api.answer();
    assert_eq!((answered.status, answered.code().as_str()), (413, "too_large"));
    // In chunks nobody says how long it will be.
    let mut api = wootz.api();
    api.write("POST /v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", "a".repeat(1 << 20));
    for _ in 0..1024 {
        if api.try_write(&chunk).is_err() {
            break;
        }
    }
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 100 << 20, "{memory} bytes of memory");
    assert_eq!(wootz.api().ask("GET", "/v1/status").status, 200);
}

#[test]
fn client_that_goes_before_its_answer_harms_nobody() {
    let wootz = application().start();
    let mut client = wootz.connect();
    for number in 0..50 {
        let mut api = wootz.api();
        let body = json!({"to": {"all": true}, "text": number.to_string(), "wait": true}).to_string();
        api.send_body("POST", "/v1/push", &body);
        drop(api);
    }
    let mut seen = BTreeSet::new();
    wootz.api().push(json!({"to": {"all": true}, "text": "last"}));
    loop {
        match client.text().as_str() {
            "last" => break,
            text => assert!(seen.insert(text.to_owned()), "{text} came twice"),
        }
    }
    let body = "{\"to\": {\"all\": true}, ";
    let mut api = wootz.api();
    api.write(format!("POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{body}"));
    drop(api);
    assert_eq!(wootz.api().ask("GET", "/v1/status").status, 200);
}

#[test]
fn connections_are_listed_with_filters_and_closed_with_a_code() {
    let wootz = application().start();
    let mut one = wootz.connect_as("user=1");
    let mut two = wootz.connect_as("user=12");
    let (id, mut api) = (wootz.id_of(one.port()), wootz.api());
    let rows = |body: Value| body["connections"].as_array().expect("a list").clone();
    assert_eq!(rows(api.get("/v1/connections")).len(), 2);
    let row = rows(api.get("/v1/connections?user=1"));
    assert_eq!((row.len(), &row[0]["id"], &row[0]["user"]), (1, &json!(id), &json!("1")));
    assert_eq!(row[0]["address"], format!("127.0.0.1:{}", one.port()));
    assert_eq!(rows(api.get("/v1/connections?user=")).len(), 0);
    assert_eq!(rows(api.get("/v1/connections?session=x")).len(), 0);
    let output = wootz.run(&["connections", "--user", "1"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("id ") && text.contains(&id), "{text}");
    let text = String::from_utf8(wootz.run(&["connections", "--json"]).stdout).expect("UTF-8");
    assert_eq!(rows(serde_json::from_str(&text).expect("JSON")).len(), 2);
    assert_eq!(wootz.run(&["disconnect", &id, "--code", "4000"]).status.code(), Some(0));
    assert_eq!(one.closed(), 4000);
    one.leave();
    wait_until("it is gone", || {
        let output = wootz.run(&["disconnect", &id]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code() == Some(1) && said.contains("there is no connection")).then_some(())
    });
    assert_eq!(wootz.run(&["disconnect", "x"]).status.code(), Some(1));
    assert_eq!(wootz.run(&["disconnect", &id, "--code", "1006"]).status.code(), Some(1));
    let text = String::from_utf8(wootz.run(&["connections", "--user", "1"]).stdout).expect("UTF-8");
    assert_eq!(text, "no connection\n");
    two.nothing_waits();
}

#[test]
fn list_of_thousands_is_whole_and_delays_no_message() {
    // Who says nothing for half a minute, which is short on a busy machine, would be closed as a silent peer.
    let wootz = application().settings("identity.provider = \"none\"\nlimits.ping_interval = \"0s\"").start();
    let crowd: Vec<raw::Raw> = (0..1000).map(|_| wootz.open()).collect();
    let mut client = wootz.connect();
    wait_until("all are there", || (wootz.status()["connections"]["open"] == 1001).then_some(()));
    let mut api = wootz.api();
    for _ in 0..5 {
        let body = api.get("/v1/connections");
        let ids: BTreeSet<&str> = body["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| row["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(ids.len(), 1001);
        assert_eq!(client.ask("ping"), "pong");
    }
    drop(crowd);
}

#[test]
fn socket_has_its_mode_and_strangers_whom_the_mode_lets_in_are_told_nothing() {
    let wootz = application().settings("control.mode = \"0666\"").start();
    assert_eq!(mode(&wootz.path("wootz.sock")), 0o666);
    fs::set_permissions(wootz.directory(), fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let socket = wootz.path("wootz.sock");
    let as_nobody = |arguments: &[&str]| {
        let mut curl = as_root("setpriv");
        curl.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS", "-w", " %{http_code}"]);
        curl.arg("--unix-socket").arg(&socket).args(arguments);
        run(&mut curl)
    };
    let body = r#"{"to": {"all": true}, "text": "x"}"#;
    for arguments in [["http://x/v1/status"].as_slice(), &["http://x/v1/push", "-d", body], &["http://x/v1/events"]] {
        let said = as_nobody(arguments);
        assert!(said.contains("\"forbidden\"") && said.ends_with(" 403"), "{said}");
    }
    assert_eq!(as_nobody(&["http://x/healthz"]), "alive\n 200");
}

#[test]
fn member_of_the_group_operates_the_server() {
    // Only root can give the socket to a group that it is not in itself.
    let group = if rustix::process::geteuid().is_root() { "control.group = \"daemon\"" } else { "" };
    let wootz = application().settings(group).start();
    fs::set_permissions(wootz.directory(), fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let socket = wootz.path("wootz.sock");
    let group = fs::metadata(&socket).expect("the socket").gid();
    for groups in [
        [format!("--regid={group}"), "--clear-groups".to_owned()],
        ["--regid=65534".to_owned(), format!("--groups={group}")],
    ] {
        let mut curl = as_root("setpriv");
        curl.arg("--reuid=65534").args(groups).args(["curl", "-sS", "--unix-socket"]);
        let said = run(curl.arg(&socket).arg("http://x/v1/status"));
        assert!(said.contains("\"pid\""), "{said}");
    }
}

#[test]
fn second_server_on_one_socket_and_a_socket_in_no_directory_are_refused_and_the_first_goes_on() {
    let wootz = application().start();
    let socket = wootz.path("wootz.sock");
    let second = application().setting("control.socket", format!("{:?}", socket.display().to_string()));
    let output = second.setting("pipes.directory", "\"\"").refused();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("another server answers there"), "{said}");
    assert_eq!(wootz.api().ask("GET", "/v1/status").status, 200);
    let nowhere = application().setting("control.socket", "\"/nowhere/at/all/wootz.sock\"").refused();
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(nowhere.status.code() == Some(2) && said.contains("/nowhere/at/all is no directory"), "{said}");
}

#[test]
fn directory_of_the_socket_that_goes_is_told_by_commands_and_does_not_keep_the_server_from_ending() {
    let setup = application();
    fs::create_dir(setup.path("run")).expect("a directory");
    let mut wootz = setup.setting("control.socket", "\"run/wootz.sock\"").start();
    fs::remove_dir_all(wootz.path("run")).expect("a directory of ours");
    for command in [["status"].as_slice(), &["push", "--all", "x"], &["connections"], &["tail"]] {
        let output = wootz.run(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("no server listens at"), "{command:?}: {said}");
    }
    wootz.signal(rustix::process::Signal::TERM);
    assert_eq!(wootz.wait().code(), Some(0));
}
