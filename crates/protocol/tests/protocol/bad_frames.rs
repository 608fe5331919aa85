//! Every way to break RFC 6455 with frames, the code it is failed with, and how early.

use std::time::Instant;

use wootz_protocol::{
    CloseCode, Endpoint, Event, Input, Opcode, ProtocolError, Role, Settings, encode_masked, encode_unmasked,
};

use crate::pair::next_mask;

/// Feeds one byte at a time. Gives what was wrong, the bytes read until then, and the code that was answered.
fn failure(role: Role, bytes: &[u8]) -> Option<(ProtocolError, usize, u16)> {
    let (now, settings) = (Instant::now(), Settings::default());
    let mut endpoint = Endpoint::new(role, now);
    for (index, byte) in bytes.iter().enumerate() {
        let mut byte = [*byte];
        let mut input = Input::new(&mut byte);
        while let Some(event) = endpoint.next_event(&mut input, &settings, now) {
            if let Event::Failed { error, answer } = event {
                assert!(endpoint.is_finished() && !endpoint.can_send());
                let answer = answer.expect("no Close was sent before");
                return Some((error, index + 1, sent_code(role, answer.as_bytes())));
            }
        }
    }
    None
}

fn sent_code(role: Role, close: &[u8]) -> u16 {
    let start = if matches!(role, Role::Server) { 2 } else { 6 };
    let mut code = [close[start], close[start + 1]];
    if start == 6 {
        wootz_protocol::unmask(&mut code, [close[2], close[3], close[4], close[5]]);
    }
    u16::from_be_bytes(code)
}

fn masked(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_masked(opcode, fin, payload, next_mask(), &mut out);
    out
}

#[test]
fn frames_that_the_rfc_forbids_are_failed_with_1002_at_the_byte_that_shows_it() {
    use ProtocolError as E;
    let cases: Vec<(Vec<u8>, ProtocolError, usize)> = vec![
        (vec![0xc1], E::ReservedBits, 1),
        (vec![0x83], E::ReservedOpcode(3), 1),
        (vec![0x8b], E::ReservedOpcode(11), 1),
        (vec![0x81, 0x02, b'h', b'i'], E::UnmaskedClientFrame, 2),
        (vec![0x89, 0x00], E::UnmaskedClientFrame, 2),
        (masked(Opcode::Ping, false, b""), E::FragmentedControlFrame, 1),
        (masked(Opcode::Ping, true, &[0; 126]), E::LongControlFrame, 2),
        (vec![0x82, 0xfe, 0, 100], E::NonMinimalLength, 4),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0], E::NonMinimalLength, 10),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], E::NegativeLength, 3),
        (masked(Opcode::Continuation, true, b""), E::UnexpectedContinuation, 6),
        (
            [masked(Opcode::Text, false, b"a"), masked(Opcode::Text, true, b"b")].concat(),
            E::ExpectedContinuation,
            7 + 6,
        ),
        (
            [masked(Opcode::Text, true, b"a"), masked(Opcode::Continuation, true, b"b")].concat(),
            E::UnexpectedContinuation,
            7 + 6,
        ),
        (masked(Opcode::Close, true, b"\x03"), E::TruncatedCloseCode, 7),
    ];
    for (bytes, error, read) in cases {
        assert_eq!(failure(Role::Server, &bytes), Some((error, read, 1002)), "{bytes:02x?}");
    }
}

#[test]
fn masked_frame_of_a_server_is_failed_by_the_client() {
    let bytes = masked(Opcode::Text, true, b"hi");
    assert_eq!(failure(Role::Client(next_mask), &bytes), Some((ProtocolError::MaskedServerFrame, 2, 1002)));
}

