//! Every endpoint of the API, once, and what answers it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::mpsc;
use wootz_protocol::CloseCode;

use super::access::Who;
use super::answer::{Answer, Body, Failure, json, text, with_type};
use super::connections::{self, Change, Filter, parse_id};
use super::metrics;
use super::push::{self, Joins, Push, Receipt};
use crate::events::Payloads;
use crate::push::channels;
use crate::server::Handle;

/// A body that takes longer than this to come is given up.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What JSON may add around a payload.
const JSON_BYTES: usize = 16 * 1024;

/// Events that wait between the listener and the socket.
const EVENT_PARTS: usize = 16;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// As OpenAPI writes it: `{}` around what varies.
    pub(super) path: &'static str,
    endpoint: Endpoint,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Push,
    Status,
    Connections,
    Disconnect,
    Join,
    Leave,
    Channels,
    Channel,
    Events,
    Metrics,
    Health,
    Readiness,
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Operators,
    /// Also a call for its own connection.
    OwnConnection,
    Everybody,
}

const fn route(method: Method, path: &'static str, endpoint: Endpoint, access: Access) -> Route {
    Route { method, path, endpoint, access }
}

/// All of them. `docs/openapi.json` has the same, and a test holds the two together.
pub(super) const ROUTES: &[Route] = &[
    route(Method::POST, "/v1/push", Endpoint::Push, Access::Operators),
    route(Method::GET, "/v1/status", Endpoint::Status, Access::Operators),
    route(Method::GET, "/v1/connections", Endpoint::Connections, Access::Operators),
    route(Method::DELETE, "/v1/connections/{id}", Endpoint::Disconnect, Access::Operators),
    route(Method::PUT, "/v1/connections/{id}/channels/{name}", Endpoint::Join, Access::OwnConnection),
    route(Method::DELETE, "/v1/connections/{id}/channels/{name}", Endpoint::Leave, Access::OwnConnection),
    route(Method::GET, "/v1/channels", Endpoint::Channels, Access::Operators),
    route(Method::GET, "/v1/channels/{name}", Endpoint::Channel, Access::Operators),
    route(Method::GET, "/v1/events", Endpoint::Events, Access::Operators),
    route(Method::GET, "/metrics", Endpoint::Metrics, Access::Operators),
    route(Method::GET, "/healthz", Endpoint::Health, Access::Everybody),
    route(Method::GET, "/readyz", Endpoint::Readiness, Access::Everybody),
];

/// Whether this is answered without a look at who asks: for programs that watch over many servers and know no token.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Ok((route, _)) if route.access == Access::Everybody)
}

/// The endpoint of a path, and what varies in it. `Err`: the methods that the path has, none where there is no such path.
fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Vec<&'static str>> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        if let Some(varying) = matches(route.path, path) {
            if route.method == *method {
                return Ok((route, varying));
            }
            allowed.push(route.method.as_str());
        }
    }
    Err(allowed)
}

/// What stands in `path` where the pattern varies, still encoded.
fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut varying = Vec::new();
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(varying),
            (Some(wanted), Some(found)) if wanted.starts_with('{') => varying.push(found.to_owned()),
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return None,
        }
    }
}

/// Answers one request of somebody who is known already.
pub(super) async fn answer(handle: &Handle, who: Who, request: Request<Incoming>) -> Answer {
    let (route, varying) = match find(request.method(), request.uri().path()) {
        Ok(found) => found,
        Err(allowed) => return unknown(request.uri().path(), &allowed),
    };
    let answered = async {
        let varying = varying.iter().map(|part| decode(part, Plus::Literal)).collect::<Option<Vec<_>>>();
        let varying = varying.ok_or_else(|| bad("the path is not UTF-8, or has a wrong %XX"))?;
        permit(route.access, who, varying.first().map(String::as_str))?;
        perform(handle, who, route.endpoint, &varying, request).await
    };
    answered.await.unwrap_or_else(Failure::into_answer)
}

fn unknown(path: &str, allowed: &[&str]) -> Answer {
    if allowed.is_empty() {
        let path: String = path.chars().take(100).collect();
        let message = format!("no such endpoint: {path}");
        return Failure::new(StatusCode::NOT_FOUND, "not_found", message).into_answer();
    }
    let allowed = allowed.join(", ");
    let message = format!("only {allowed}");
    let mut answer = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_answer();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_str(&allowed).expect("methods are tokens"));
    answer
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn permit(access: Access, who: Who, id: Option<&str>) -> Result<(), Failure> {
    let refused = match (access, who) {
        (Access::Everybody, _) | (_, Who::Operator) => return Ok(()),
        (Access::OwnConnection, Who::Call { connection, .. }) if id.and_then(parse_id) == Some(connection.0) => {
            return Ok(());
        }
        (_, Who::Call { .. }) => "the token of a call is only good for the channels of its own connection",
        (_, Who::Stranger) => "only root, the server's own user and members of control.group may do that",
    };
    Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", refused))
}

