//! A client of the admin HTTP interface: one request, one JSON answer.
//!
//! HTTP/1.0 is all it takes: the server answers with its length or closes, and nothing is reused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tholos_server::config::{Address, ConfigError, Layers};

use crate::failure::{Exit, Failure};

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The file whose `http` says where a node is, if nothing else does.
const CONFIG_FILE: &str = "./tholos.toml";

/// Where to ask.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct At {
    /// Admin HTTP address of any node; repeat it, or separate several by commas. Default: THOLOS_AT, then `http` in
    /// ./tholos.toml, then 127.0.0.1:8080.
    #[arg(long = "at", value_name = "HOST:PORT", global = true, value_delimiter = ',', value_parser = address)]
    at: Vec<String>,
    /// A file that holds the password of the nodes (requirepass), if they have one. Default: THOLOS_REQUIREPASS, then
    /// `requirepass` or `requirepass_file` in ./tholos.toml.
    #[arg(long = "password-file", value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
}

/// An address as `--at` takes it, of a host by name or number.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    // Of a link-local address the system knows forms that are none of a node's configuration: [fe80::1%2]:8080.
    if text.parse::<SocketAddr>().is_err() {
        text.parse::<Address>()?;
    }
    Ok(text.to_owned())
}

impl At {
    fn addresses(&self) -> Result<Vec<String>, Failure> {
        if !self.at.is_empty() {
            return Ok(self.at.clone());
        }
        if let Ok(list) = std::env::var("THOLOS_AT") {
            let list: Result<Vec<String>, String> =
                list.split(',').filter(|at| !at.trim().is_empty()).map(address).collect();
            let list = list.map_err(|why| {
                let remedy = "give the admin HTTP addresses of nodes, separated by commas, or unset it";
                Failure::new(Exit::Usage, "THOLOS_AT is wrong", why, remedy)
            })?;
            if !list.is_empty() {
                return Ok(list);
            }
        }
        match configured() {
            Ok(address) => Ok(vec![address.to_string()]),
            // Another cluster than that of the file may answer at the default.
            Err(error) => {
                let what = format!("{CONFIG_FILE} does not say whom to ask");
                Err(Failure::new(Exit::Usage, what, error, "mend it, or say whom to ask with --at HOST:PORT"))
            }
        }
    }

    /// What shows the nodes' password: the value of the header Authorization. Any bytes fit into Basic, whose user says
    /// nothing here.
    fn authorization(&self) -> Result<Option<String>, Failure> {
        let password = crate::cmd::bench::password(self.password_file.as_deref())?.or_else(|| {
            let mut layers = Layers::new();
            // Whoever may not read it, or has none, asks without.
            layers.read_file(Path::new(CONFIG_FILE)).ok()?;
            Some(layers.resolve().ok()?.config.requirepass?.reveal().to_owned())
        });
        let basic = |password: String| format!("Basic {}", BASE64_STANDARD.encode(format!(":{password}")));
        Ok(password.map(basic))
    }

    /// Asks all addresses at once and takes the first answer.
    pub(crate) fn get(&self, path: &str, within: Duration) -> Result<Value, Failure> {
        self.first_answer("GET", path, within)
    }

    /// Tells the nodes to do something. One address after the other: it must not be done twice.
    pub(crate) fn post(&self, path: &str, within: Duration) -> Result<Value, Failure> {
        let authorization = self.authorization()?;
        let mut whys = Vec::new();
        for address in self.addresses()? {
            match request("POST", &address, path, authorization.as_deref(), within) {
                Ok(answer) => return answer.into_result(&address),
                Err(error) if error.sent => {
                    let remedy = "whether it was done is not known: look with tholos cluster status";
                    return Err(Failure::new(
                        Exit::TimedOut,
                        format!("no answer from {address}"),
                        error.why,
                        remedy,
                    ));
                }
                Err(error) => whys.push(format!("{address}: {}", error.why)),
            }
        }
        Err(cannot_reach(&whys))
    }

