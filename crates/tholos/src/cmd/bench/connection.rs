//! One connection of the load: bytes out, replies in, as little work as possible.

use std::pin::Pin;

use bytes::BytesMut;
use tholos_resp::{Value, ValueDecoder, ValueLimits, encode_command};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, sleep, timeout};

/// How long a connection may take to open, and a command to be answered that is no load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A reply that takes longer counts as an error, and its connection is closed; noticed after twice as long at the latest.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A reply, as far as a load looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Done,
    /// A null reply: the key was not there.
    Missing,
    /// An error line, without its `-`.
    Error(String),
}

/// A connection with its buffers.
pub(super) struct Connection {
    stream: TcpStream,
    /// What the caller wants sent by [`Connection::flush`].
    pub(super) output: Vec<u8>,
    input: BytesMut,
    /// Bytes at the front of `input` that were looked at already.
    consumed: usize,
    /// One timer for all replies: it is set again only when it fires, which is cheaper than a timer for each.
    silence: Pin<Box<Sleep>>,
    /// Whether anything arrived since the timer was set.
    heard: bool,
}

/// Why there is no connection that could be used; for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenFailure {
    /// Nobody answers.
    Unreachable(String),
    /// The password is missing or wrong.
    NotAllowed(String),
}

impl OpenFailure {
    pub(super) fn why(self) -> String {
        let (OpenFailure::Unreachable(why) | OpenFailure::NotAllowed(why)) = self;
        why
    }
}

impl Connection {
    /// Connects, and gives the password if there is one.
    pub(super) async fn open(address: &str, password: Option<&str>) -> Result<Self, OpenFailure> {
        let mut connection = Self::connect(address).await.map_err(OpenFailure::Unreachable)?;
        let Some(password) = password else { return Ok(connection) };
        match connection.ask(&[b"AUTH", password.as_bytes()]).await {
            Ok(Value::Error(line)) => {
                Err(OpenFailure::NotAllowed(format!("{address}: {}", String::from_utf8_lossy(&line))))
            }
            Ok(_) => Ok(connection),
            Err(why) => Err(OpenFailure::Unreachable(format!("{address}: {why}"))),
        }
    }

    /// The same, once it has answered; one that would refuse a load does so now.
    pub(super) async fn greet(address: &str, password: Option<&str>) -> Result<Self, OpenFailure> {
        let mut connection = Self::open(address, password).await?;
        match connection.ask(&[b"PING"]).await {
            Ok(Value::Error(line)) if line.starts_with(b"NOAUTH") || line.starts_with(b"DENIED") => {
                Err(OpenFailure::NotAllowed(format!("{address}: {}", String::from_utf8_lossy(&line))))
            }
            // What else a server may say of it is the load's to find out.
            Ok(_) => Ok(connection),
            Err(why) => Err(OpenFailure::Unreachable(format!("{address}: {why}"))),
        }
    }

