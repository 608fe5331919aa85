//! 2 · HTTP/2: from a TLS socket on which a browser asked for it to streams, each of which can be a WebSocket (RFC 8441). Knows bytes, streams and
//! how much a peer may cost, and nothing of what is asked for.

mod link;
mod stream;
mod wire;

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};

pub(crate) use link::{Due, Held, Link};
pub(crate) use stream::Http2Stream;
pub(crate) use wire::Wire;

/// One connection of a browser, or of the proxy before it.
pub(crate) type Http2Connection = Connection<Wire, Bytes>;

/// Streams that a peer may have open, and so WebSockets of one connection. More are refused with `REFUSED_STREAM`, which says that they may be tried
/// again elsewhere. RFC 9113, 6.5.2, recommends no fewer than 100.
const MAX_STREAMS: u32 = 128;

/// Bytes that a peer may send on one stream before its WebSocket takes them; then the peer has to wait, as it does for a full socket.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all streams together: as many as all of them may hold, so that one that is not read never stops another.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// What keeping small DATA frames may cost beside their content, over all streams that are not read. At it: GOAWAY with `ENHANCE_YOUR_CALM`.
const DATA_FRAME_BUDGET: usize = 8 * 1024 * 1024;

/// Bytes of one stream that wait for the socket, beside its outbox. Then its WebSocket is a reader that is slow.
pub(crate) const MAX_SEND_BYTES: usize = 32 * 1024;

/// Streams that may be reset by the peer before they were looked at, as in a rapid reset. At it: GOAWAY with `ENHANCE_YOUR_CALM`.
const MAX_RESETS_BEFORE_ACCEPT: usize = 20;

/// Streams that this end may have to reset because the peer broke a rule, in the life of a connection. At it: GOAWAY with `ENHANCE_YOUR_CALM`.
const MAX_ERROR_RESETS: usize = 1024;

/// Begins with the settings of this end. Larger heads than `max_head_bytes` get 431.
pub(crate) fn shake_hands(wire: Wire, max_head_bytes: usize) -> Handshake<Wire, Bytes> {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_send_buffer_size(MAX_SEND_BYTES)
        .max_header_list_size(u32::try_from(max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS));
    builder.handshake(wire)
}
