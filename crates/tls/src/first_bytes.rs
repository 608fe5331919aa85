//! Who came to the wrong door, told by the first bytes, and the answer that its program can show.

/// What a client that speaks plain HTTP to a TLS listener is told before it is closed.
pub const ANSWER_TO_PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 66\r\n\
    Connection: close\r\n\
    \r\n\
    This address speaks TLS: use https:// or wss:// instead of plain.\n";

/// What a client that speaks TLS to a plain listener is told before it is closed: the fatal alert `handshake_failure`
/// (RFC 8446, section 6.2).
pub const ANSWER_TO_TLS: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

const METHODS: [&[u8]; 10] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ", b"PRI "];

/// Whether `first_bytes` begin an HTTP request, so far as they go. No TLS record begins with a letter, so one byte
/// suffices.
pub fn is_plain_http(first_bytes: &[u8]) -> bool {
    !first_bytes.is_empty()
        && METHODS.iter().any(|method| {
            let common = method.len().min(first_bytes.len());
            method[..common] == first_bytes[..common]
        })
}

/// Whether `first_bytes` begin a ClientHello of SSL 3.0 or any TLS, so far as they go. No HTTP request begins with its
/// first byte.
pub fn looks_like_client_hello(first_bytes: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let expect = |position: usize, byte: u8| first_bytes.get(position).is_none_or(|given| *given == byte);
    !first_bytes.is_empty()
        && expect(0, HANDSHAKE)
        && expect(1, 3)
        && first_bytes.get(2).is_none_or(|minor| *minor <= 4)
        && expect(5, CLIENT_HELLO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_known_by_its_method_cut_anywhere() {
        let request = b"OPTIONS / HTTP/1.1\r\n";
        for end in 1..request.len() {
            assert!(is_plain_http(&request[..end]), "of {end} bytes");
        }
        for other in [&b""[..], b"GETTY", b"SSH-2.0-", b"\x16\x03\x01", b"get /"] {
            assert!(!is_plain_http(other), "{other:?}");
        }
    }

    #[test]
    fn a_client_hello_is_known_cut_anywhere() {
        let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        for end in 1..hello.len() {
            assert!(looks_like_client_hello(&hello[..end]), "of {end} bytes");
        }
        for other in [&b""[..], b"GET / HTTP/1.1", &[22, 2], &[22, 3, 9], &[23, 3, 3], &[22, 3, 3, 0, 9, 2]] {
            assert!(!looks_like_client_hello(other), "{other:?}");
        }
    }

    #[test]
    fn the_answer_to_plain_http_has_the_length_it_says() {
        let answer = std::str::from_utf8(ANSWER_TO_PLAIN_HTTP).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "the body has {} bytes", body.len());
    }
}