    async fn connect(address: &str) -> Result<Self, String> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| format!("{address} did not answer within {} s", CONNECT_TIMEOUT.as_secs()))?
            .map_err(|error| format!("{address}: {error}"))?;
        // A command must not wait for the reply of the one before it.
        stream.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
        Ok(Self {
            stream,
            output: Vec::with_capacity(4096),
            input: BytesMut::with_capacity(16384),
            consumed: 0,
            silence: Box::pin(sleep(REPLY_TIMEOUT)),
            heard: false,
        })
    }

    /// Sends what was put into `output`.
    pub(super) async fn flush(&mut self) -> Result<(), String> {
        let sent = self.stream.write_all(&self.output).await.map_err(|error| kind(&error));
        self.output.clear();
        sent
    }

    /// The next reply.
    pub(super) async fn next(&mut self) -> Result<Seen, String> {
        loop {
            if let Some((length, seen)) = skim(&self.input[self.consumed..])? {
                self.consumed += length;
                if self.consumed == self.input.len() {
                    // Nothing is left of the pipeline: the buffer starts anew without a copy.
                    self.input.clear();
                    self.consumed = 0;
                }
                return Ok(seen);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        loop {
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.input) => {
                    self.heard = true;
                    let read = read.map_err(|error| kind(&error))?;
                    return if read == 0 { Err("connection closed".to_owned()) } else { Ok(()) };
                }
                () = &mut self.silence => {
                    if !std::mem::take(&mut self.heard) {
                        return Err("no reply in time".to_owned());
                    }
                    self.silence.as_mut().reset(Instant::now() + REPLY_TIMEOUT);
                }
            }
        }
    }

    /// Sends one command and decodes its reply in full; for the few that are not load.
    pub(super) async fn ask(&mut self, arguments: &[&[u8]]) -> Result<Value, String> {
        let answer = timeout(CONNECT_TIMEOUT, self.ask_and_wait(arguments));
        answer.await.map_err(|_| format!("no reply within {} s", CONNECT_TIMEOUT.as_secs()))?
    }

    async fn ask_and_wait(&mut self, arguments: &[&[u8]]) -> Result<Value, String> {
        encode_command(arguments, &mut self.output);
        self.flush().await?;
        let mut decoder = ValueDecoder::new(ValueLimits::default());
        let mut input = BytesMut::new();
        loop {
            if let Some(value) = decoder.decode(&mut input).map_err(|error| error.to_string())? {
                return Ok(value);
            }
            let read = self.stream.read_buf(&mut input).await.map_err(|error| kind(&error))?;
            if read == 0 {
                return Err("connection closed".to_owned());
            }
        }
    }
}

/// An error's kind in stable words, so that equal failures count as equal.
fn kind(error: &std::io::Error) -> String {
    use std::io::ErrorKind::*;
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => "connection closed".to_owned(),
        _ => error.to_string(),
    }
}

/// Length and meaning of the reply at the front of `input`; `None` asks for more bytes. A reply of a load is a line
/// or a string, never a list.
fn skim(input: &[u8]) -> Result<Option<(usize, Seen)>, String> {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let line = &input[1..end.max(2) - 1];
    let seen = match input[0] {
        b'+' | b':' | b'#' | b',' => Seen::Done,
        b'_' => Seen::Missing,
        b'-' => Seen::Error(String::from_utf8_lossy(line).into_owned()),
        b'$' if line.starts_with(b"-") => Seen::Missing,
        b'$' => {
            let length = std::str::from_utf8(line).ok().and_then(|digits| digits.parse::<usize>().ok());
            let length = length.ok_or_else(|| "a string without a length".to_owned())?;
            let whole = end + 1 + length + 2;
            return Ok((input.len() >= whole).then_some((whole, Seen::Done)));
        }
        other => return Err(format!("a reply that starts with {:?}", other as char)),
    };
    Ok(Some((end + 1, seen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_skimmed_whole_or_not_at_all() {
        let cases: [(&[u8], Seen); 7] = [
            (b"+OK\r\n", Seen::Done),
            (b":-12\r\n", Seen::Done),
            (b"$-1\r\n", Seen::Missing),
            (b"_\r\n", Seen::Missing),
            (b"$4\r\na\r\nb\r\n", Seen::Done),
            (b"$0\r\n\r\n", Seen::Done),
            (b"-MOVED 1 h:2\r\n", Seen::Error("MOVED 1 h:2".to_owned())),
        ];
        for (bytes, expected) in cases {
            for cut in 0..bytes.len() {
                assert_eq!(
                    skim(&bytes[..cut]),
                    Ok(None),
                    "{:?} cut at {cut}",
                    bytes.escape_ascii().to_string()
                );
            }
            let followed = [bytes, b"+next\r\n"].concat();
            assert_eq!(skim(&followed), Ok(Some((bytes.len(), expected))));
        }
        assert!(skim(b"*1\r\n").is_err());
        assert!(skim(b"$x\r\n").is_err());
        assert!(skim(b"\n").is_err());
    }
}
