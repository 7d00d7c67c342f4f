//! The clients' sockets: accept loops, and one task for each connection.
//!
//! A connection's task reads what is there, cuts it into commands and hands all of them on in one event; it writes what
//! the worker has put into its [`ClientOutput`], all of it in one write where the kernel takes that. It stops reading
//! while too much that it handed on is not answered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tholos_node::{ClientId, Event, Port};
use tholos_resp::{CommandDecoder, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::client_output::{ClientOutput, Ending, Unsent};
use crate::metrics::Counters;
use crate::open_files::ProcessClients;
use crate::worker_task::Input;

/// Commands of one client handed on and not answered, at most.
const IN_FLIGHT_COMMANDS_MAX: u64 = 1024;
/// Bytes of such commands, about; one command is always let through.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Least room for a read, in bytes; a buffer with less gets new memory.
const READ_BYTES_MIN: usize = 1 << 10;
/// Room for the first read, and for each further one while reads are small, in bytes.
const READ_BYTES: usize = 8 << 10;
/// Room for a read of a client that fills its reads, in bytes.
const READ_BYTES_MAX: usize = 256 << 10;
/// How long a closed connection takes what the client still sends: closing with unread bytes would make the kernel
/// throw away the last reply.
const LINGER: Duration = Duration::from_millis(500);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of one command, whatever the limits say: it becomes one entry, and a record of the log holds such an entry, a
/// window of others and what a checkpoint brings along.
pub(crate) const COMMAND_BYTES_MAX: usize = tholos_wal::BATCH_BYTES_MAX as usize / 2 - (64 << 10);

/// What a node allows its clients.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Connections at a time on both ports together. Default 10,240.
    pub clients_max: usize,
    /// Bytes that wait for a client that does not read; above, it is closed. Default 64 MiB.
    pub output_buffer_bytes_max: usize,
    /// What a client may send.
    pub commands: Limits,
    /// Those of all nodes of this process together.
    pub(crate) process: Arc<ProcessClients>,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            clients_max: 10_240,
            output_buffer_bytes_max: 64 << 20,
            commands: Limits::default(),
            process: Arc::default(),
        }
    }
}

