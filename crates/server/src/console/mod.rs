//! The console page that a server in development mode serves on a plain `GET /`.
//!
//! One file without a build: HTML, CSS and JavaScript, compiled into the binary, that needs no network but the WebSocket it
//! opens. The page shows what came from outside as text only, and its policy lets nothing run but its own script: whoever
//! edits the page renews the two hashes below (the test here says what they must be).

mod note;

pub(crate) use note::{Note, SUBPROTOCOL};

/// The page, UTF-8. Send it as `text/html; charset=utf-8` with [`CONTENT_SECURITY_POLICY`].
pub(crate) const PAGE: &str = include_str!("console.html");

/// The value of the page's `Content-Security-Policy` field.
///
/// The schemes are allowed in `connect-src` because not every browser takes a WebSocket to the same host for `'self'`.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-ui0SB6+I2PU7STd6dM26iQrpWY9lhXa35357blFBkc8='; \
    style-src 'sha256-SK6ReZmd5+aOnJImXGeoC6/FtuDolkzj9UxWpL7kKE0='; \
    img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::{CONTENT_SECURITY_POLICY, PAGE, SUBPROTOCOL};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    fn content_of(element: &str) -> &'static str {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!(PAGE.matches(&open).count(), 1, "the page has exactly one {open}");
        let start = PAGE.find(&open).expect("counted above") + open.len();
        let length = PAGE[start..].find(&close).unwrap_or_else(|| panic!("{close} is missing"));
        &PAGE[start..start + length]
    }

    #[test]
    fn policy_names_the_hashes_of_the_script_and_the_style_of_the_page() {
        for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
            let hash = STANDARD.encode(Sha256::digest(content_of(element)));
            let wanted = format!("{directive} 'sha256-{hash}';");
            assert!(CONTENT_SECURITY_POLICY.contains(&wanted), "the page was edited, its policy must say: {wanted}");
        }
    }

    #[test]
    fn policy_is_one_header_field_value() {
        assert!(CONTENT_SECURITY_POLICY.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert!(!CONTENT_SECURITY_POLICY.contains("  "), "a continued line left its indentation");
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }

    #[test]
    fn page_asks_for_the_subprotocol_of_the_console() {
        assert!(content_of("script").contains(&format!("[\"{SUBPROTOCOL}\"]")));
    }

    #[test]
    fn page_needs_no_network_and_builds_no_markup_from_text() {
        for forbidden in
            ["src=\"", "href=\"http", "@import", "url(", "innerHTML", "outerHTML", "insertAdjacent", "eval("]
        {
            assert!(!PAGE.contains(forbidden), "the page holds {forbidden:?}");
        }
    }
}
