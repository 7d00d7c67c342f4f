//! One connection: a command out, its reply in, and what that reply says about the command's fate (H3).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tholos_check::{Kind, Reply};
use tholos_resp::{Value, ValueDecoder, ValueLimits, encode_command};

/// Codes of errors that say that nothing happened and never will: of Tholos, and of Redis as far as its sources refuse
/// the command before they carry it out.
const NOTHING_HAPPENED: [&str; 12] = [
    "CLUSTERDOWN",
    "DISKFULL",
    "BUSY",
    "OOM",
    "LOADING",
    "TRYAGAIN",
    "MASTERDOWN",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "MOVED",
    "ASK",
];

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    /// An error that says that nothing was done.
    Refused(String),
    /// No reply, or an error that leaves it open; with what was said.
    Open(String),
}

/// Why a connection was not had.
#[derive(Clone, Debug)]
pub(crate) enum OpenFailure {
    /// Nobody answers; it may be otherwise in a moment.
    Unreachable(String),
    /// The password is missing or wrong.
    NotAllowed(String),
}

pub(crate) struct Connection {
    stream: TcpStream,
    reply_timeout: Duration,
    input: BytesMut,
    decoder: ValueDecoder,
    output: Vec<u8>,
}

impl Connection {
    /// Connects, and shows the password if there is one.
    pub(crate) fn open(
        address: &str,
        password: Option<&str>,
        connect_timeout: Duration,
        reply_timeout: Duration,
    ) -> Result<Self, OpenFailure> {
        let unreachable =
            |error: &dyn std::fmt::Display| OpenFailure::Unreachable(format!("{address}: {error}"));
        let resolved = address.to_socket_addrs().map_err(|error| unreachable(&error))?.next();
        let resolved = resolved.ok_or_else(|| unreachable(&"the name has no address"))?;
        let stream =
            TcpStream::connect_timeout(&resolved, connect_timeout).map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let mut connection = Self {
            stream,
            reply_timeout,
            input: BytesMut::new(),
            decoder: ValueDecoder::new(ValueLimits::default()),
            output: Vec::new(),
        };
        if let Some(password) = password {
            match connection.exchange(&[b"AUTH", password.as_bytes()]) {
                Ok(Value::Error(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    return Err(OpenFailure::NotAllowed(format!("{address}: {line}")));
                }
                Ok(_) => {}
                Err(why) => return Err(unreachable(&why)),
            }
        }
        Ok(connection)
    }

    pub(crate) fn ask(&mut self, key: &[u8], kind: &Kind) -> Answer {
        let reply = match kind {
            Kind::Get => self.exchange(&[b"GET", key]),
            Kind::Set(value) => self.exchange(&[b"SET", key, value]),
            Kind::SetNx(value) => self.exchange(&[b"SETNX", key, value]),
            Kind::Del => self.exchange(&[b"DEL", key]),
            Kind::IncrBy(delta) => self.exchange(&[b"INCRBY", key, delta.to_string().as_bytes()]),
            Kind::Append(suffix) => self.exchange(&[b"APPEND", key, suffix]),
            Kind::GetDel => self.exchange(&[b"GETDEL", key]),
            Kind::GetSet(value) => self.exchange(&[b"GETSET", key, value]),
        };
        match reply {
            Ok(value) => understand(value),
            Err(why) => Answer::Open(why),
        }
    }

    /// Sends a command and reads its reply. After an error the connection must not be used again: a late reply would be
    /// taken for that of the next command.
    pub(crate) fn exchange(&mut self, arguments: &[&[u8]]) -> Result<Value, String> {
        let deadline = Instant::now() + self.reply_timeout;
        self.output.clear();
        encode_command(arguments, &mut self.output);
        self.stream.set_write_timeout(Some(self.reply_timeout)).map_err(|error| error.to_string())?;
        self.stream.write_all(&self.output).map_err(|error| words(&error))?;
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(error) => return Err(format!("no reply of the Redis protocol: {error}")),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("no reply in time".to_owned());
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("connection closed".to_owned()),
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) => return Err(words(&error)),
            }
        }
    }
}

fn words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no reply in time".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection closed".to_owned(),
        _ => error.to_string(),
    }
}

fn understand(value: Value) -> Answer {
    let line = match value {
        Value::Simple(text) if text == "OK" => return Answer::Reply(Reply::Ok),
        Value::Integer(number) => return Answer::Reply(Reply::Integer(number)),
        Value::Bulk(bytes) => return Answer::Reply(Reply::Value(bytes.to_vec())),
        Value::Null => return Answer::Reply(Reply::Nil),
        Value::Error(line) => String::from_utf8_lossy(&line).into_owned(),
        other => return Answer::Open(format!("a reply that none of these commands has: {other:?}")),
    };
    let code = line.split(' ').next().unwrap_or_default();
    // What is refused for its value alone is an answer like any other: the checker knows when it is right.
    if code == "ERR" && (line.contains("not an integer") || line.contains("would overflow")) {
        Answer::Reply(Reply::Refused)
    } else if NOTHING_HAPPENED.contains(&code) {
        Answer::Refused(line)
    } else {
        Answer::Open(line)
    }
}

/// Where `MOVED <slot> <host:port>` points.
pub(crate) fn moved_to(line: &str) -> Option<&str> {
    line.strip_prefix("MOVED ")?.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_known_to_say_so_mean_that_nothing_happened() {
        let fate = |line: &str| match understand(Value::Error(line.to_owned().into())) {
            Answer::Reply(Reply::Refused) => "refused for its value",
            Answer::Reply(_) => "reply",
            Answer::Refused(_) => "nothing",
            Answer::Open(_) => "open",
        };
        assert_eq!(fate("CLUSTERDOWN no quorum for this shard in time, nothing was written"), "nothing");
        assert_eq!(fate("DISKFULL the log of this shard's leader has no room"), "nothing");
        assert_eq!(fate("INDOUBT no answer in time"), "open");
        assert_eq!(fate("ERR value is not an integer or out of range"), "refused for its value");
        assert_eq!(fate("ERR something else"), "open");
        assert_eq!(fate("SURPRISE"), "open");
        assert_eq!(moved_to("MOVED 866 10.0.0.1:7001"), Some("10.0.0.1:7001"));
        assert_eq!(moved_to("ERR MOVED"), None);
    }
}
