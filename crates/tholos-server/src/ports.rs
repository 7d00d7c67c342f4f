//! Listening ports, and what to say when one is taken.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports to pick from. Of those from 32,768 on Linux gives some to outgoing connections, so that one which is let go until
/// its server listens may be taken by a connection of this very process.
const PICKED: std::ops::Range<u32> = 26_000..32_000;

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}", text(self))]
pub struct PortError {
    /// Which listener: `gateway`, `cluster port of n2`, …
    pub what: String,
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
    /// Who has the port, if that can be told: `redis-server (pid 812)`.
    pub user: Option<String>,
    /// The option that moves this listener: `--port`, or `--peer` where an address is wanted.
    pub option: &'static str,
    /// The next port that was free then, if this one is taken.
    pub proposal: u16,
}

fn text(error: &PortError) -> String {
    let PortError { what, address, source, user, option, proposal } = error;
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let (port, user) = (address.port(), user.as_deref().unwrap_or("another process"));
            let proposal = match option.ends_with("port") {
                true => proposal.to_string(),
                false => SocketAddr::new(address.ip(), *proposal).to_string(),
            };
            format!(
                "the {what} cannot listen on {address}: port {port} is in use by {user}; use {option} {proposal} or stop it"
            )
        }
        io::ErrorKind::PermissionDenied => format!(
            "the {what} cannot listen on {address}: {source}; ports below 1024 are privileged, use {option} with a higher one"
        ),
        _ => format!("the {what} cannot listen on {address}: {source}; choose another address with {option}"),
    }
}

/// Ports that are tried for a proposal, at most.
const PROPOSALS_TRIED_MAX: u16 = 100;

/// The port that a message proposes instead of a taken one.
fn proposal(taken: SocketAddr) -> u16 {
    let after = |step: u16| taken.port().checked_add(step).unwrap_or(1024 + step);
    let is_free = |port: &u16| TcpListener::bind(SocketAddr::new(taken.ip(), *port)).is_ok();
    (1..=PROPOSALS_TRIED_MAX).map(after).find(is_free).unwrap_or_else(|| after(1))
}

impl PortError {
    /// Names what failed, and who has the port if /proc tells.
    pub(crate) fn new(
        what: impl Into<String>,
        address: SocketAddr,
        source: io::Error,
        option: &'static str,
    ) -> PortError {
        let taken = source.kind() == io::ErrorKind::AddrInUse;
        let user = taken.then(|| user_of_port(address.port())).flatten();
        let proposal = if taken { proposal(address) } else { 0 };
        PortError { what: what.into(), address, source, user, option, proposal }
    }
}

/// Listens, ready for tokio.
pub(crate) fn listen(
    what: impl Into<String>,
    address: SocketAddr,
    option: &'static str,
) -> Result<TcpListener, PortError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| PortError::new(what, address, source, option))
}

/// The next free port of [`PICKED`], counted round from a place by chance; any that the system has if all are taken.
fn hold_free() -> io::Result<TcpListener> {
    static BASE: OnceLock<u32> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Without chance from the system the first place serves as well.
    let base = *BASE.get_or_init(|| getrandom::u32().unwrap_or(0) % PICKED.end);
    for _ in PICKED {
        let place = base.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % (PICKED.end - PICKED.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, (PICKED.start + place) as u16)) {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Ports of 127.0.0.1 that were free a moment ago, all different, and other ones at each call in this process.
///
/// # Errors
/// As the system has it.
pub(crate) fn pick_free(count: usize) -> io::Result<Vec<u16>> {
    // All are held until all are found, or the system would give one twice.
    let listeners: Vec<TcpListener> = (0..count).map(|_| hold_free()).collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The loopback address with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `name (pid n)` of the process that listens on the port, where /proc tells: for own processes, and for all if root.
fn user_of_port(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&std::fs::read_to_string(table).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |target: std::path::PathBuf| target.to_str() == Some(wanted.as_str());
        if files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(holds)) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// Finds the socket that listens on `port` in a table like /proc/net/tcp: `sl local_address rem_address st … inode`.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(local_port, 16) == Ok(port) && *columns.get(3)? == LISTEN;
        if listens { columns.get(9)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_named_with_its_user_and_the_option() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = held.local_addr().unwrap();
        let error = listen("gateway", address, "--port").unwrap_err().to_string();
        assert!(error.contains(&format!("port {} is in use by", address.port())), "{error}");
        assert!(error.contains("use --port "), "{error}");
        let error = listen("gateway", address, "--gateway").unwrap_err();
        let proposed = SocketAddr::new(address.ip(), error.proposal);
        assert!(error.to_string().contains(&format!("use --gateway {proposed} or")), "{error}");
        assert!(TcpListener::bind(proposed).is_ok(), "what is proposed is free: {error}");
        #[cfg(target_os = "linux")]
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn listening_socket_is_found_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:18EB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 7 1 x 100\n\
            \x20  1: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24315 1 x\n";
        assert_eq!(listening_inode(table, 6379), Some(24315), "the connected socket above it is no listener");
        assert_eq!(listening_inode(table, 6380), None);
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = pick_free(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
