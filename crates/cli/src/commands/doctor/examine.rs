//! The way itself, one hop after the other, up to the first that fails.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, InvalidMessage};
use wootz_protocol::handshake::client::Opening;
use wootz_protocol::{Message, Opcode};

use super::answer::{Answer, FromWootz, Proxy};
use super::certificate::{Certificate, date, end_of_chain};
use super::fault::{Fault, HeldBack, Sent};
use super::report::{Hop, Report};
use super::talk::{Handshake, Heard, Talk, handshake};
use super::transport::{
    Checks, NameError, Received, Shown, Stream, TlsError, Trust, connect, resolve, secure, speaks_http, speaks_tls,
};
use super::url::{Scheme, Target, bracketed};

/// One visit to a server.
#[derive(Debug, Clone)]
pub(super) struct Visit<'a> {
    pub(super) target: &'a Target,
    /// What `Host` says.
    pub(super) host: String,
    pub(super) origin: String,
    pub(super) cookie: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    /// How long to be silent.
    pub(super) idle: Option<Duration>,
    pub(super) trust: &'a Trust,
    /// How long each answer may take.
    pub(super) patience: Duration,
}

/// What a visit that came through brought back.
#[derive(Debug)]
pub(super) struct Visited {
    /// The reply to the message.
    pub(super) reply: Message<'static>,
    pub(super) proxy: Proxy,
}

/// What is sent where no message is named, and what wootz answers without a call.
const TEXT_PING: &str = "ping";
const TEXT_PONG: &str = "pong";

/// Characters of a reply that are shown.
const SHOWN: usize = 60;

