"""A Redis connection that hides nothing: replies come as the bytes on the wire and as plain values."""

import socket


class Closed(Exception):
    """The server closed the connection."""


class ReplyError(str):
    """An error reply; its text."""


class Connection:
    def __init__(self, host, port, timeout=10.0):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def send(self, *args):
        self.socket.sendall(encode(args))

    def call(self, *args):
        """Sends one command and returns its reply as a value."""
        self.send(*args)
        return self.read()[0]

    def raw(self, *args):
        """Sends one command and returns the exact bytes of its reply."""
        self.send(*args)
        return self.read()[1]

    def read(self):
        """One reply: (value, its bytes)."""
        line = self.line()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return ReplyError(rest.decode()), line
        if kind in b"+,(":
            return rest.decode(), line
        if kind == b":":
            return int(rest), line
        if kind == b"#":
            return rest == b"t", line
        if kind == b"_":
            return None, line
        if kind in b"$=!":
            if rest == b"-1":
                return None, line
            data = self.exactly(int(rest) + 2)
            return data[:-2], line + data
        if kind in b"*~>%":
            if rest == b"-1":
                return None, line
            count = int(rest) * (2 if kind == b"%" else 1)
            items, raw = [], line
            for _ in range(count):
                value, data = self.read()
                items.append(value)
                raw += data
            return items, raw
        raise ValueError(f"no reply starts with {line!r}")

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line + b"\r\n"

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise Closed(f"closed after {self.buffer!r}" if self.buffer else "closed")
        self.buffer += data


def encode(args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        arg = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(parts)