/// The clients of one node.
pub(crate) struct Clients {
    inputs: mpsc::Sender<Input>,
    limits: ClientLimits,
    /// If there is one, commands are bounded tightly until the client has shown it.
    password: watch::Receiver<Option<Bytes>>,
    counters: Arc<Counters>,
    tasks: TaskTracker,
    connected: Mutex<Connected>,
    last_id: AtomicU64,
    /// Clients accepted and clients turned away since start.
    pub(crate) accepted: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

#[derive(Default)]
struct Connected {
    outputs: HashMap<u64, Arc<ClientOutput>>,
    closed: bool,
}

impl Clients {
    pub(crate) fn new(
        inputs: mpsc::Sender<Input>,
        limits: ClientLimits,
        password: watch::Receiver<Option<Bytes>>,
        counters: Arc<Counters>,
    ) -> Clients {
        Clients {
            inputs,
            limits,
            password,
            counters,
            tasks: TaskTracker::new(),
            connected: Mutex::default(),
            last_id: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    /// How many there may be: all that are allowed, or fewer while other nodes have more to spare.
    fn clients_max(&self) -> usize {
        match self.counters.clients_admitted.load(Ordering::Relaxed) {
            0 => self.limits.clients_max,
            admitted => self.limits.clients_max.min(usize::try_from(admitted).unwrap_or(usize::MAX)),
        }
    }

    /// How many are connected.
    pub(crate) fn count(&self) -> usize {
        self.lock().outputs.len()
    }

    /// Takes over a connection.
    pub(crate) fn serve(self: &Arc<Clients>, stream: TcpStream, remote: SocketAddr, port: Port) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let id = ClientId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let output = Arc::new(ClientOutput::new(self.limits.output_buffer_bytes_max));
        let place = self.limits.process.enter();
        {
            let mut connected = self.lock();
            if connected.closed {
                return;
            }
            if place.is_none() || connected.outputs.len() >= self.clients_max() {
                drop(connected);
                self.rejected.fetch_add(1, Ordering::Relaxed);
                // A new connection's buffer has room for one line; if not, it is closed without.
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
                return;
            }
            connected.outputs.insert(id.0, Arc::clone(&output));
        }
        let clients = Arc::clone(self);
        self.tasks.spawn(async move {
            let connection = Connection::new(stream, id, output, &clients);
            connection.run(port, remote).await;
            clients.lock().outputs.remove(&id.0);
            drop(place);
        });
    }

    /// Takes no new connections, reads nothing more, and closes each connection once all that was read is answered; waits for
    /// that until the deadline.
    pub(crate) async fn drain(&self, deadline: Instant) {
        self.end_all(Ending::AfterAnswers);
        let _late_ones_are_closed_without = tokio::time::timeout_at(deadline.into(), self.tasks.wait()).await;
    }

    /// Closes every connection at once, takes no new ones, and waits until all tasks have ended.
    pub(crate) async fn close(&self) {
        self.end_all(Ending::Now);
        self.tasks.wait().await;
    }

    fn end_all(&self, ending: Ending) {
        let outputs: Vec<Arc<ClientOutput>> = {
            let mut connected = self.lock();
            connected.closed = true;
            connected.outputs.values().cloned().collect()
        };
        for output in outputs {
            output.end(ending);
            output.wake();
        }
        self.tasks.close();
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        // No code under this lock can leave the table half changed.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts until it is dropped, and hands each connection to `serve`.
pub(crate) async fn accept(listener: TcpListener, serve: impl Fn(TcpStream, SocketAddr)) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => serve(stream, remote),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client; raise the limit of open files if that is it");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client's connection.
struct Connection<'a> {
    stream: TcpStream,
    id: ClientId,
    output: Arc<ClientOutput>,
    clients: &'a Clients,
    decoder: CommandDecoder,
    buffer: BytesMut,
    read_bytes: usize,
    unsent: Unsent,
    /// The kernel takes no more for now.
    blocked: bool,
    /// No more is read: the client has closed its side, or what it sent is not the protocol.
    deaf: bool,
    /// Commands handed on so far.
    submitted: u64,
    in_flight: InFlight,
    /// Whether a password was to be shown when it connected.
    password_required: bool,
}

impl<'a> Connection<'a> {
    fn new(
        stream: TcpStream,
        id: ClientId,
        output: Arc<ClientOutput>,
        clients: &'a Clients,
    ) -> Connection<'a> {
        let password_required = clients.password.borrow().is_some();
        let limits = Limits {
            authenticated: !password_required,
            query_buffer_bytes_max: clients.limits.commands.query_buffer_bytes_max.min(COMMAND_BYTES_MAX),
            ..clients.limits.commands.clone()
        };
        Connection {
            stream,
            id,
            output,
            clients,
            decoder: CommandDecoder::new(limits),
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES,
            unsent: Unsent::default(),
            blocked: false,
            deaf: false,
            submitted: 0,
            in_flight: InFlight::default(),
            password_required,
        }
    }

    async fn run(mut self, port: Port, remote: SocketAddr) {
        // Replies are gathered here already; waiting for more to fill a packet would only delay them.
        let _ = self.stream.set_nodelay(true);
        let local = self.stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let connected = Input::Connect {
            output: Arc::clone(&self.output),
            event: Event::Connected {
                client: self.id,
                port,
                remote: remote.to_string(),
                local,
                loopback: remote.ip().to_canonical().is_loopback(),
            },
        };
        if self.clients.inputs.send(connected).await.is_err() {
            return;
        }
        // An error means that the connection is gone; the client knows.
        let ending = self.serve().await.unwrap_or(Ending::Now);
        let _ = self.clients.inputs.send(Input::Event(Event::Disconnected { client: self.id })).await;
        if ending == Ending::AfterReplies {
            self.linger().await;
        }
    }

    /// Reads and writes until the connection is to be closed; how.
    async fn serve(&mut self) -> io::Result<Ending> {
        loop {
            // Read first: what is answered by then is among what is written, and the connection may end with it.
            let settled = self.output.settled();
            let ending = self.write()?;
            self.in_flight.settle(settled);
            match ending {
                Ending::Now => return Ok(ending),
                Ending::AfterReplies if self.unsent.is_empty() => return Ok(ending),
                Ending::AfterReplies => self.deaf = true,
                Ending::AfterAnswers if self.in_flight.is_empty() && self.unsent.is_empty() => {
                    return Ok(Ending::AfterReplies);
                }
                Ending::AfterAnswers => self.deaf = true,
                Ending::Open if self.deaf && self.in_flight.is_empty() && self.unsent.is_empty() => {
                    return Ok(Ending::AfterReplies);
                }
                Ending::Open => {}
            }
            if !self.deaf && !self.buffer.is_empty() && self.has_room() && !self.hand_on().await {
                return Ok(Ending::Now);
            }
            let reads = !self.deaf && self.has_room();
            if reads && !self.blocked {
                let room = self.make_room();
                // Reading like this, the runtime knows after a read that did not fill the room that nothing is left, and
                // spares the second one that would only say so.
                tokio::select! {
                    biased;
                    () = self.output.woken() => continue,
                    read = self.stream.read_buf(&mut self.buffer) => self.took(read?, room),
                }
                continue;
            }
            let wanted = match (reads, self.blocked) {
                (true, _) => Interest::READABLE | Interest::WRITABLE,
                (false, true) => Interest::WRITABLE,
                (false, false) => {
                    self.output.woken().await;
                    continue;
                }
            };
            tokio::select! {
                biased;
                () = self.output.woken() => continue,
                ready = self.stream.ready(wanted) => {
                    let ready = ready?;
                    self.blocked &= !ready.is_writable();
                    if ready.is_readable() && reads {
                        self.try_read()?;
                    }
                }
            }
        }
    }

    /// Writes what the kernel takes; what then is to become of the connection.
    fn write(&mut self) -> io::Result<Ending> {
        let mut ending = self.output.ending();
        while !self.blocked && ending != Ending::Now {
            if self.unsent.is_empty() {
                ending = self.output.take(&mut self.unsent);
                if self.unsent.is_empty() {
                    break;
                }
            }
            match self.unsent.try_write(&self.stream) {
                Ok(count) => self.output.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) => return Err(error),
            }
        }
        Ok(ending)
    }