    fn first_answer(&self, method: &'static str, path: &str, within: Duration) -> Result<Value, Failure> {
        let addresses = self.addresses()?;
        let authorization = self.authorization()?;
        let (sender, answers) = mpsc::channel();
        for address in &addresses {
            let (sender, address, path) = (sender.clone(), address.clone(), path.to_owned());
            let authorization = authorization.clone();
            std::thread::spawn(move || {
                let answer = request(method, &address, &path, authorization.as_deref(), within);
                // Nobody listens any more if another was quicker.
                let _ignored = sender.send((address, answer));
            });
        }
        drop(sender);
        let mut whys = Vec::new();
        let mut refused = None;
        for (address, answer) in answers {
            match answer {
                Ok(answer) => match answer.into_result(&address) {
                    Ok(value) => return Ok(value),
                    Err(failure) => refused = Some(failure),
                },
                Err(error) => whys.push(format!("{address}: {}", error.why)),
            }
        }
        Err(refused.unwrap_or_else(|| cannot_reach(&whys)))
    }
}

/// Where the node of [`CONFIG_FILE`] is, if there is one, or else a node at its defaults.
fn configured() -> Result<Address, ConfigError> {
    let (mut layers, file) = (Layers::new(), Path::new(CONFIG_FILE));
    if file.exists() {
        layers.read_file(file)?;
    }
    // Its secrets may be for the node's own user only, and are of no use here.
    let config = layers.resolve_without_files()?.config;
    let mut address = config.advertised_http().clone();
    if address.is_unspecified() {
        let is_v6 = address.host.contains(':');
        // Who listens everywhere does so on this machine.
        address.host = if is_v6 { "::1" } else { "127.0.0.1" }.to_owned();
    }
    Ok(address)
}

fn cannot_reach(whys: &[String]) -> Failure {
    let remedy = "is a node running? Give the admin HTTP address of one with --at HOST:PORT or THOLOS_AT";
    Failure::new(Exit::CannotReach, "no node answers", whys.join("; "), remedy)
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn into_result(self, address: &str) -> Result<Value, Failure> {
        let json: Option<Value> = serde_json::from_str(&self.body).ok();
        let said = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
        match (self.status, json) {
            (200, Some(json)) => Ok(json),
            (200, None) => {
                let remedy = "is this the admin HTTP address of a Tholos node?";
                Err(Failure::new(
                    Exit::CannotReach,
                    format!("{address} gives a strange answer"),
                    "it is no JSON",
                    remedy,
                ))
            }
            (401 | 403, _) => {
                let why = said.unwrap_or_else(|| format!("HTTP status {}", self.status));
                let remedy = match self.status {
                    401 => {
                        "give the password with --password-file or THOLOS_REQUIREPASS, or run this where ./tholos.toml has it"
                    }
                    _ => "ask from the machine of the node",
                };
                Err(Failure::new(Exit::NotAllowed, format!("{address} refuses"), why, remedy))
            }
            (404, _) if said.is_none() => {
                let remedy = "only a cluster started by tholos dev can do this; or is it another program?";
                Err(Failure::new(
                    Exit::NotSo,
                    format!("{address} refuses"),
                    "it does not know this request",
                    remedy,
                ))
            }
            (504, _) => {
                let why = said.unwrap_or_else(|| "it has waited too long".to_owned());
                let remedy = "it may still come about: look with tholos cluster status";
                Err(Failure::new(Exit::TimedOut, format!("{address} gives up"), why, remedy))
            }
            (status, _) => {
                let why = said.unwrap_or_else(|| format!("HTTP status {status}"));
                Err(Failure::new(Exit::NotSo, format!("{address} refuses"), why, ""))
            }
        }
    }
}

/// Why there is no answer, and whether the request may have arrived.
#[derive(Debug)]
struct NoAnswer {
    sent: bool,
    why: String,
}

