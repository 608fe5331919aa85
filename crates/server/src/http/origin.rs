//! Which pages may open a connection. A browser tells the page's origin in every handshake, and no page can forge it.

use wootz_protocol::handshake::Request;

use crate::config::AllowedOrigin;

/// Whether the page that opened this handshake is allowed.
///
/// A handshake without `Origin` comes from no browser's page, so there is nobody whose cookies a foreign page could use.
/// `X-Forwarded-Host` is believed from anybody: a page's script can set it no more than `Origin` itself, and behind a proxy that
/// rewrites `Host` (Apache's `[P]`) it is the only trace of the host that the browser asked for.
pub(crate) fn is_allowed(request: &Request<'_>, allowed: &[AllowedOrigin]) -> bool {
    let mut origins = request.all("origin");
    let Some(origin) = origins.next() else { return true };
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    if origins.next().is_some() {
        return allowed.contains(&AllowedOrigin::Any);
    }
    let origin = origin.to_ascii_lowercase();
    allowed.iter().any(|entry| match entry {
        AllowedOrigin::Any => true,
        AllowedOrigin::Exact(exact) => *exact == origin,
        AllowedOrigin::SameOrigin => is_same_origin(request, &origin),
    })
}

fn is_same_origin(request: &Request<'_>, origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let page = split_port(authority, default_port);
    let forwarded = request.all("x-forwarded-host").flat_map(|value| value.split(|&byte| byte == b','));
    let hosts = request.all("host").chain(forwarded);
    hosts.filter_map(|host| std::str::from_utf8(host).ok()).any(|host| {
        let host = host.trim().to_ascii_lowercase();
        // A proxy that ends TLS leaves no trace of the scheme: the port that is not written is the page's own.
        split_port(&host, default_port) == page
    })
}

fn split_port<'a>(authority: &'a str, default_port: &'a str) -> (&'a str, &'a str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, default_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wootz_protocol::handshake::{HeadLimits, Parsed, parse};

    fn allowed(fields: &str, allowed: &[AllowedOrigin]) -> bool {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        match parse(head.as_bytes(), &HeadLimits::default()) {
            Ok(Parsed::Complete { request, .. }) => is_allowed(&request, allowed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_allowed_and_no_other() {
        let cases = [
            ("Host: example.com\r\nOrigin: http://example.com", true),
            ("Host: example.com\r\nOrigin: https://example.com", true),
            ("Host: example.com:443\r\nOrigin: https://EXAMPLE.com", true),
            ("Host: localhost:8888\r\nOrigin: http://localhost:8888", true),
            ("Host: [::1]:8888\r\nOrigin: http://[::1]:8888", true),
            ("Host: localhost:8888\r\nOrigin: http://localhost:8000", false),
            ("Host: example.com\r\nOrigin: https://example.com:8443", false),
            ("Host: example.com\r\nOrigin: https://evil.com", false),
            ("Host: example.com\r\nOrigin: https://example.com.evil.com", false),
            ("Host: example.com\r\nOrigin: null", false),
            ("Host: example.com\r\nOrigin: file://example.com", false),
            ("Host: example.com\r\nOrigin: ", false),
            ("Host: example.com\r\nOrigin: https://evil.com\r\nOrigin: https://example.com", false),
            ("Host: example.com", true),
            ("Host: 127.0.0.1:8888\r\nX-Forwarded-Host: example.com\r\nOrigin: https://example.com", true),
            ("Host: 127.0.0.1:8888\r\nX-Forwarded-Host: a.com, example.com\r\nOrigin: https://example.com", true),
            ("Host: 127.0.0.1:8888\r\nX-Forwarded-Host: example.com\r\nOrigin: https://evil.com", false),
        ];
        for (fields, expected) in cases {
            assert_eq!(allowed(fields, &[AllowedOrigin::SameOrigin]), expected, "{fields}");
        }
    }

    #[test]
    fn an_exact_origin_is_compared_whole() {
        let list = [AllowedOrigin::Exact("https://shop.example.com".to_owned())];
        assert!(allowed("Host: x\r\nOrigin: https://shop.example.com", &list));
        assert!(!allowed("Host: x\r\nOrigin: https://shop.example.com.evil.com", &list));
        assert!(!allowed("Host: x\r\nOrigin: http://shop.example.com", &list));
        assert!(allowed("Host: x\r\nOrigin: null", &[AllowedOrigin::Any]));
    }
}
