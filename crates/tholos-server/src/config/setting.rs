//! The types of configuration values, and their forms as text.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// A value that can be given as text in a flag, a variable or the file.
pub(super) trait Setting: Sized {
    /// What stands for it in `--help`.
    const VALUE_NAME: &'static str;

    /// Reads the value; the error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text that `parse` reads back; for a secret only whether there is one.
    fn print(&self) -> String;

    /// The value as a number, for bounds.
    fn number(&self) -> Option<u64> {
        None
    }
}

pub(super) fn check_bounds(value: &impl Setting, bounds: Option<(u64, u64)>) -> Result<(), String> {
    match (value.number(), bounds) {
        (Some(number), Some((min, max))) if !(min..=max).contains(&number) => {
            Err(format!("it must be {min} to {max}"))
        }
        _ => Ok(()),
    }
}

/// Names of nodes and zones.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(legal) || name.starts_with('.') {
        return Err(format!("\"{name}\" is not 1 to 64 letters, digits, - _ . (and no dot in front)"));
    }
    Ok(())
}

impl Setting for String {
    const VALUE_NAME: &'static str = "NAME";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn print(&self) -> String {
        self.clone()
    }
}

impl Setting for u64 {
    const VALUE_NAME: &'static str = "N";

    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "it must be a whole number".to_owned())
    }

    fn print(&self) -> String {
        self.to_string()
    }

    fn number(&self) -> Option<u64> {
        Some(*self)
    }
}

impl Setting for PathBuf {
    const VALUE_NAME: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it must be a path".to_owned()) } else { Ok(PathBuf::from(text)) }
    }

    fn print(&self) -> String {
        self.display().to_string()
    }
}

/// Nothing at all is written as an empty text.
impl<T: Setting> Setting for Option<T> {
    const VALUE_NAME: &'static str = T::VALUE_NAME;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn print(&self) -> String {
        self.as_ref().map_or_else(String::new, T::print)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(T::number)
    }
}

/// A host (name or IP address) and a port. Port 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A host name, an IPv4 or an IPv6 address, the latter without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// The first socket address that the host stands for now.
    ///
    /// # Errors
    /// If the name cannot be resolved.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let none = || io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host));
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(none)
    }

    /// True for the loopback addresses and `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// True for `0.0.0.0` and `::`, where one can listen but which nobody can dial.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not HOST:PORT, such as 127.0.0.1:6379 or [::1]:6379");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().map(|_| host).map_err(|_| wrong())?,
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.is_empty() || (bracketed.is_none() && !host.chars().all(legal)) {
            return Err(wrong());
        }
        Ok(Address { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl Setting for Address {
    const VALUE_NAME: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

/// A founding node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// Its name.
    pub name: String,
    /// Its peer address.
    pub address: Address,
}

/// The founding nodes, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds(pub Vec<Seed>);

impl Setting for Seeds {
    const VALUE_NAME: &'static str = "NAME=HOST:PORT,...";

    fn parse(text: &str) -> Result<Self, String> {
        let mut seeds = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, address) = part
                .split_once('=')
                .ok_or_else(|| format!("\"{part}\" is not NAME=HOST:PORT, such as n1=10.0.0.1:7101"))?;
            check_name(name)?;
            seeds.push(Seed { name: name.to_owned(), address: address.parse()? });
        }
        seeds.sort();
        for pair in seeds.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(format!("{} is in it twice", pair[0].name));
            }
        }
        Ok(Seeds(seeds))
    }

    fn print(&self) -> String {
        let parts: Vec<String> =
            self.0.iter().map(|seed| format!("{}={}", seed.name, seed.address)).collect();
        parts.join(",")
    }
}

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret; blanks at its end, such as the line end of a file, are no part of it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim_end().to_owned())
    }

    /// The secret itself, to compare or to prove it, never to print it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Setting for Secret {
    const VALUE_NAME: &'static str = "SECRET";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn print(&self) -> String {
        "(set, not shown)".to_owned()
    }
}

