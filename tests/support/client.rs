//! The well-behaved browser: tungstenite, which checks what the server sends.

use std::net::{SocketAddr, TcpStream};

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{HeaderName, HeaderValue, Response};
use tungstenite::{Message, WebSocket};

use super::DEADLINE;

/// An open connection.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The answer to the handshake.
    pub answer: Response<Option<Vec<u8>>>,
}

impl Client {
    /// Connects, and fails the test where the server refuses.
    pub fn connect(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        match Self::try_connect(address, path, fields) {
            Ok(client) => client,
            Err(answer) => panic!("refused with {}", answer.status()),
        }
    }

    /// Connects, or gives the server's refusal.
    pub fn try_connect(
        address: SocketAddr,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a URL");
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, answer)) => Ok(Self { socket, answer }),
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => Err(answer),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.answer.headers().get("Sec-WebSocket-Protocol")?.to_str().ok()
    }

    /// The port of the browser's end.
    pub fn port(&self) -> u16 {
        self.socket.get_ref().local_addr().expect("a connected socket").port()
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Sends a text message.
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the connection is open");
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("the connection is open");
    }

    /// Queues many messages and writes them at once.
    pub fn send_all<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        for text in texts {
            self.socket.write(Message::text(text)).expect("the connection is open");
        }
        self.socket.flush().expect("the connection is open");
    }

    /// The next message, of whatever kind but pings and pongs.
    pub fn receive(&mut self) -> Message {
        loop {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("no message came: {error}"),
            }
        }
    }

    /// The next message, which must be text.
    pub fn text(&mut self) -> String {
        match self.receive() {
            Message::Text(text) => text.to_string(),
            other => panic!("text was expected, not {other:?}"),
        }
    }

    /// The next message, which must be binary.
    pub fn binary(&mut self) -> Vec<u8> {
        match self.receive() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("a binary message was expected, not {other:?}"),
        }
    }

    /// Sends a text and gives the text that comes back.
    pub fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.text()
    }

    /// Waits for the server's Close; no message may come before it. Gives its code.
    pub fn closed(&mut self) -> u16 {
        match self.receive() {
            Message::Close(frame) => frame.map_or(1005, |frame| frame.code.into()),
            other => panic!("a Close was expected, not {other:?}"),
        }
    }

    /// Sends a text; the server's next message must be the answer to it: so nothing else was on its way.
    pub fn nothing_waits(&mut self) {
        assert_eq!(self.ask("ping"), "pong");
    }

    /// Closes as a browser does, and waits for the end.
    pub fn leave(mut self) {
        self.socket.close(None).expect("the connection is open");
        while self.socket.read().is_ok() {}
    }
}