#[test]
fn declared_length_over_the_limit_is_failed_with_1009_before_its_bytes_come() {
    let bytes = [&[0x82, 0xff][..], &(i64::MAX as u64).to_be_bytes(), &next_mask()].concat();
    assert_eq!(failure(Role::Server, &bytes), Some((ProtocolError::MessageTooLarge, 14, 1009)));
    let mut bytes = Vec::new();
    encode_unmasked(Opcode::Text, true, &vec![b'a'; 1024 * 1024 + 1], &mut bytes);
    assert_eq!(failure(Role::Client(next_mask), &bytes), Some((ProtocolError::MessageTooLarge, 10, 1009)));
}

#[test]
fn close_codes_that_may_not_be_sent_are_failed_with_1002() {
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let bytes = masked(Opcode::Close, true, &u16::to_be_bytes(code));
        assert_eq!(failure(Role::Server, &bytes), Some((ProtocolError::InvalidCloseCode(code), 8, 1002)));
    }
}

#[test]
fn close_reason_that_is_not_utf8_is_failed_with_1007() {
    let bytes = masked(Opcode::Close, true, b"\x03\xe8caf\xe9");
    assert_eq!(failure(Role::Server, &bytes), Some((ProtocolError::InvalidUtf8InCloseReason, bytes.len(), 1007)));
}

#[test]
fn text_is_failed_with_1007_at_the_first_impossible_byte_of_a_frame_that_has_not_ended() {
    let begun = "κόσμε".as_bytes();
    for (impossible, offset) in [(&b"\xed\xa0"[..], 2), (b"\xf4\x90", 2), (b"\xc0", 1), (b"\xe2\x28", 2), (b"\xff", 1)]
    {
        let payload = [begun, impossible, b"and more"].concat();
        let bytes = masked(Opcode::Text, true, &payload);
        let read = 6 + begun.len() + offset;
        assert_eq!(failure(Role::Server, &bytes), Some((ProtocolError::InvalidUtf8, read, 1007)), "{impossible:02x?}");
    }
}

#[test]
fn text_is_failed_across_fragments_and_where_it_ends_in_a_character() {
    let first = masked(Opcode::Text, false, b"a\xf4");
    let across = [first.clone(), masked(Opcode::Continuation, false, b"\x90\x80")].concat();
    assert_eq!(failure(Role::Server, &across), Some((ProtocolError::InvalidUtf8, first.len() + 6 + 1, 1007)));
    let cut = [first.clone(), masked(Opcode::Continuation, true, b"")].concat();
    assert_eq!(failure(Role::Server, &cut), Some((ProtocolError::InvalidUtf8, cut.len(), 1007)));
    assert_eq!(
        failure(Role::Server, &masked(Opcode::Text, true, b"\xf4")),
        Some((ProtocolError::InvalidUtf8, 7, 1007))
    );
}

#[test]
fn a_character_may_be_cut_by_fragments_and_control_frames() {
    let bytes = [
        masked(Opcode::Text, false, b"\xf0\x9f"),
        masked(Opcode::Ping, true, b"\xff"),
        masked(Opcode::Continuation, false, b""),
        masked(Opcode::Continuation, true, b"\x98\x80"),
    ]
    .concat();
    assert_eq!(failure(Role::Server, &bytes), None);
}

#[test]
fn every_error_has_a_code_that_may_be_sent_and_a_reason_that_fits_a_close_frame() {
    use ProtocolError as E;
    let all = [
        E::ReservedBits,
        E::ReservedOpcode(3),
        E::FragmentedControlFrame,
        E::LongControlFrame,
        E::NonMinimalLength,
        E::NegativeLength,
        E::UnmaskedClientFrame,
        E::MaskedServerFrame,
        E::UnexpectedContinuation,
        E::ExpectedContinuation,
        E::TruncatedCloseCode,
        E::InvalidCloseCode(1),
        E::InvalidUtf8InCloseReason,
        E::InvalidUtf8,
        E::MessageTooLarge,
        E::TooManyFrames,
    ];
    for error in all {
        assert!(CloseCode::try_from(error.close_code().number()).is_ok() && error.reason().len() <= 123, "{error}");
    }
}