/// A number of bytes: `1048576`, `1MiB`, or in Redis's way `1mb` (1024 * 1024) and `1m` (1000 * 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The size in this machine's own word.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for ByteSize {
    const VALUE_NAME: &'static str = "BYTES";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "k" => Some(1000),
            "kb" | "kib" => Some(1 << 10),
            "m" => Some(1_000_000),
            "mb" | "mib" => Some(1 << 20),
            "g" => Some(1_000_000_000),
            "gb" | "gib" => Some(1_u64 << 30),
            "tib" => Some(1_u64 << 40),
            _ => None,
        };
        let number = text[..digits].parse::<u64>().ok();
        let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes
            .map(ByteSize)
            .ok_or_else(|| "it must be a number of bytes, such as 1048576, 64KiB or 1gb".to_owned())
    }

    fn print(&self) -> String {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return format!("{}{unit}", self.0 >> shift);
            }
        }
        self.0.to_string()
    }

    fn number(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl Setting for bool {
    const VALUE_NAME: &'static str = "true|false";

    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "it must be true or false".to_owned())
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

/// A time, or never: `90s`, `10min`, `2h`, a number of seconds, or `never`, as which 0 counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After(pub Option<Duration>);

/// Longer than any cluster lives; larger numbers are mistakes.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

impl Setting for After {
    const VALUE_NAME: &'static str = "TIME";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "never" {
            return Ok(After(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match text[digits..].trim_start() {
            "" | "s" => Some(1),
            "m" | "min" => Some(60),
            "h" => Some(3600),
            "d" => Some(24 * 3600),
            _ => None,
        };
        let number = text[..digits].parse::<u64>().ok();
        let seconds = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let seconds = seconds.filter(|seconds| *seconds <= SECONDS_MAX);
        let seconds =
            seconds.ok_or("it must be a time of up to a year, such as 90s, 10min or 2h, or never")?;
        Ok(After(Some(Duration::from_secs(seconds)).filter(|after| !after.is_zero())))
    }

    fn print(&self) -> String {
        let Some(after) = self.0 else { return "never".to_owned() };
        match after.as_secs() {
            hours if hours.is_multiple_of(3600) => format!("{}h", hours / 3600),
            minutes if minutes.is_multiple_of(60) => format!("{}min", minutes / 60),
            seconds => format!("{seconds}s"),
        }
    }
}

/// A closed list of words.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $variant_doc])+ $variant ),+ }

        impl $name {
            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),+ }
            }
        }

        impl Setting for $name {
            const VALUE_NAME: &'static str = "WORD";

            fn parse(text: &str) -> Result<Self, String> {
                let words = [$( $word ),+];
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(format!("it must be one of {}", words.join(", "))),
                }
            }

            fn print(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

words! {
    /// How a read is made linearizable.
    ReadMode {
        /// A read-index round to a majority; needs no clock.
        Quorum = "quorum",
        /// A lease of at most 200 ms; needs bounded clock rates.
        Lease = "lease",
    }
}

words! {
    /// Whether something may be done.
    YesNo {
        /// It may not.
        No = "no",
        /// It may.
        Yes = "yes",
    }
}

words! {
    /// Who leads shards.
    LeaderMode {
        /// Whom the map prefers, by measured load if some node is slow.
        Load = "load",
        /// Whom the map prefers.
        Map = "map",
    }
}

words! {
    /// Who answers reads of the gateway's clients.
    ReplicaReads {
        /// The leader, or a replica with less to do.
        Load = "load",
        /// The leader.
        Leader = "leader",
    }
}

words! {
    /// Which log lines are written.
    LogLevel {
        /// A human must act.
        Error = "error",
        /// Degraded, still correct.
        Warn = "warn",
        /// Changes of cluster state.
        Info = "info",
        /// Messages.
        Debug = "debug",
        /// Bytes.
        Trace = "trace",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