    /// Makes room for a read, and says how much there is.
    fn make_room(&mut self) -> usize {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(self.read_bytes);
        }
        self.buffer.capacity() - self.buffer.len()
    }

    /// Notes what a read into `room` bytes brought; nothing is the end of the client's stream.
    fn took(&mut self, count: usize, room: usize) {
        self.deaf |= count == 0;
        // Memory follows what the client really sends: idle ones by the thousand stay cheap.
        self.read_bytes = match count {
            _ if count == room => (self.read_bytes * 2).min(READ_BYTES_MAX),
            _ if count < READ_BYTES => READ_BYTES,
            _ => self.read_bytes,
        };
    }

    /// Reads what is there, if anything is.
    fn try_read(&mut self) -> io::Result<()> {
        let room = self.make_room();
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(count) => self.took(count, room),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether more commands may be handed on.
    fn has_room(&self) -> bool {
        if self.is_unproven() {
            // What a client may send depends on what became of its AUTH, so that is awaited.
            return self.in_flight.is_empty();
        }
        self.in_flight.commands() < IN_FLIGHT_COMMANDS_MAX && self.in_flight.bytes < IN_FLIGHT_BYTES_MAX
    }

    fn is_unproven(&self) -> bool {
        self.password_required && !self.output.is_authenticated()
    }

    /// Hands on as many commands as are there and have room, in one event; false if the worker is gone.
    async fn hand_on(&mut self) -> bool {
        let unproven = self.is_unproven();
        self.decoder.limits_mut().authenticated = !unproven;
        let room = if unproven { 1 } else { IN_FLIGHT_COMMANDS_MAX - self.in_flight.commands() };
        let mut commands: Vec<Vec<Bytes>> = Vec::new();
        let mut bytes = 0;
        let mut malformed = None;
        while (commands.len() as u64) < room && self.in_flight.bytes + bytes < IN_FLIGHT_BYTES_MAX {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(command)) => {
                    bytes += command.iter().map(Bytes::len).sum::<usize>();
                    commands.push(command);
                }
                Ok(None) => break,
                Err(error) => {
                    malformed = Some(Bytes::from(format!("ERR {error}")));
                    break;
                }
            }
        }
        if !commands.is_empty() {
            self.submitted += commands.len() as u64;
            self.in_flight.add(self.submitted, bytes);
            let event = Event::Commands { client: self.id, commands };
            if self.clients.inputs.send(Input::Event(event)).await.is_err() {
                return false;
            }
        }
        if let Some(text) = malformed {
            self.deaf = true;
            self.buffer = BytesMut::new();
            // One more than was submitted, so that the end waits for this reply too.
            self.submitted += 1;
            self.in_flight.add(self.submitted, 0);
            let event = Event::Malformed { client: self.id, text };
            return self.clients.inputs.send(Input::Event(event)).await.is_ok();
        }
        true
    }

    /// Closes the sending side, then takes for a while what the client still sends.
    async fn linger(mut self) {
        let drain = async {
            self.stream.shutdown().await?;
            let mut sink = vec![0; READ_BYTES];
            while self.stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

/// Commands handed on and not answered, by the events that carried them.
#[derive(Default)]
struct InFlight {
    /// For each event: the count of commands up to its end, and its bytes.
    events: VecDeque<(u64, usize)>,
    submitted: u64,
    settled: u64,
    bytes: usize,
}

impl InFlight {
    fn add(&mut self, submitted: u64, bytes: usize) {
        self.events.push_back((submitted, bytes));
        self.submitted = submitted;
        self.bytes += bytes;
    }

    fn settle(&mut self, settled: u64) {
        self.settled = settled.min(self.submitted);
        while let Some((_, bytes)) = self.events.pop_front_if(|(last, _)| *last <= settled) {
            self.bytes -= bytes;
        }
    }

    fn commands(&self) -> u64 {
        self.submitted - self.settled
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests;
