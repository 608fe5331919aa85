//! Who may do what: operators everything, a call's token what concerns its own connection, others nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use tokio::net::unix::UCred;
use wootz_runner::{CapabilityKey, ConnectionId};

use super::answer::{Answer, Failure};
use crate::config::Secret;

/// Wrong tokens of one address in [`WINDOW`]; then it is not listened to until the window has passed.
const MAX_FAILURES: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered; when so many have failed, those that are not known yet are refused too.
const MAX_ADDRESSES: usize = 1024;

/// Who a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Operator,
    /// A call, which may change the channels of its own connection.
    Call {
        connection: ConnectionId,
        call: u64,
    },
    /// Somebody whom the socket's mode let in, and who is neither.
    Stranger,
}

/// Who connected to the Unix socket, as the kernel says.
pub(super) fn of_peer(peer: &UCred, group: Option<u32>) -> Who {
    let own = rustix::process::geteuid().as_raw();
    // Where none is named, the socket has the server's own group.
    let group = group.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let in_group = || peer.gid() == group || peer.pid().is_some_and(|pid| is_member(pid, group));
    if peer.uid() == 0 || peer.uid() == own || in_group() { Who::Operator } else { Who::Stranger }
}

/// Whether a process has this group among its further ones. The kernel has looked at the socket's mode already; this is for modes that
/// let everybody in.
fn is_member(pid: i32, group: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|member| member.parse() == Ok(group))
}

/// The token that a request shows (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<Result<&str, Failure>> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next()?;
    let token = field.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    Some(match (token, fields.next()) {
        (Some(token), None) if !token.is_empty() => Ok(token),
        _ => Err(unauthorized("the Authorization field has to be: Bearer TOKEN")),
    })
}

fn unauthorized(message: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

/// Who a request on the Unix socket is from: a token that is shown narrows what its peer may do, it never widens it to others.
pub(super) fn on_socket<B>(request: &Request<B>, peer: Who, key: Option<&CapabilityKey>) -> Result<Who, Failure> {
    let Some(token) = bearer(request.headers()) else { return Ok(peer) };
    match key.and_then(|key| Some((key, token.as_ref().ok()?))).and_then(|(key, token)| key.recognize(token)) {
        Some((connection, call)) => Ok(Who::Call { connection, call }),
        None => Err(token.err().unwrap_or_else(|| unauthorized("this token is not one of this server's calls"))),
    }
}

/// Who a request by TCP is from: whoever knows the token is an operator.
pub(super) fn by_tcp<B>(
    request: &Request<B>,
    address: IpAddr,
    token: &Secret,
    failures: &mut Failures,
    now: Instant,
) -> Result<Who, Failure> {
    if names_token(request.uri().query().unwrap_or_default()) {
        let message =
            "a token does not belong into the query, where logs keep it; send the field Authorization: Bearer TOKEN";
        return Err(Failure::new(StatusCode::BAD_REQUEST, "token_in_query", message));
    }
    failures.admit(address, now)?;
    let shown = match bearer(request.headers()) {
        None => return Err(unauthorized("a token is needed: Authorization: Bearer TOKEN (control.token_file)")),
        Some(shown) => shown,
    };
    if shown.as_ref().is_ok_and(|shown| token.is(shown)) {
        return Ok(Who::Operator);
    }
    failures.count(address, now);
    Err(shown.err().unwrap_or_else(|| unauthorized("the token is wrong")))
}

fn names_token(query: &str) -> bool {
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    names.any(|name| name.eq_ignore_ascii_case("token") || name.eq_ignore_ascii_case("access_token"))
}

/// Wrong tokens by address. Networks of IPv6 count as one: whoever has one address of them has all.
#[derive(Debug, Default)]
pub(super) struct Failures {
    addresses: HashMap<IpAddr, (u32, Instant)>,
}

impl Failures {
    fn admit(&mut self, address: IpAddr, now: Instant) -> Result<(), Failure> {
        let known = self.addresses.get(&network(address));
        let blocked = match known {
            Some((failures, since)) => *failures >= MAX_FAILURES && now < *since + WINDOW,
            None => {
                self.forget_old(now);
                self.addresses.len() >= MAX_ADDRESSES
            }
        };
        if blocked {
            let message = "too many wrong tokens from there; try again in a minute";
            return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message));
        }
        Ok(())
    }

    fn count(&mut self, address: IpAddr, now: Instant) {
        let (failures, since) = self.addresses.entry(network(address)).or_insert((0, now));
        if now >= *since + WINDOW {
            (*failures, *since) = (0, now);
        }
        *failures += 1;
    }

    fn forget_old(&mut self, now: Instant) {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, (_, since)| now < *since + WINDOW);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// What RFC 9110 wants beside a status: how to authenticate, when to come back.
