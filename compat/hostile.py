"""Malformed and hostile input: a clean error or a closed connection, bounded memory, other clients unharmed.

Every case opens connections of its own. All the while a bystander reads and writes on the same port; it may see no
error and no long wait. The server's resident memory is read from /proc.
"""

import random
import resource
import socket
import struct
import threading
import time

from resp import Closed, Connection, ReplyError, encode

HOST = "127.0.0.1"
MIB = 1 << 20
# What the server may grow by while it is attacked: two clients' query and output buffers (128 + 64 MiB) and slack
# for the allocator. Afterwards most of it must be free again.
GROWTH_MAX = 512 * MIB
GROWTH_LEFT_MAX = 320 * MIB
BYSTANDER_SECONDS_MAX = 2.0
IDLE_CONNECTIONS = 10_000

TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303" + "5a" * 32 + "20" + "a5" * 32
    + "0004130113020100007700000010000e00000b6578616d706c652e636f6d000a00040002001d"
)


def rss(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} for {pid}")


def connect(port, timeout=5.0):
    return socket.create_connection((HOST, port), timeout)


def exchange(port, data, quiet=0.4):
    """Sends, then reads until the server closes or is quiet: (what came, whether it closed)."""
    with connect(port) as client:
        received = b""
        try:
            client.sendall(data)
        except (ConnectionError, TimeoutError):
            pass  # It closed while we were sending: what it said may still be readable.
        client.settimeout(quiet)
        try:
            while len(received) < 64 * MIB:
                piece = client.recv(65536)
                if not piece:
                    return received, True
                received += piece
        except ConnectionError:
            return received, True
        except TimeoutError:
            pass
        return received, False


def refused(port, data, text=b"-ERR Protocol error"):
    """The server says why, if the reset lets it be read, and closes."""
    received, closed = exchange(port, data)
    assert closed, f"the connection stays open; {received[:120]!r}"
    assert received == b"" or received.startswith(text), f"{received[:120]!r}"


def refused_aloud(port, data, text=b"-ERR Protocol error"):
    """As `refused`, for input short enough that the reason must arrive."""
    received, closed = exchange(port, data)
    assert closed, f"the connection stays open; {received[:120]!r}"
    assert received.startswith(text), f"{received[:120]!r}"


def clean(port, data):
    """An error or nothing, closed or not; never a success."""
    received, _ = exchange(port, data)
    assert received == b"" or received.startswith(b"-"), f"{received[:120]!r}"


def answers(port, data, expected):
    received, _ = exchange(port, data)
    assert received == expected, f"{received[:120]!r}, not {expected[:120]!r}"


def error_and_open(port, data, text=b"-ERR"):
    """A refused command on a connection that goes on."""
    received, closed = exchange(port, data + b"PING\r\n")
    assert received.startswith(text) and received.endswith(b"+PONG\r\n") and not closed, f"{received[:160]!r}, closed {closed}"