fn request(
    method: &str,
    address: &str,
    path: &str,
    authorization: Option<&str>,
    within: Duration,
) -> Result<Answer, NoAnswer> {
    let deadline = Instant::now() + within;
    let unsent = |error: std::io::Error| NoAnswer { sent: false, why: plain(&error) };
    let mut stream = connect(address).map_err(unsent)?;
    let authorization = authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    let text = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\nAccept: application/json\r\n\
         {authorization}\r\n"
    );
    stream.set_write_timeout(Some(CONNECT_TIMEOUT)).map_err(unsent)?;
    stream.write_all(text.as_bytes()).map_err(|error| NoAnswer { sent: true, why: plain(&error) })?;
    let sent = |why: String| NoAnswer { sent: true, why };
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(sent(format!("no answer within {:.1} s", within.as_secs_f64())));
        }
        stream.set_read_timeout(Some(left)).map_err(|error| sent(plain(&error)))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(sent(plain(&error))),
        }
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(sent("the answer is too long".to_owned()));
        }
    }
    parse(&bytes).map_err(sent)
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An error in words of our own where the system's are for programmers.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::TimedOut => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        std::io::ErrorKind::ConnectionReset => "the connection was cut".to_owned(),
        _ => error.to_string(),
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, String> {
    let strange = || "what answers speaks no HTTP".to_owned();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(strange)?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| strange())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(strange());
    }
    let status = words.next().and_then(|status| status.parse().ok()).ok_or_else(strange)?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let body = &bytes[end + 4..];
    if length.is_some_and(|length| body.len() < length) {
        return Err("the answer was cut short".to_owned());
    }
    let body = &body[..length.unwrap_or(body.len())];
    Ok(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

/// A text as it may stand in a query.
pub(crate) fn query_escape(text: &[u8]) -> String {
    let mut escaped = String::new();
    for &byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte as char),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed_and_short_ones_refused() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}trailing").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "{}".to_owned() });
        assert_eq!(parse(b"HTTP/1.0 404 Not Found\r\n\r\nno").unwrap().status, 404);
        assert!(parse(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}").unwrap_err().contains("short"));
        assert!(parse(b"-ERR unknown command\r\n").is_err());
        assert!(parse(b"").is_err());
    }

    #[test]
    fn hosts_are_known_by_name_and_number() {
        for text in
            ["db1.example:8080", "localhost:1", "127.0.0.1:65535", "[::1]:8080", "[fe80::1%2]:8080", " h:1 "]
        {
            assert_eq!(address(text).as_deref(), Ok(text.trim()));
        }
        for text in ["", "foo", ":8080", "127.0.0.1", "127.0.0.1:99999", "::1:8080", "[zz]:1", "http://h:1"] {
            let why = address(text).expect_err(text);
            assert!(why.contains("is not HOST:PORT, such as"), "{why}");
        }
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let exit = |status, body: &str| {
            let answer = Answer { status, body: body.to_owned() };
            answer.into_result("h:1").map_or_else(|failure| failure.exit, |_| Exit::Ok)
        };
        assert_eq!(exit(200, "{}"), Exit::Ok);
        assert_eq!(exit(200, "<html>"), Exit::CannotReach);
        assert_eq!(exit(401, "{\"error\": \"this needs the password\"}"), Exit::NotAllowed);
        assert_eq!(exit(403, "{\"error\": \"protected mode\"}"), Exit::NotAllowed);
        assert_eq!(exit(409, "{\"error\": \"n2 runs already\"}"), Exit::NotSo);
        assert_eq!(exit(404, ""), Exit::NotSo);
        assert_eq!(exit(504, "{\"error\": \"the meta group has not answered\"}"), Exit::TimedOut);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(query_escape("a b&c/ü{1}".as_bytes()), "a%20b%26c%2F%C3%BC%7B1%7D");
    }
}