impl Visit<'_> {
    /// Goes all the way. Each hop is written into the report, the one that fails too.
    pub(super) fn run(&self, report: &mut Report) -> Result<Visited, Fault> {
        let addresses = self.resolve(report)?;
        let (socket, address) = self.connect(&addresses, report)?;
        let stream = self.secure(socket, address, report)?;
        let mut talk = self.upgrade(stream, address, report)?;
        self.ping(&mut talk, report)?;
        let reply = self.message(&mut talk, report)?;
        if let Some(idle) = self.idle {
            self.idle(&mut talk, idle, report)?;
        }
        let proxy = talk.proxy;
        talk.leave();
        Ok(Visited { reply, proxy })
    }

    fn resolve(&self, report: &mut Report) -> Result<Vec<SocketAddr>, Fault> {
        let started = Instant::now();
        let host = self.target.host.clone();
        let (fault, seen) = match resolve(self.target, self.patience) {
            Ok(addresses) if !addresses.is_empty() => {
                let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                report.ok(Hop::Dns, started.elapsed(), list.join(", "));
                return Ok(addresses);
            }
            Ok(_) => (Fault::NoSuchName { host, why: "no address in the answer".to_owned() }, "no address"),
            Err(NameError::Failed(error)) if is_without_answer(&error) => {
                (Fault::NameServerSilent { host }, "no answer")
            }
            Err(NameError::Failed(error)) => {
                let why = error.to_string().replace("failed to lookup address information: ", "");
                (Fault::NoSuchName { host, why }, "no such name")
            }
            Err(NameError::Silent) => (Fault::NameServerSilent { host }, "no answer"),
        };
        report.failed(Hop::Dns, started.elapsed(), seen);
        Err(fault)
    }

    fn connect(&self, addresses: &[SocketAddr], report: &mut Report) -> Result<(TcpStream, SocketAddr), Fault> {
        let started = Instant::now();
        let (connected, errors) = connect(addresses, self.patience);
        let Some((socket, address)) = connected else {
            // The first one is what a browser tries first, so its error is told.
            let Some((address, error)) = errors.into_iter().next() else {
                unreachable!("there is an address, so there is a connection or an error")
            };
            report.failed(Hop::Tcp, started.elapsed(), format!("{address}: {}", without_number(&error)));
            return Err(match error.kind() {
                std::io::ErrorKind::ConnectionRefused => Fault::NobodyListens { address },
                std::io::ErrorKind::TimedOut => Fault::TcpSilent { address },
                // It was taken, and thrown out before that was seen here.
                std::io::ErrorKind::ConnectionReset => Fault::Closed { hop: Hop::Tcp, how: "by a reset" },
                _ => Fault::Unreachable { address, why: without_number(&error) },
            });
        };
        report.ok(Hop::Tcp, started.elapsed(), address.to_string());
        for (address, error) in errors {
            report.note(format!(
                "{address}, another address of this name, does not work ({}): browsers lose time \
there, or fail.",
                without_number(&error)
            ));
        }
        Ok((socket, address))
    }

    fn secure(&self, socket: TcpStream, address: SocketAddr, report: &mut Report) -> Result<Stream, Fault> {
        if self.target.scheme == Scheme::Plain {
            return Ok(Stream::Plain(socket));
        }
        let started = Instant::now();
        if self.trust.roots.is_empty() && self.trust.checks == Checks::Enforced {
            report.failed(Hop::Tls, started.elapsed(), "no authorities to check by");
            return Err(Fault::NoRoots);
        }
        let (result, shown) = secure(socket, self.target, self.trust, self.patience);
        let fault = match result {
            Ok(stream) => {
                report.ok(Hop::Tls, started.elapsed(), shown_tls(&stream, &shown));
                if let Some(error) = shown.error {
                    let diagnosis = self.of_certificate(&error, &shown.chain).diagnosis();
                    report.note(format!(
                        "browsers refuse this certificate ({}); --insecure went on. {}",
                        diagnosis.name, diagnosis.broken
                    ));
                }
                return Ok(stream);
            }
            Err(TlsError::Tls(error)) if shown.error.is_some() => self.of_certificate(&error, &shown.chain),
            Err(_) if speaks_http(address, self.target, self.patience) => Fault::PlainPort { address },
            Err(TlsError::Tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType))) => {
                Fault::NotHttp { hop: Hop::Tls }
            }
            Err(TlsError::Tls(error)) => Fault::TlsFailed { why: error.to_string() },
            Err(TlsError::Closed) => Fault::TlsClosed { server: self.for_openssl() },
            Err(TlsError::Silent) => Fault::TlsSilent,
        };
        let seen = match shown.chain.first().and_then(|der| Certificate::read(der)) {
            Some(certificate) => format!("certificate of {}, by {}", certificate.subject(), certificate.issuer()),
            None => "no TLS".to_owned(),
        };
        report.failed(Hop::Tls, started.elapsed(), seen);
        Err(fault)
    }

    fn of_certificate(&self, error: &rustls::Error, chain: &[CertificateDer<'_>]) -> Fault {
        let end = end_of_chain(chain);
        let own = chain.first().and_then(|der| Certificate::read(der));
        let subject = own.as_ref().map_or_else(|| self.target.host.clone(), |own| own.subject().to_owned());
        let seconds = |time: &rustls::pki_types::UnixTime| date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        match error {
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                Fault::Expired { date: seconds(not_after) }
            }
            rustls::Error::InvalidCertificate(CertificateError::Expired) => {
                Fault::Expired { date: own.map_or_else(|| "an unknown day".to_owned(), |own| own.end()) }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                Fault::NotYetValid { date: seconds(not_before) }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
                // rustls writes them as it compares them.
                let bare = |name: &String| name.trim_start_matches("DnsName(\"").trim_end_matches("\")").to_owned();
                Fault::WrongName { host: self.target.host.clone(), names: presented.iter().map(bare).collect() }
            }
            // A certificate that is its own authority may fail for that before anybody asks who knows it.
            _ if own.is_some_and(|own| own.is_self_issued()) => Fault::SelfSigned { subject },
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match end {
                Some(end) if end.is_self_issued() => Fault::UnknownAuthority { issuer: end.subject().to_owned() },
                Some(end) => Fault::MissingIntermediate { subject, issuer: end.issuer().to_owned(), sent: chain.len() },
                None => Fault::BadCertificate { why: reason(error), server: self.for_openssl() },
            },
            other => Fault::BadCertificate { why: reason(other), server: self.for_openssl() },
        }
    }

    /// What `openssl s_client` has to be told to see the same.
    fn for_openssl(&self) -> String {
        let host = bracketed(&self.target.host);
        format!("{host}:{} -servername {}", self.target.port, self.target.host)
    }

    fn upgrade(&self, stream: Stream, address: SocketAddr, report: &mut Report) -> Result<Box<Talk>, Fault> {
        let started = Instant::now();
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("Linux gives random bytes since it has started");
        let mut headers = vec![("Origin", self.origin.as_str())];
        headers.extend(self.cookie.map(|cookie| ("Cookie", cookie)));
        let opening =
            Opening { host: &self.host, target: &self.target.path, key, headers: &headers, subprotocols: &[] };
        let request = match opening.request() {
            Ok(request) => request,
            Err(error) => {
                report.failed(Hop::Upgrade, started.elapsed(), "not sent");
                return Err(Fault::BadUrl(error.to_string()));
            }
        };
        let (fault, seen) = match handshake(stream, &opening, &request, self.patience) {
            Handshake::Open(talk) => {
                let from = talk.server.as_ref().map(|server| format!(" through {server}")).unwrap_or_default();
                report.ok(Hop::Upgrade, started.elapsed(), format!("101{from}"));
                report.ok(Hop::Origin, Duration::ZERO, format!("{} may connect", self.origin));
                let who = if self.cookie.is_some() { "let in; a cookie was sent" } else { "let in, without a cookie" };
                report.ok(Hop::Identity, Duration::ZERO, who);
                return Ok(talk);
            }
            Handshake::Answered(answer) => (self.of_answer(&answer, address), answer.shown()),
            Handshake::Broken(error) => {
                (Fault::BadUpgrade { why: error.to_string() }, "101, but not a right one".to_owned())
            }
            Handshake::Closed(_) | Handshake::NotHttp | Handshake::Silent if self.is_tls_port(address) => {
                (self.tls_port(address), "no answer in plain HTTP".to_owned())
            }
            Handshake::Closed(how) => (Fault::Closed { hop: Hop::Upgrade, how }, format!("ended {how}")),
            Handshake::NotHttp => (Fault::NotHttp { hop: Hop::Upgrade }, "no HTTP".to_owned()),
            Handshake::HeldBack => {
                (Fault::HeldBack { what: HeldBack::Answer, proxy: Proxy::Unknown }, "101, much too late".to_owned())
            }
            Handshake::Silent if self.answers_pages(address) => (Fault::HandshakeSilent, "no answer".to_owned()),
            Handshake::Silent => (Fault::Silent, "no answer".to_owned()),
        };
        let hop = fault.diagnosis().hop;
        if hop != Hop::Upgrade {
            report.ok(Hop::Upgrade, started.elapsed(), "wootz was reached");
        }
        if hop == Hop::Identity {
            report.ok(Hop::Origin, Duration::ZERO, format!("{} may connect", self.origin));
        }
        report.failed(hop, started.elapsed(), seen);
        Err(fault)
    }

    fn tls_port(&self, address: SocketAddr) -> Fault {
        let right = Target { scheme: Scheme::Tls, ..self.target.clone() };
        Fault::TlsPort { address, url: right.to_string() }
    }

    fn is_tls_port(&self, address: SocketAddr) -> bool {
        self.target.scheme == Scheme::Plain && speaks_tls(address, self.target, self.patience)
    }

    /// Whether an ordinary request to the same place is answered.
    fn answers_pages(&self, address: SocketAddr) -> bool {
        let deadline = Instant::now() + self.patience;
        let Ok(socket) = TcpStream::connect_timeout(&address, self.patience) else { return false };
        let stream = match self.target.scheme {
            Scheme::Plain => Some(Stream::Plain(socket)),
            Scheme::Tls => secure(socket, self.target, self.trust, self.patience).0.ok(),
        };
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.target.path, self.host);
        stream.is_some_and(|mut stream| {
            stream.send(request.as_bytes(), self.patience).is_ok()
                && matches!(stream.receive(&mut [0; 16], deadline), Received::Bytes(_))
        })
    }

    fn of_answer(&self, answer: &Answer, address: SocketAddr) -> Fault {
        if let Some(said) = answer.said_by_wootz() {
            return self.of_wootz(said, answer.proxy(), address);
        }
        let plain = self.target.scheme == Scheme::Plain;
        if plain && (answer.asks_for_tls() || (answer.status == 400 && self.is_tls_port(address))) {
            return self.tls_port(address);
        }
        let answer = answer.clone();
        match (answer.status, answer.field("location")) {
            (300..=399, Some(location)) => {
                let location = location.to_owned();
                if plain && location.starts_with("https://") {
                    Fault::HttpForHttps { location }
                } else {
                    Fault::Redirected { location, status: answer.status }
                }
            }
            (502..=504, _) => Fault::BackendDown { answer },
            (401 | 403 | 407, _) => Fault::ProxyRefused { answer },
            (429, _) => Fault::TooMany { answer },
            _ if answer.is_about_size() => Fault::TooLarge { answer },
            (500.., _) => Fault::ProxyFailed { answer },
            _ => Fault::NotForwarded { answer },
        }
    }

    fn of_wootz(&self, said: FromWootz, proxy: Proxy, address: SocketAddr) -> Fault {
        let cookie = if self.cookie.is_some() { Sent::Yes } else { Sent::No };
        match said {
            FromWootz::NoHandshake => Fault::MissingUpgrade { proxy },
            FromWootz::OtherVersion => Fault::OtherVersion { proxy },
            FromWootz::OtherPath => Fault::OtherPath { path: self.target.path.clone() },
            FromWootz::OriginRefused => {
                Fault::OriginRefused { origin: self.origin.clone(), own: self.origin == self.target.origin(), proxy }
            }
            FromWootz::GuestRefused => Fault::GuestRefused { cookie, proxy },
            FromWootz::UserRefused => Fault::UserRefused { cookie, proxy },
            FromWootz::Unavailable => Fault::Unavailable,
            FromWootz::TooSlow => Fault::TooSlow { proxy },
            FromWootz::SpeaksTls if self.is_tls_port(address) => self.tls_port(address),
            FromWootz::SpeaksTls => Fault::PlainToTls { proxy },
        }
    }

    fn ping(&self, talk: &mut Talk, report: &mut Report) -> Result<(), Fault> {
        let started = Instant::now();
        let deadline = started + self.patience;
        let sent = talk.send(Opcode::Ping, b"wootz doctor", self.patience);
        let result = loop {
            if sent.is_err() {
                break Err(Fault::BrokenOff { hop: Hop::Ping, how: "as a ping was sent".to_owned() });
            }
            match talk.next(deadline) {
                Heard::Pong => break Ok(()),
                Heard::Message(_) | Heard::Ping => {}
                Heard::Nothing if talk.comes_at_the_end(|heard| matches!(heard, Heard::Pong)) => {
                    break Err(Fault::HeldBack { what: HeldBack::Frames, proxy: talk.proxy });
                }
                Heard::Nothing => break Err(Fault::NoPong),
                ended => break Err(ended_with(Hop::Ping, ended)),
            }
        };
        match &result {
            Ok(()) => report.ok(Hop::Ping, started.elapsed(), "pong"),
            Err(_) => report.failed(Hop::Ping, started.elapsed(), "no pong"),
        }
        result
    }

    fn message(&self, talk: &mut Talk, report: &mut Report) -> Result<Message<'static>, Fault> {
        let started = Instant::now();
        let deadline = started + self.patience;
        let text = self.message.unwrap_or(TEXT_PING);
        let sent = talk.send(Opcode::Text, text.as_bytes(), self.patience);
        let result = loop {
            if sent.is_err() {
                break Err(Fault::BrokenOff { hop: Hop::Message, how: "as the message was sent".to_owned() });
            }
            match talk.next(deadline) {
                Heard::Message(message) => break Ok(message),
                Heard::Pong | Heard::Ping => {}
                Heard::Nothing => break Err(Fault::NoReply { patience: self.patience }),
                ended => break Err(ended_with(Hop::Message, ended)),
            }
        };
        match &result {
            Ok(reply) => {
                report.ok(Hop::Message, started.elapsed(), format!("{} -> {}", shortened(text), shown_message(reply)));
                if self.message.is_none() && reply.as_bytes() != TEXT_PONG.as_bytes() {
                    report.note(
                        "the text \"ping\" was not answered by \"pong\": it is no wootz, \
limits.text_ping is off, or a push came first.",
                    );
                }
            }
            Err(_) => report.failed(Hop::Message, started.elapsed(), format!("{} -> no reply", shortened(text))),
        }
        result
    }

    fn idle(&self, talk: &mut Talk, idle: Duration, report: &mut Report) -> Result<(), Fault> {
        let started = Instant::now();
        let mut pings = 0;
        let fault = loop {
            match talk.next(started + idle) {
                Heard::Ping => pings += 1,
                Heard::Message(_) | Heard::Pong => {}
                Heard::Nothing => {
                    let detail = format!("open after {} s of silence, {pings} pings came", idle.as_secs());
                    report.ok(Hop::Idle, started.elapsed(), detail);
                    return Ok(());
                }
                Heard::End(_) => break Fault::IdleLimit { after: started.elapsed(), pings, proxy: talk.proxy },
                ended => break ended_with(Hop::Idle, ended),
            }
        };
        report.failed(Hop::Idle, started.elapsed(), format!("ended, {pings} pings had come"));
        Err(fault)
    }
}