pub(super) fn complete(mut answer: Answer) -> Answer {
    match answer.status() {
        StatusCode::UNAUTHORIZED => {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wootz\""));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        _ => {}
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, authorization: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(()).expect("a request")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_the_whole_token_in_its_field_is_an_operators() {
        let (secret, now) = (Secret::new("s3cret"), Instant::now());
        let ask = |uri, field| {
            let mut failures = Failures::default();
            by_tcp(&request(uri, field), address("192.0.2.1"), &secret, &mut failures, now)
                .map_err(|f| f.status.as_u16())
        };
        assert_eq!(ask("/v1/status", Some("Bearer s3cret")), Ok(Who::Operator));
        assert_eq!(ask("/v1/status", Some("bearer s3cret")), Ok(Who::Operator));
        for wrong in
            [None, Some("Bearer s3cre"), Some("Bearer s3crett"), Some("Bearer "), Some("s3cret"), Some("Basic s3cret")]
        {
            assert_eq!(ask("/v1/status", wrong), Err(401), "{wrong:?}");
        }
        for uri in ["/v1/status?token=s3cret", "/v1/status?a=b&ACCESS_TOKEN=s3cret"] {
            assert_eq!(ask(uri, Some("Bearer s3cret")), Err(400), "{uri}");
        }
    }

    #[test]
    fn an_address_that_fails_too_often_is_not_listened_to_for_a_minute_and_others_are() {
        let (secret, now, mut failures) = (Secret::new("s3cret"), Instant::now(), Failures::default());
        let mut ask = |from, field, now| {
            by_tcp(&request("/", Some(field)), address(from), &secret, &mut failures, now)
                .map_err(|f| f.status.as_u16())
        };
        for _ in 0..MAX_FAILURES {
            assert_eq!(ask("2001:db8::1", "Bearer wrong", now), Err(401));
        }
        assert_eq!(ask("2001:db8::2", "Bearer s3cret", now), Err(429), "the same network");
        assert_eq!(ask("2001:db8:0:1::1", "Bearer s3cret", now), Ok(Who::Operator));
        assert_eq!(ask("2001:db8::1", "Bearer s3cret", now + WINDOW), Ok(Who::Operator));
    }

    #[test]
    fn addresses_that_are_remembered_are_bounded() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for number in 0..MAX_ADDRESSES as u32 {
            let address = IpAddr::V4(number.into());
            assert!(failures.admit(address, now).is_ok());
            failures.count(address, now);
        }
        assert!(failures.admit(address("192.0.2.1"), now).is_err());
        assert!(failures.admit(IpAddr::V4(5.into()), now).is_ok(), "one wrong token is no crime");
        assert!(failures.admit(address("192.0.2.1"), now + WINDOW).is_ok());
    }

    #[test]
    fn a_calls_token_narrows_whoever_shows_it() {
        let key = CapabilityKey::new([1; 32]);
        let token = key.issue(ConnectionId(5), 3).token();
        let ask = |field: Option<&str>, peer| {
            on_socket(&request("/", field), peer, Some(&key)).map_err(|f| f.status.as_u16())
        };
        assert_eq!(ask(None, Who::Operator), Ok(Who::Operator));
        assert_eq!(ask(None, Who::Stranger), Ok(Who::Stranger));
        let call = Who::Call { connection: ConnectionId(5), call: 3 };
        for peer in [Who::Operator, Who::Stranger] {
            assert_eq!(ask(Some(&format!("Bearer {token}")), peer), Ok(call));
            assert_eq!(ask(Some("Bearer 5.3.0"), peer), Err(401));
            assert_eq!(ask(Some("Bearer"), peer), Err(401));
        }
    }
}
