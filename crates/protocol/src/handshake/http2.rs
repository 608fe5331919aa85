//! The opening handshake over HTTP/2 (RFC 8441): an extended CONNECT in place of GET and Upgrade.
//!
//! The request is told as HTTP/1.1 would have told it, so that whoever judges it (path, origin, cookie) need not know the version.

use super::head::{HeadLimits, Header, Request, Version, check_body_length, check_target};
use super::refusal::Refusal;
use super::server::{Subprotocols, check_websocket_version, is_host};

/// The pseudo-header fields of a request (RFC 9113, 8.3.1; RFC 8441, section 4), as far as it has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pseudo<'b> {
    /// `:method`
    pub method: &'b str,
    /// `:scheme`
    pub scheme: Option<&'b str>,
    /// `:authority`
    pub authority: Option<&'b str>,
    /// `:path`
    pub path: Option<&'b str>,
    /// `:protocol`
    pub protocol: Option<&'b str>,
}

/// The `Cookie` field that HTTP/1.1 would have, where HTTP/2 cut it into several (RFC 9113, 8.2.3: they MUST be joined by `; `).
pub fn join_cookies<'b>(fields: impl Iterator<Item = Header<'b>>) -> Vec<u8> {
    let crumbs: Vec<&[u8]> = fields.filter(is_cookie).map(|field| field.value).collect();
    crumbs.join(&b"; "[..])
}

fn is_cookie(field: &Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("cookie")
}

/// Tells a request as HTTP/1.1 would: `Host` is `:authority`, `Cookie` is `cookies`, which came from [`join_cookies`].
///
/// # Errors
/// A CONNECT without `:protocol`, too many fields, or what [`parse`](super::parse) refuses too. What HTTP/2 itself forbids in names and values is its
/// reader's to refuse.
pub fn request<'b>(
    pseudo: &Pseudo<'b>,
    fields: impl Iterator<Item = Header<'b>>,
    cookies: &'b [u8],
    limits: &HeadLimits,
) -> Result<Request<'b>, Refusal> {
    // A tunnel to another host has no path, and none is made here.
    let target = pseudo.path.ok_or(match pseudo.method {
        "CONNECT" => Refusal::MissingProtocol,
        _ => Refusal::InvalidTarget,
    })?;
    check_target(target)?;
    let host = pseudo.authority.map(|authority| Header { name: "host", value: authority.as_bytes() });
    let cookie = Header { name: "cookie", value: cookies };
    let mut headers: Vec<Header<'b>> = host.into_iter().collect();
    for field in fields {
        if is_cookie(&field) {
            continue;
        }
        if field.name.eq_ignore_ascii_case("host") && host.is_some() {
            // RFC 9113, 8.3.1: a `Host` that differs MUST NOT be taken for the authority.
            if !host.is_some_and(|host| host.value.eq_ignore_ascii_case(field.value)) {
                return Err(Refusal::InvalidHost);
            }
            continue;
        }
        headers.push(Header { name: field.name, value: field.value.trim_ascii() });
    }
    headers.extend((!cookies.is_empty()).then_some(cookie));
    if headers.len() > limits.max_headers {
        return Err(Refusal::TooManyHeaders);
    }
    let request = Request { method: pseudo.method, target, version: Version::Http2, headers };
    check_body_length(&request)?;
    Ok(request)
}

/// Checks everything that RFC 8441, section 5, asks of a client's request. Gives the subprotocols that it offers; the answer is a 200.
///
/// # Errors
/// The first rule that is broken.
pub fn accept(request: &Request<'_>, pseudo: &Pseudo<'_>) -> Result<Subprotocols, Refusal> {
    match (pseudo.method, pseudo.protocol) {
        ("CONNECT", Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => {}
        ("CONNECT", Some(_)) => return Err(Refusal::UnknownProtocol),
        ("CONNECT", None) => return Err(Refusal::MissingProtocol),
        ("GET", _) => return Err(Refusal::MissingConnect),
        _ => return Err(Refusal::OnlyConnect),
    }
    // Section 4: on requests with `:protocol`, `:scheme` and `:path` MUST be there. Section 5: `https` stands for `wss`, `http` for `ws`.
    if !pseudo.scheme.is_some_and(|scheme| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))) {
        return Err(Refusal::InvalidTarget);
    }
    if pseudo.authority.is_none() || !request.single("host").is_some_and(is_host) {
        return Err(Refusal::InvalidHost);
    }
    // Section 5: the fields that make up an upgrade of HTTP/1.1 are not used. RFC 9113, 8.2.2: they make a request malformed.
    if request.header("connection").is_some() || request.header("upgrade").is_some() {
        return Err(Refusal::InvalidHeader);
    }
    if request.has_body() {
        return Err(Refusal::UnexpectedBody);
    }
    check_websocket_version(request)?;
    Subprotocols::of(request)
}
