//! Entries of `identity.allowed_origins`, in the form in which browsers send `Origin` (RFC 6454, section 6.2).

use wootz_server::config::AllowedOrigin;

/// Parses one entry; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<AllowedOrigin, &'static str> {
    match text {
        "same-origin" => return Ok(AllowedOrigin::SameOrigin),
        "*" => return Ok(AllowedOrigin::Any),
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or("an origin begins with its scheme, as https://example.com")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("an origin is scheme, host and port alone, as https://example.com");
    }
    if authority.contains('*') {
        return Err("an origin is written whole; there are no patterns");
    }
    let (host, port) = split_port(authority)?;
    if !is_scheme(scheme) || !is_host(host) {
        return Err("this is no origin; one looks like https://example.com, with a host in ASCII (xn--…)");
    }
    // Browsers leave the scheme's own port out.
    let port = match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    Ok(AllowedOrigin::Exact(format!("{scheme}://{host}{port}")))
}

/// Host and port; the colons of an IPv6 address are inside its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let after_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_brackets..].find(':') {
        None => Ok((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at(after_brackets + at);
            let port = port[1..].parse().map_err(|_| "the port of an origin is a number up to 65535")?;
            Ok((host, Some(port)))
        }
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        let cases = [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.COM/", "https://example.com"),
            ("https://example.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("http://example.com:443", "http://example.com:443"),
            ("http://localhost:8000", "http://localhost:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ];
        for (written, sent) in cases {
            assert_eq!(parse(written), Ok(AllowedOrigin::Exact(sent.to_owned())));
        }
        assert_eq!(parse("same-origin"), Ok(AllowedOrigin::SameOrigin));
        assert_eq!(parse("*"), Ok(AllowedOrigin::Any));
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "example.com",
            "https://",
            "https://a/b",
            "https://*.a",
            "https://a:x",
            "https://a:70000",
            "https://a b",
            "https://u@a",
            "1x://a",
            "https://bücher.de",
            "https://[::1",
            "https://[zz]",
            "null",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
