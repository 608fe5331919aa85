//! Channels: who joins them, who is in them, how many there may be, and what a call may do with its own token.

mod support;

use serde_json::{Value, json};
use support::api::{Api, EventLines};
use support::client::Client;
use support::{Setup, Wootz, wait_until};

/// The user is whom the cookie `user` names. A call does with its token what its URI asks, and says the status of the answer.
const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { printf '%s' "${HTTP_COOKIE#user=}"; exit; }
ask() { curl -s -o answer -w '%{http_code}' --unix-socket "$WOOTZ_CONTROL" -H "Authorization: Bearer $WOOTZ_TOKEN" "$@"; }
own="http://wootz/v1/connections/$WOOTZ_CONNECTION"
case $REQUEST_URI in
/join/*) ask -X PUT "$own/channels/${REQUEST_URI#/join/}";;
/leave/*) ask -X DELETE "$own/channels/${REQUEST_URI#/leave/}";;
/token) printf '%s' "$WOOTZ_TOKEN";;
/hold) printf '%s' "$WOOTZ_TOKEN" >token; echo >>token; wait_for go; echo held;;
/close) ask -X DELETE "$own";;
/status) ask "http://wootz/v1/status";;
/push) ask "http://wootz/v1/push" -d '{"to": {"all": true}, "text": "x"}';;
/other/*) ask -X PUT "http://wootz/v1/connections/${REQUEST_URI#/other/}/channels/news";;
esac"#;

fn application() -> Setup {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"\nlisten.shards = 2\npipes.requests = false")
}

fn join(api: &mut Api, id: &str, channel: &str) -> u16 {
    api.ask("PUT", &format!("/v1/connections/{id}/channels/{channel}")).status
}

fn leave(api: &mut Api, id: &str, channel: &str) -> u16 {
    api.ask("DELETE", &format!("/v1/connections/{id}/channels/{channel}")).status
}

fn clients(wootz: &Wootz, users: &[&str]) -> (Vec<Client>, Vec<String>) {
    let clients: Vec<Client> = users.iter().map(|user| wootz.connect_as(&format!("user={user}"))).collect();
    let ids = clients.iter().map(|client| wootz.id_of(client.port())).collect();
    (clients, ids)
}

#[test]
fn push_to_a_channel_reaches_those_who_are_in_it_and_its_name_is_exact() {
    let wootz = application().start();
    let (mut all, ids) = clients(&wootz, &["1", "1", "2", ""]);
    let mut api = wootz.api();
    for (number, channel) in [(0, "news"), (2, "news"), (3, "new"), (1, "news%2F1"), (3, "*")] {
        assert_eq!(join(&mut api, &ids[number], channel), 204);
    }
    assert_eq!(join(&mut api, &ids[0], "news"), 204, "joining twice is joining");
    for (channel, reached) in [("news", 2), ("new", 1), ("news/1", 1), ("*", 1), ("News", 0), ("news ", 0), ("n", 0)] {
        let told = api.push(json!({"to": {"channel": channel}, "text": channel}));
        assert_eq!(told["reached"], reached, "{channel:?}");
    }
    assert_eq!(all[0].text(), "news");
    assert_eq!(all[1].text(), "news/1");
    assert_eq!(all[2].text(), "news");
    assert_eq!([all[3].text(), all[3].text()], ["new", "*"]);
    assert_eq!(leave(&mut api, &ids[0], "news"), 204);
    assert_eq!(leave(&mut api, &ids[0], "news"), 204, "leaving twice is leaving");
    assert_eq!(api.push(json!({"to": {"channel": "news"}, "text": "again"}))["reached"], 1);
    assert_eq!(all[2].text(), "again");
    for client in &mut all {
        client.nothing_waits();
    }
}

#[test]
fn channels_are_listed_with_counts_and_presence_by_user_and_an_empty_one_is_gone() {
    let wootz = application().start();
    let (mut all, ids) = clients(&wootz, &["1", "1", "2", ""]);
    let mut api = wootz.api();
    for id in &ids {
        join(&mut api, id, "room");
    }
    join(&mut api, &ids[1], "a%20b");
    let listed = json!({"channels": [{"name": "a b", "connections": 1}, {"name": "room", "connections": 4}]});
    assert_eq!(api.get("/v1/channels"), listed);
    let users = json!([{"user": "1", "connections": 2}, {"user": "2", "connections": 1}]);
    assert_eq!(api.get("/v1/channels/room"), json!({"name": "room", "connections": 4, "guests": 1, "users": users}));
    let rows = |body: Value| body["connections"].as_array().expect("a list").clone();
    let row = rows(api.get("/v1/connections?channel=a+b"));
    assert_eq!((row.len(), &row[0]["channels"]), (1, &json!(["room", "a b"])));
    assert_eq!(rows(api.get("/v1/connections?channel=room&user=1")).len(), 2);
    assert_eq!(rows(api.get("/v1/connections?channel=a%20b&user=2")).len(), 0);
    assert_eq!(wootz.status()["channels"], 2);
    let output = wootz.run(&["channels"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, "name  connections\na b             1\nroom            4\n");
    let text = String::from_utf8(wootz.run(&["channels", "room"]).stdout).expect("UTF-8");
    assert!(text.contains("guests       1") && text.contains("  1               2"), "{text}");
    while let Some(client) = all.pop() {
        client.leave();
    }
    wait_until("no channel is left", || (wootz.status()["channels"] == 0).then_some(()));
    assert_eq!(api.get("/v1/channels"), json!({"channels": []}));
    let nobody = json!({"name": "room", "connections": 0, "guests": 0, "users": []});
    assert_eq!(api.get("/v1/channels/room"), nobody);
}

#[test]
fn channels_are_bounded_in_number_per_connection_and_in_all_and_their_names_in_length() {
    let wootz = application().settings("limits.max_channels = 3\nlimits.channels_per_connection = 2").start();
    let (_all, ids) = clients(&wootz, &["1", "2", "3", "4"]);
    let mut api = wootz.api();
    assert_eq!([join(&mut api, &ids[0], "a"), join(&mut api, &ids[0], "b")], [204, 204]);
    let refused = api.ask("PUT", &format!("/v1/connections/{}/channels/c", ids[0]));
    assert_eq!((refused.status, refused.code().as_str()), (409, "too_many_channels"));
    assert!(refused.message().contains("limits.channels_per_connection"), "{refused:?}");
    assert_eq!(join(&mut api, &ids[1], "c"), 204);
    let refused = api.ask("PUT", &format!("/v1/connections/{}/channels/d", ids[2]));
    assert!(refused.status == 409 && refused.message().contains("limits.max_channels"), "{refused:?}");
    assert_eq!(join(&mut api, &ids[2], "a"), 204, "one that is there costs nothing more");
    assert_eq!(leave(&mut api, &ids[1], "c"), 204);
    assert_eq!(join(&mut api, &ids[3], "d"), 204, "the emptied one made room");
    let long = "x".repeat(129);
    for bad in ["", "a%0Ab", "%00", "%FF", "%C2%85", &long] {
        let answered = api.ask("PUT", &format!("/v1/connections/{}/channels/{bad}", ids[3]));
        assert_eq!((answered.status, answered.code().as_str()), (400, "bad_request"), "{bad}");
    }
    assert_eq!(join(&mut api, &ids[3], &long[..128]), 409, "as long as may be, but one too many");
    assert_eq!(join(&mut api, &"0".repeat(32), "a"), 404);
    assert_eq!(leave(&mut api, &"0".repeat(32), "a"), 404);
    assert_eq!(join(&mut api, "7", "a"), 400);
}

#[test]
fn call_joins_and_leaves_for_its_own_connection_with_its_token_and_may_do_nothing_else() {
    let wootz = application().start();
    let (mut all, ids) = clients(&wootz, &["1", "2"]);
    assert_eq!(all[0].ask("/join/news"), "204");
    assert_eq!(wootz.api().get("/v1/channels/news")["users"], json!([{"user": "1", "connections": 1}]));
    assert_eq!(all[0].ask("/leave/news"), "204");
    assert_eq!(wootz.api().get("/v1/channels"), json!({"channels": []}));
    // The same process could do all of this without the token: it runs as the server's user. With it, it is its call alone.
    for uri in ["/close", "/status", "/push", &format!("/other/{}", ids[1])] {
        assert_eq!(all[0].ask(uri), "403", "{uri}");
        let said: Value = serde_json::from_str(&wootz.content("answer")).expect("JSON");
        assert_eq!(said["error"]["code"], "forbidden");
    }
    all[1].nothing_waits();
}

#[test]
fn token_is_good_only_while_its_call_runs() {
    let wootz = application().start();
    let (mut all, ids) = clients(&wootz, &["1"]);
    all[0].send("/hold");
    let token = wootz.wait_for_file("token");
    let mut api = wootz.api().with_token(token.trim());
    assert_eq!(join(&mut api, &ids[0], "while"), 204);
    wootz.release("go");
    assert_eq!(all[0].text(), "held");
    wait_until("the token is good for nothing", || (join(&mut api, &ids[0], "after") == 403).then_some(()));
    let another = all[0].ask("/token");
    assert_ne!(another, token.trim());
    let mut changed = token.trim().to_owned();
    changed.replace_range(..1, if changed.starts_with('0') { "1" } else { "0" });
    for wrong in [changed.as_str(), "x", &token.trim()[1..]] {
        let answered = wootz.api().with_token(wrong).ask("PUT", &format!("/v1/connections/{}/channels/x", ids[0]));
        assert_eq!((answered.status, answered.code().as_str()), (401, "unauthorized"), "{wrong}");
    }
    assert!(!wootz.log().contains(token.trim()), "no token is in the log");
}

#[test]
fn joined_and_left_are_events_also_when_a_connection_closes() {
    let wootz = application().start();
    let (mut all, ids) = clients(&wootz, &["1"]);
    let mut events = EventLines::listen(wootz.api(), "");
    let mut api = wootz.api();
    join(&mut api, &ids[0], "a");
    join(&mut api, &ids[0], "a");
    join(&mut api, &ids[0], "b");
    leave(&mut api, &ids[0], "a");
    all.pop().expect("one").leave();
    for (name, channel) in [("joined", "a"), ("joined", "b"), ("left", "a"), ("left", "b")] {
        let event = events.event();
        assert_eq!((&event["event"], &event["channel"]), (&json!(name), &json!(channel)), "{event}");
        assert_eq!((&event["connection"], &event["user"]), (&json!(ids[0]), &json!("1")), "{event}");
    }
    assert_eq!(events.event()["event"], "closed");
}

#[test]
fn channels_that_validate_names_are_joined_before_the_first_message() {
    let script = r#"[ "$WOOTZ_EVENT" = validate ] && echo '{"user": "1", "channels": ["news", "news", "a b"]}'"#;
    let wootz = Setup::sh(script).settings("identity.provider = \"application\"\nlisten.shards = 2").start();
    let mut client = wootz.connect();
    assert_eq!(wootz.api().push(json!({"to": {"channel": "news"}, "text": "hi"}))["queued"], 1);
    assert_eq!(client.text(), "hi");
    let channels = &wootz.api().get("/v1/connections")["connections"][0]["channels"];
    assert_eq!(*channels, json!(["news", "a b"]));
}