PROTOCOL_CASES = [
    ("multibulk length beyond 64 bits", lambda p: refused_aloud(p, b"*99999999999999999999\r\n")),
    ("multibulk length that is no number", lambda p: refused_aloud(p, b"*two\r\n")),
    ("negative multibulk length", lambda p: answers(p, b"*-5\r\nPING\r\n", b"+PONG\r\n")),
    ("empty multibulk", lambda p: answers(p, b"*0\r\nPING\r\n", b"+PONG\r\n")),
    ("negative bulk length", lambda p: refused_aloud(p, b"*1\r\n$-5\r\n")),
    ("null bulk as an argument", lambda p: refused_aloud(p, b"*1\r\n$-1\r\n")),
    ("huge bulk length", lambda p: refused_aloud(p, b"*1\r\n$99999999999\r\n")),
    ("bulk length beyond 64 bits", lambda p: refused_aloud(p, b"*1\r\n$99999999999999999999\r\n")),
    ("bulk length that is no number", lambda p: refused_aloud(p, b"*1\r\n$4x\r\nPING\r\n")),
    ("bulk length with a blank", lambda p: refused_aloud(p, b"*1\r\n$ 4\r\nPING\r\n")),
    ("an argument that is no bulk", lambda p: refused_aloud(p, b"*1\r\n+PING\r\n")),
    ("arrays in arrays", lambda p: refused_aloud(p, b"*1\r\n" * 1000)),
    ("a deep nest of arrays", lambda p: refused(p, b"*1\r\n" * 200_000)),
    ("a never-ending inline line", lambda p: refused(p, b"a" * (10 * MIB))),
    ("a never-ending length line", lambda p: refused(p, b"*" + b"1" * (4 * MIB))),
    ("a never-ending bulk length line", lambda p: refused(p, b"*1\r\n$" + b"1" * (4 * MIB))),
    ("unbalanced quotes", lambda p: refused_aloud(p, b'SET "a b\r\n')),
    ("a RESP3 map as a command", lambda p: clean(p, b"%1\r\n$4\r\nPING\r\n$1\r\nx\r\n")),
    ("TLS hello on a plain port", lambda p: clean(p, TLS_HELLO)),
    ("an HTTP POST", lambda p: clean(p, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nPING")),
    ("an HTTP GET with a host", lambda p: clean(p, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    ("an SSH banner", lambda p: clean(p, b"SSH-2.0-OpenSSH_9.2\r\n")),
    ("a megabyte of zeros", lambda p: refused(p, bytes(MIB))),
    ("empty lines without end", lambda p: answers(p, b"\r\n" * 100_000 + b"PING\r\n", b"+PONG\r\n")),
    ("bare line feeds", lambda p: answers(p, b"PING\nPING\n", b"+PONG\r\n" * 2)),
    ("random bytes", lambda p: random_bytes(p)),
    ("a command name of a megabyte", lambda p: error_and_open(p, encode([b"x" * MIB]), b"-ERR unknown command")),
    ("100,000 empty arguments", lambda p: error_and_open(p, encode([b""] * 100_000), b"-ERR unknown command")),
    ("line ends in an unknown command", lambda p: error_and_open(p, encode([b"a\r\nb", b"c\r\n+OK"]), b"-ERR unknown command")),
    ("HELLO of a version that is not there", lambda p: error_and_open(p, b"HELLO 4\r\n", b"-NOPROTO")),
    ("HELLO with half an AUTH", lambda p: error_and_open(p, b"HELLO 3 AUTH x\r\n")),
    ("AUTH where there is no password", lambda p: error_and_open(p, b"AUTH nothing\r\n")),
    ("a command byte by byte", lambda p: byte_by_byte(p)),
    ("half commands, then gone", lambda p: half_commands(p)),
    ("10,000 commands in one write", lambda p: answers(p, b"PING\r\n" * 10_000, b"+PONG\r\n" * 10_000)),
    ("a closed sending side", lambda p: half_closed(p)),
    ("2,000 connections opened and reset", lambda p: churn(p)),
    ("a block of 50,000 commands that is dropped", lambda p: dropped_block(p)),
    ("a length of 1 GiB that never comes", lambda p: announced(p)),
]

# Limits that plain Redis does not have, or has elsewhere.
LIMIT_CASES = [
    ("huge multibulk length", lambda p: refused_aloud(p, b"*2147483647\r\n")),
    ("multibulk length above the limit", lambda p: refused_aloud(p, b"*1048577\r\n")),
    ("a value above 64 MiB", lambda p: refused(p, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (64 * MIB + 1), b"-ERR")),
    ("a key above 64 KiB", lambda p: error_and_open(p, encode([b"SET", b"k" * (64 * 1024 + 1), b"v"]))),
    ("more bytes of one command than the query buffer", lambda p: refused(p, b"*1000\r\n" + (b"$%d\r\n" % MIB + bytes(MIB) + b"\r\n") * 140, b"-ERR")),
]


def random_bytes(port):
    chance = random.Random(2001)
    for _ in range(100):
        with connect(port) as client:
            client.settimeout(0.02)
            try:
                client.sendall(chance.randbytes(chance.randrange(1, 4096)))
                client.recv(4096)
            except (ConnectionError, TimeoutError):
                pass


def byte_by_byte(port):
    with connect(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in encode(["ECHO", "drop by drop"]):
            client.sendall(bytes([byte]))
            time.sleep(0.002)
        assert client.recv(100) == b"$12\r\ndrop by drop\r\n"


def half_commands(port):
    whole = encode(["SET", "half", "a value that does not arrive"])
    for end in range(1, len(whole)):
        with connect(port) as client:
            client.sendall(whole[:end])
    connection = Connection(HOST, port)
    assert absent(connection.call("EXISTS", "half")), "half a command was carried out"
    connection.close()


def absent(reply):
    """EXISTS says no, or a cluster port that another node leads the key."""
    return reply == 0 or isinstance(reply, ReplyError) and reply.startswith("MOVED")


def half_closed(port):
    with connect(port) as client:
        client.sendall(b"ECHO still-here\r\n")
        client.shutdown(socket.SHUT_WR)
        received = client.recv(100)
        assert received in (b"$10\r\nstill-here\r\n", b""), f"{received!r}"


def churn(port):
    for _ in range(2000):
        with connect(port) as client:
            client.sendall(b"PING\r\n")
            # Reset instead of an orderly close.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dropped_block(port):
    with connect(port) as client:
        client.sendall(b"MULTI\r\n")
        block = encode(["SET", "block", "x" * 100]) * 1000
        reader = threading.Thread(target=drain, args=(client,), daemon=True)
        reader.start()
        for _ in range(50):
            client.sendall(block)
    connection = Connection(HOST, port)
    assert absent(connection.call("EXISTS", "block")), "a block without EXEC was carried out"
    connection.close()


def drain(client):
    try:
        while client.recv(65536):
            pass
    except OSError:
        pass


def announced(port):
    """Many clients announce much and send nothing: what is announced must not be allocated."""
    clients = []
    for _ in range(50):
        client = connect(port)
        client.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % (60 * MIB))
        clients.append(client)
    time.sleep(0.5)
    for client in clients:
        client.close()


def never_reads(port):
    """Asks for much more than the output buffer holds and reads nothing: it must be cut off."""
    writer = Connection(HOST, port)
    assert writer.call("SET", "large", bytes(MIB)) == "OK"
    with connect(port, timeout=20) as client:
        request = encode(["GET", "large"])
        cut = False
        try:
            for _ in range(400):
                client.sendall(request)
                time.sleep(0.005)
            # Cut off means: the reads end before all has come.
            received = 0
            while received < 400 * MIB:
                piece = client.recv(1 << 20)
                if not piece:
                    cut = True
                    break
                received += len(piece)
        except ConnectionError:
            cut = True
        assert cut, "400 MiB of replies were kept for a client that did not read"
    writer.call("DEL", "large")
    writer.close()


def reads_late(port):
    """Within the limit a slow reader gets all, in order."""
    connection = Connection(HOST, port, timeout=30)
    connection.call("SET", "medium", bytes(100 * 1024))
    for _ in range(200):
        connection.send("GET", "medium")
    time.sleep(1)
    for _ in range(200):
        assert len(connection.read()[0]) == 100 * 1024
    connection.call("DEL", "medium")
    connection.close()


def idle_connections(port):
    """10,000 connections that say nothing; a new client is served beside them."""
    limit = IDLE_CONNECTIONS + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < limit:
        hard = hard if hard == resource.RLIM_INFINITY or hard >= limit else limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    clients = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            clients.append(connect(port))
        connection = Connection(HOST, port)
        for i in range(100):
            assert connection.call("SET", "beside", i) == "OK"
        connection.close()
        clients[0].sendall(b"PING\r\n")
        first = clients[0].recv(10)
        assert first == b"+PONG\r\n", first
        # A node that is busier than the others admits fewer, and says so.
        try:
            clients[-1].sendall(b"PING\r\n")
            last = clients[-1].recv(100)
        except ConnectionError:
            last = b""
        assert last in (b"+PONG\r\n", b"") or last.startswith(b"-ERR max number of clients"), last
    finally:
        for client in clients:
            client.close()


def silent_to_strangers(port):
    """The peer port gives a stranger nothing: no byte that a stranger's bytes brought about."""
    for data in (b"", b"PING\r\n", TLS_HELLO, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(MIB), b"\xff" * 64, struct.pack(">I", 1 << 31)):
        received, _ = exchange(port, data, quiet=0.5)
        assert not received.startswith((b"+", b"-", b"HTTP")), f"{data[:20]!r} got {received[:60]!r}"
        assert len(received) <= 256, f"{data[:20]!r} got {len(received)} bytes"


def admin_garbage(port):
    for data in (b"\r\n\r\n", bytes(MIB), b"GET " + b"/" * MIB, b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, TLS_HELLO):
        received, _ = exchange(port, data)
        assert received == b"" or b"HTTP/1.1 4" in received[:20] or b"HTTP/1.0 4" in received[:20], f"{received[:80]!r}"


def admin_foreign_origin(port):
    """A web page in a browser beside the node must not be able to kill one."""
    for header in (b"Host: evil.example", b"Host: 127.0.0.1:%d\r\nOrigin: http://evil.example" % port):
        request = b"POST /v1/dev/kill?node=n1 HTTP/1.1\r\n" + header + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        received, _ = exchange(port, request, quiet=2)
        assert received.startswith(b"HTTP/1.1 4"), f"{received[:80]!r}"


class Bystander:
    """An honest client that reads and writes while others misbehave."""

    def __init__(self, port):
        self.port = port
        self.stopped = threading.Event()
        self.errors = []
        self.calls = 0
        self.slowest = 0.0
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        try:
            connection = Connection(HOST, self.port, timeout=BYSTANDER_SECONDS_MAX)
            while not self.stopped.is_set():
                started = time.monotonic()
                value = str(self.calls)
                set_reply, get_reply = connection.call("SET", "bystander", value), connection.call("GET", "bystander")
                if set_reply != "OK" or get_reply != value.encode():
                    self.errors.append(f"{set_reply!r}, {get_reply!r}")
                self.slowest = max(self.slowest, time.monotonic() - started)
                self.calls += 1
                time.sleep(0.005)
            connection.close()
        except (OSError, Closed, ValueError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def verdict(self):
        self.stopped.set()
        self.thread.join()
        assert not self.errors, f"after {self.calls} calls: {self.errors[0]}"
        assert self.calls > 20, f"only {self.calls} calls"
        print(f"         {self.calls} rounds beside it, slowest {self.slowest * 1000:.0f} ms")


def run(report, server):
    before = rss(server.pid)
    tholos = server.name == "tholos"
    ports = [("gateway", server.gateway)] + ([("cluster port", server.cluster[0])] if tholos else [])
    for label, port in ports:
        report.area(f"hostile input, {label}")
        bystander = Bystander(server.gateway)
        cases = PROTOCOL_CASES + (LIMIT_CASES if tholos else [])
        for name, case in cases:
            report.check(name, lambda: case_on(case, port, label))
        if label == "gateway":
            report.check("a client that reads late", lambda: reads_late(port))
            report.check("a client that never reads", lambda: never_reads(port))
            report.check(f"{IDLE_CONNECTIONS} idle connections", lambda: idle_connections(port))
        report.check("another client is unharmed", bystander.verdict)
    if tholos:
        report.area("hostile input, peer and admin ports")
        bystander = Bystander(server.gateway)
        from servers import port_of  # only this server has such ports
        peer = port_of(server.addresses["nodes"][0]["peer"])
        report.check("the peer port gives strangers nothing", lambda: silent_to_strangers(peer))
        report.check("garbage on the admin port", lambda: admin_garbage(port_of(server.http)))
        report.check("a foreign origin on the admin port", lambda: admin_foreign_origin(port_of(server.http)))
        report.check("another client is unharmed", bystander.verdict)
    report.area("hostile input, memory")
    report.check("peak", lambda: below(rss(server.pid, "VmHWM") - before, GROWTH_MAX))
    report.check("afterwards", lambda: below(rss(server.pid) - before, GROWTH_LEFT_MAX))


def case_on(case, port, label):
    # On a cluster port a key of another node is answered with MOVED, which says all that these cases ask.
    try:
        case(port)
    except AssertionError as error:
        if label == "cluster port" and "MOVED" in str(error):
            return
        raise


def below(growth, limit):
    print(f"         grew by {growth / MIB:.0f} MiB")
    assert growth <= limit, f"grew by {growth / MIB:.0f} MiB, more than {limit / MIB:.0f}"