async fn perform(
    handle: &Handle,
    who: Who,
    endpoint: Endpoint,
    varying: &[String],
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let pusher = handle.pusher();
    let query = |known: &[&str]| parse_query(request.uri().query().unwrap_or_default(), known);
    match endpoint {
        Endpoint::Push => {
            query(&[])?;
            push(handle, request).await
        }
        Endpoint::Status => {
            query(&[])?;
            let status = serde_json::to_value(handle.status().await).map_err(|error| internal(&error))?;
            Ok(json(StatusCode::OK, &status))
        }
        Endpoint::Connections => {
            let mut query = query(&["user", "session", "channel"])?;
            let mut take = |name| query.take(name).map(Arc::from);
            let filter = Filter { user: take("user"), session: take("session"), channel: take("channel") };
            Ok(connections::list(pusher, filter))
        }
        Endpoint::Disconnect => {
            let code = close_code(query(&["code"])?.take("code"))?;
            connections::disconnect(pusher, id(&varying[0])?, code).await
        }
        Endpoint::Join | Endpoint::Leave => {
            query(&[])?;
            let change = if endpoint == Endpoint::Join { Change::Join } else { Change::Leave };
            let call = if let Who::Call { call, .. } = who { Some(call) } else { None };
            connections::change_channel(pusher, id(&varying[0])?, channel(&varying[1])?, change, call).await
        }
        Endpoint::Channels => {
            query(&[])?;
            Ok(connections::channels(pusher).await)
        }
        Endpoint::Channel => {
            query(&[])?;
            Ok(connections::channel(pusher, channel(&varying[0])?).await)
        }
        Endpoint::Events => {
            let mut query = query(&["user", "payload"])?;
            let payloads = match query.take("payload").as_deref() {
                None | Some("0") => Payloads::Hidden,
                Some("1") => Payloads::Shown,
                Some(_) => return Err(bad("payload is 0 or 1")),
            };
            events(handle, query.take("user"), payloads)
        }
        Endpoint::Metrics => {
            query(&[])?;
            let text = metrics::encode(handle.status().await).map_err(|error| internal(&error))?;
            Ok(with_type(StatusCode::OK, metrics::CONTENT_TYPE, Body::Whole(Some(text.into()))))
        }
        Endpoint::Health => Ok(text(StatusCode::OK, "alive\n")),
        Endpoint::Readiness if handle.is_ending() => Ok(text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")),
        Endpoint::Readiness => Ok(text(StatusCode::OK, "ready\n")),
    }
}

fn internal(error: &impl std::fmt::Display) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
}

fn id(text: &str) -> Result<u128, Failure> {
    parse_id(text).ok_or_else(|| bad("the id of a connection is 32 hexadecimal digits"))
}

fn channel(text: &str) -> Result<Arc<str>, Failure> {
    channels::name(text).map_err(|why| bad(why.to_string()))
}

fn close_code(text: Option<String>) -> Result<CloseCode, Failure> {
    let Some(text) = text else { return Ok(CloseCode::Normal) };
    let code = text.parse::<u16>().ok().and_then(|number| CloseCode::try_from(number).ok());
    code.ok_or_else(|| bad("code is a close code that may be sent: 1000 to 1014 but for 1004 to 1006, or 3000 to 4999"))
}

async fn push(handle: &Handle, request: Request<Incoming>) -> Result<Answer, Failure> {
    let max_bytes = handle.config().limits.max_message_bytes;
    let body = read_body(request, max_bytes).await?;
    let Push { command, wait, patience } = push::parse(&body, max_bytes)?;
    drop(body);
    let joins = Joins::of(&command);
    let outcome = handle.pusher().push(command, wait, patience).await.map_err(|error| {
        use crate::push::PushError;
        let (status, code) = match error {
            PushError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            PushError::Unanswered => (StatusCode::GATEWAY_TIMEOUT, "unanswered"),
        };
        Failure::new(status, code, error.to_string())
    })?;
    Ok(json(StatusCode::OK, &Receipt::new(joins, wait, &outcome)))
}

/// A payload may be six times as long in JSON, where every byte of it is written `\u00XX`.
async fn read_body(request: Request<Incoming>, max_payload_bytes: usize) -> Result<Bytes, Failure> {
    let most = max_payload_bytes.saturating_mul(6).saturating_add(JSON_BYTES);
    let too_large = || {
        let message = format!("the body has more than {most} bytes (limits.max_message)");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    if request.body().size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(request.into_body(), most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(bad("the body ended early")),
        Err(_elapsed) => {
            let message = format!("the body was not complete within {} s", BODY_TIME.as_secs());
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message))
        }
    }
}

