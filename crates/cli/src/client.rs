//! Speaks to the control socket: HTTP/1.1 over a Unix socket, one request after another, and waits in system calls. A command is
//! over sooner than a runtime would have started.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ArgMatches;
use serde_json::Value;

use crate::commands;
use crate::failure::Failure;
use crate::problem::Problems;
use crate::resolve::control_socket;
use crate::settings::{FileChoice, FileState, Settings};

/// A server that says nothing for so long is stuck. Longer than its own deadlines, so that it can say so.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest line of a head or of a chunk's size.
const LONGEST_LINE: u64 = 64 * 1024;

/// A connection to a running server.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

/// What the server answered: a success, with its body still to be read.
pub(crate) struct Answer<'c> {
    client: &'c mut Client,
    body: BodyLength,
}

enum BodyLength {
    Known(u64),
    Chunks,
    UntilEnd,
}

/// Where the server is expected. Only the setting of the socket matters: a mistake elsewhere in the file, which may have been
/// edited since the server started, is no reason to refuse. A flag needs no file at all.
fn socket(matches: &ArgMatches) -> Result<PathBuf, Failure> {
    let mut sources = commands::sources(matches);
    if !sources.overrides.is_empty() {
        sources.file = FileChoice::None;
    }
    let mut problems = Problems::default();
    let settings = Settings::load(&sources, &mut problems);
    if settings.is_broken("control.socket") || settings.file_state == FileState::Unknown {
        return Err(Failure::Configuration(problems));
    }
    Ok(control_socket(&settings, &commands::variable))
}

impl Client {
    /// Connects to the server that these arguments and settings mean.
    pub(crate) fn connect(matches: &ArgMatches) -> Result<Self, Failure> {
        Ok(Self::connect_to(socket(matches)?)?)
    }

    /// Connects to the server at this socket.
    pub(crate) fn connect_to(socket: PathBuf) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(&socket).with_context(|| {
            format!("no server listens at {} (is it running? `--socket PATH` names another place)", socket.display())
        })?;
        stream.set_read_timeout(Some(PATIENCE)).context("the socket")?;
        stream.set_write_timeout(Some(PATIENCE)).context("the socket")?;
        Ok(Self { stream: BufReader::new(stream), socket })
    }

    /// Lets the server be silent as long as it likes: it tells what happens when it happens.
    pub(crate) fn wait_for_ever(&self) -> anyhow::Result<()> {
        self.stream.get_ref().set_read_timeout(None).context("the socket")
    }

    /// Asks, and gives the answer where it is a success.
    pub(crate) fn ask(&mut self, method: &str, target: &str, body: Option<&Value>) -> anyhow::Result<Answer<'_>> {
        let body = body.map(Value::to_string);
        let length = body.as_ref().map_or(0, String::len);
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: wootz\r\n");
        if body.is_some() {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body.as_deref().unwrap_or_default());
        // A server that refuses a long body answers before it has read all of it.
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        let (status, body) = self.head().map_err(|error| self.explain(sent.err().unwrap_or(error)))?;
        if !status.starts_with('2') {
            let text = Answer { client: self, body }.text()?;
            bail!("the server answered {status}: {}", reason(&text));
        }
        Ok(Answer { client: self, body })
    }

    fn explain(&self, error: io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                anyhow::anyhow!("the server at {socket} has not answered for {} s", PATIENCE.as_secs())
            }
            _ => anyhow::Error::new(error).context(format!("the server at {socket} did not answer")),
        }
    }

    /// The status, such as `200 OK`, and how long the body is.
    fn head(&mut self) -> io::Result<(String, BodyLength)> {
        let line = self.line()?;
        let Some((_, status)) = line.split_once(' ').filter(|(version, _)| version.starts_with("HTTP/1.")) else {
            return Err(io::Error::other("what listens there speaks no HTTP"));
        };
        let mut body = BodyLength::UntilEnd;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                body = BodyLength::Known(value.trim().parse().map_err(io::Error::other)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                body = BodyLength::Chunks;
            }
        }
        if status.starts_with("204") {
            body = BodyLength::Known(0);
        }
        Ok((status.to_owned(), body))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(LONGEST_LINE).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// The next part of a body in chunks; empty at its end.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        (&mut self.stream).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size || !self.line()?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

impl Answer<'_> {
    /// The whole body.
    pub(crate) fn text(self) -> anyhow::Result<String> {
        let socket = self.client.socket.display().to_string();
        let mut bytes = Vec::new();
        self.read(|part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        String::from_utf8(bytes).with_context(|| format!("what the server at {socket} answers is not UTF-8"))
    }

    /// The whole body as JSON.
    pub(crate) fn json(self) -> anyhow::Result<Value> {
        let socket = self.client.socket.display().to_string();
        serde_json::from_str(&self.text()?).with_context(|| format!("what listens at {socket} speaks no JSON"))
    }

    /// Each part of the body as it comes.
    pub(crate) fn read(self, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let ended_early = "the server's answer ended early";
        match self.body {
            BodyLength::Known(length) => {
                let mut bytes = Vec::new();
                (&mut self.client.stream).take(length).read_to_end(&mut bytes).context(ended_early)?;
                if bytes.len() as u64 != length {
                    bail!(ended_early);
                }
                take(&bytes)
            }
            BodyLength::Chunks => loop {
                let part = self.client.chunk().context(ended_early)?;
                if part.is_empty() {
                    return Ok(());
                }
                take(&part)?;
            },
            BodyLength::UntilEnd => {
                let mut bytes = Vec::new();
                self.client.stream.read_to_end(&mut bytes).context(ended_early)?;
                take(&bytes)
            }
        }
    }
}

/// What an error says to people, if it is one of the API's.
fn reason(body: &str) -> String {
    let said =
        serde_json::from_str::<Value>(body).ok().and_then(|body| Some(body["error"]["message"].as_str()?.to_owned()));
    said.unwrap_or_else(|| body.trim().to_owned())
}

/// A path or a query with everything encoded that is not plain (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(encoded("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(encoded("a/b c?ü&"), "a%2Fb%20c%3F%C3%BC%26");
    }

    #[test]
    fn errors_of_the_api_are_told_in_their_own_words() {
        assert_eq!(reason(r#"{"error":{"code":"x","message":"to is missing"}}"#), "to is missing");
        assert_eq!(reason("busy\n"), "busy");
    }
}
