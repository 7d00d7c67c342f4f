"""The systems that are compared: each started on loopback, on free ports, with three nodes, and ended by pid."""

import contextlib
import json
import os
import random
import socket
import subprocess
import time

START_SECONDS = 60


def free_ports(count):
    """`count` consecutive free ports, below the range the kernel gives to clients."""
    for _ in range(200):
        base = random.randrange(12000, 30000)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(base, base + count))
    raise RuntimeError("no free ports")


def redis_command(port, *words):
    """One command in the inline form, and what comes back at once: for questions with short answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536).decode(errors="replace")


def wait_until(what, question, log_dir):
    """Asks until the answer is true; what it cannot connect to yet counts as no."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):
            answer = question()
            if answer:
                return answer
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not come up within {START_SECONDS} s: see the logs in {log_dir}")


class System:
    """Server processes with one directory; a context manager that ends them."""

    def __init__(self, base_dir):
        self.dir = os.path.join(base_dir, f"{self.name}-{random.randrange(1 << 32):08x}")
        os.makedirs(self.dir)
        self.processes = []

    def spawn(self, label, command, env=None):
        with open(os.path.join(self.dir, f"{label}.log"), "ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, env=env)
        self.processes.append(process)
        return process

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    def resident_mib(self):
        """Resident memory of each process."""
        def of(pid):
            with open(f"/proc/{pid}/status") as status:
                line = next(line for line in status if line.startswith("VmRSS:"))
            return int(line.split()[1]) / 1024
        return [of(pid) for pid in self.pids]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


class Tholos(System):
    """Three `tholos serve` with all defaults."""

    name = "tholos"

    def __init__(self, base_dir, binary):
        super().__init__(base_dir)
        self.binary = binary

    def start(self):
        ports = free_ports(12)
        plans = [dict(zip(("gateway", "cluster", "peer", "http"), ports[i * 4:i * 4 + 4])) for i in range(3)]
        seeds = ",".join(f"n{i + 1}=127.0.0.1:{plan['peer']}" for i, plan in enumerate(plans))
        env = {name: value for name, value in os.environ.items() if not name.startswith("THOLOS_")}
        ready = []
        for i, plan in enumerate(plans):
            command = [self.binary, "serve", "--name", f"n{i + 1}", "--dir", self.dir, "--seeds", seeds]
            for flag, port in plan.items():
                command += [f"--{flag}", f"127.0.0.1:{port}"]
            ready.append(os.path.join(self.dir, f"n{i + 1}.ready"))
            self.spawn(f"n{i + 1}", command + ["--ready-file", ready[-1]], env)
        wait_until("tholos", lambda: all(os.path.exists(path) for path in ready), self.dir)
        self.cluster = [f"127.0.0.1:{plan['cluster']}" for plan in plans]
        self.gateway = [f"127.0.0.1:{plan['gateway']}" for plan in plans]


class RedisWait(System):
    """A primary and two replicas, each of which syncs its file before it answers."""

    name = "redis"

    def start(self):
        ports = free_ports(3)
        for i, port in enumerate(ports):
            directory = os.path.join(self.dir, str(i))
            os.makedirs(directory)
            # No snapshots and no rewrites of the file: neither is asked for here, and either would disturb a run.
            command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--save", "",
                       "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
                       "--repl-diskless-sync-delay", "0"]
            self.spawn(f"r{i}", command + (["--replicaof", "127.0.0.1", str(ports[0])] if i else []))
        synced = lambda: redis_command(ports[0], "INFO", "replication").count("state=online") == 2
        wait_until("redis", synced, self.dir)
        self.address = f"127.0.0.1:{ports[0]}"


class RedisPlain(System):
    """One Redis that keeps nothing on disk."""

    name = "redis-plain"

    def start(self):
        port, = free_ports(1)
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", self.dir, "--save", "",
                   "--appendonly", "no"]
        self.spawn("r", command)
        wait_until("redis", lambda: redis_command(port, "PING").startswith("+PONG"), self.dir)
        self.address = f"127.0.0.1:{port}"


class Etcd(System):
    """Three etcd with all defaults."""

    name = "etcd"

    def __init__(self, base_dir, bin_dir):
        super().__init__(base_dir)
        self.bin_dir = bin_dir

    def start(self):
        ports = free_ports(6)
        clients = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        initial = ",".join(f"e{i}={peer}" for i, peer in enumerate(peers))
        for i in range(3):
            self.spawn(f"e{i}", [
                os.path.join(self.bin_dir, "etcd"), "--name", f"e{i}", "--data-dir", os.path.join(self.dir, f"e{i}"),
                "--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
                "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
                "--initial-cluster", initial, "--initial-cluster-state", "new", "--log-level", "warn",
            ])
        self.addresses = [url.removeprefix("http://") for url in clients]
        # The leader's endpoint: from any other, each request would take one more way.
        self.address = wait_until("etcd", lambda: self.leader(clients), self.dir)

    def leader(self, clients):
        command = [os.path.join(self.bin_dir, "etcdctl"), "endpoint", "status", "-w", "json",
                   "--endpoints", ",".join(clients)]
        env = dict(os.environ, ETCDCTL_API="3")
        answer = subprocess.run(command, capture_output=True, check=True, env=env).stdout
        nodes = json.loads(answer)
        leads = [node for node in nodes if node["Status"]["leader"] == node["Status"]["header"]["member_id"]]
        return leads[0]["Endpoint"].removeprefix("http://") if len(nodes) == 3 and leads else None