fn events(handle: &Handle, user: Option<String>, payloads: Payloads) -> Result<Answer, Failure> {
    let user = user.map(Arc::from);
    let Some(mut lines) = handle.pusher().events.listen(user, payloads) else {
        let message = "as many listen to events as may; end one of them";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", message));
    };
    let (sender, parts) = mpsc::channel(EVENT_PARTS);
    tokio::task::spawn_local(async move {
        loop {
            tokio::select! {
                line = lines.next() => if sender.send(line).await.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    Ok(with_type(StatusCode::OK, "application/x-ndjson", Body::Parts(parts)))
}

/// The parameters of a query.
#[derive(Debug, Default)]
struct Query(Vec<(String, String)>);

impl Query {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// As forms are encoded; every mistake is named.
fn parse_query(query: &str, known: &[&str]) -> Result<Query, Failure> {
    let (mut found, mut mistakes) = (Query::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decode(name, Plus::Space), decode(value, Plus::Space)) {
            (Some(name), Some(value)) if known.contains(&name.as_str()) => {
                if found.0.iter().any(|(other, _)| *other == name) {
                    mistakes.push(format!("?{name} is there twice"));
                } else {
                    found.0.push((name, value));
                }
            }
            (Some(name), Some(_)) => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
                let there_are =
                    if known.is_empty() { "none is".to_owned() } else { format!("there are {}", known.join(", ")) };
                mistakes.push(format!("?{name} is no parameter here; {there_are}"));
            }
            _ => mistakes.push("the query is not UTF-8, or has a wrong %XX".to_owned()),
        }
    }
    if mistakes.is_empty() { Ok(found) } else { Err(Failure::mistakes(&mistakes)) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plus {
    Literal,
    Space,
}

/// Takes the `%XX` out. `None`: a `%` without two digits, or what comes out is not UTF-8.
fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
                rest = after;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_openapi_file_has_every_endpoint_and_no_other() {
        let file = include_str!("../../../../docs/openapi.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("docs/openapi.json is JSON");
        let paths = file["paths"].as_object().expect("paths");
        let described: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("an object").keys().filter(|key| *key != "parameters");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let served: BTreeSet<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn a_path_is_matched_whole_and_what_varies_is_given() {
        let (route, varying) = find(&Method::PUT, "/v1/connections/ab/channels/a%2Fb").expect("an endpoint");
        assert_eq!((route.endpoint, varying), (Endpoint::Join, vec!["ab".to_owned(), "a%2Fb".to_owned()]));
        for nowhere in ["/", "/v1", "/v1/push/", "//v1/push", "/v1/connections/a/channels", "/v1/channels/a/b"] {
            assert_eq!(find(&Method::GET, nowhere).err(), Some(vec![]), "{nowhere}");
        }
        assert_eq!(find(&Method::GET, "/v1/push").err(), Some(vec!["POST"]));
        assert_eq!(find(&Method::GET, "/v1/connections/a/channels/b").err(), Some(vec!["PUT", "DELETE"]));
    }

    #[test]
    fn what_is_encoded_is_decoded_and_what_is_wrong_is_refused() {
        assert_eq!(decode("a%2Fb+c", Plus::Literal).as_deref(), Some("a/b+c"));
        assert_eq!(decode("a+b%2B", Plus::Space).as_deref(), Some("a b+"));
        for wrong in ["%", "%4", "%zz", "%FF"] {
            assert_eq!(decode(wrong, Plus::Literal), None, "{wrong}");
        }
    }

    #[test]
    fn every_mistake_of_a_query_is_named() {
        let failure = parse_query("user=1&user=2&x=3&%zz=1", &["user"]).expect_err("three mistakes");
        for part in ["?user is there twice", "?x is no parameter here; there are user", "wrong %XX"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        let mut query = parse_query("user=a%26b&&code=", &["user", "code"]).expect("a good query");
        assert_eq!((query.take("user").as_deref(), query.take("code").as_deref()), (Some("a&b"), Some("")));
    }

    #[test]
    fn only_codes_that_may_be_sent_close_a_connection() {
        assert_eq!(close_code(None).expect("the default"), CloseCode::Normal);
        assert_eq!(close_code(Some("4001".to_owned())).expect("a code").number(), 4001);
        for wrong in ["", "0", "999", "1005", "1006", "5000", "70000", "x"] {
            assert!(close_code(Some(wrong.to_owned())).is_err(), "{wrong}");
        }
    }
}