/// The fault of an end that was heard where something else was awaited.
fn ended_with(hop: Hop, heard: Heard) -> Fault {
    match heard {
        Heard::Close { code, reason } => {
            let reason = printable(&reason);
            Fault::ClosedByServer { hop, code: code.map_or(1005, wootz_protocol::CloseCode::number), reason }
        }
        Heard::Garbage(why) => Fault::NotWebSocket { hop, why },
        Heard::End(how) => Fault::BrokenOff { hop, how: how.to_owned() },
        Heard::Message(_) | Heard::Pong | Heard::Ping | Heard::Nothing => {
            Fault::BrokenOff { hop, how: "for no reason that was seen".to_owned() }
        }
    }
}

fn shown_tls(stream: &Stream, shown: &Shown) -> String {
    let version = match stream {
        Stream::Tls(stream) => match stream.conn.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(_) | None => "TLS",
        },
        Stream::Plain(_) => "no TLS",
    };
    match shown.chain.first().and_then(|der| Certificate::read(der)) {
        Some(certificate) => format!(
            "{version}, certificate of {}, by {}, {} days left",
            certificate.subject(),
            certificate.issuer(),
            certificate.days_left()
        ),
        None => version.to_owned(),
    }
}

fn shown_message(message: &Message<'_>) -> String {
    match message {
        Message::Text(text) => shortened(text),
        Message::Binary(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn shortened(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

/// Whether no name server gave an answer (`EAI_AGAIN`), which says nothing about the name. Only its words tell.
fn is_without_answer(error: &std::io::Error) -> bool {
    error.to_string().contains("Temporary failure in name resolution")
}

/// What is wrong with a certificate, without the words that every such error begins with.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => reason.to_string(),
        other => other.to_string(),
    }
}

/// An error in words alone.
fn without_number(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// Without what moves the cursor.
fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::is_without_answer;

    #[test]
    fn a_name_server_that_gave_up_says_nothing_about_the_name() {
        let error = |words: &str| Error::other(format!("failed to lookup address information: {words}"));
        assert!(is_without_answer(&error("Temporary failure in name resolution")));
        assert!(!is_without_answer(&error("Name or service not known")));
    }
}
