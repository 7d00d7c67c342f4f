"""What the suite runs against: Tholos, or plain Redis to check the suite itself. All on loopback, on free ports."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

from resp import Connection

START_SECONDS = 30


def free_ports(count):
    """The first of `count` consecutive free ports, below the range the kernel gives to clients."""
    for _ in range(200):
        base = random.randrange(12000, 30000)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


def port_of(address):
    """The port of `host:port`."""
    return int(str(address).rsplit(":", 1)[1])


class Tholos:
    """`tholos dev --temp`: three nodes in one process."""

    name = "tholos"
    can_fail_over = True

    def __init__(self, binary, log_path):
        self.binary = os.path.abspath(binary)
        self.dir = tempfile.mkdtemp(prefix="tholos-compat-")
        self.killed = None
        self.ready_file = os.path.join(self.dir, "ready.json")
        self.log = open(log_path, "wb")
        command = [self.binary, "dev", "--temp", "--ready-file", self.ready_file]
        for flag in ("--port", "--cluster-port", "--peer-port", "--http-port"):
            command += [flag, "0"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.dir)
        self.addresses = self.wait_ready()
        self.gateway = port_of(self.addresses["gateway"])
        self.cluster = [port_of(node["cluster"]) for node in self.addresses["nodes"]]
        self.http = self.addresses["http"]
        self.pid = self.process.pid

    def wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"tholos ended with code {self.process.returncode}; see {self.log.name}")
            if os.path.exists(self.ready_file):
                with open(self.ready_file, encoding="utf-8") as file:
                    return json.load(file)
            time.sleep(0.05)
        raise RuntimeError(f"tholos was not ready after {START_SECONDS} s; see {self.log.name}")

    def dev(self, *args):
        done = subprocess.run(
            [self.binary, "dev", *args, "--at", self.http], capture_output=True, text=True, timeout=30
        )
        if done.returncode != 0:
            raise RuntimeError(f"tholos dev {' '.join(args)}: {done.stdout}{done.stderr}")

    def kill_one(self):
        """Kills the node that leads most."""
        with urllib.request.urlopen(f"http://{self.http}/v1/status", timeout=10) as answer:
            nodes = json.load(answer)["nodes"]
        most = max(nodes, key=lambda node: node["leads"])
        assert most["leads"] > 0, f"no node leads anything: {nodes}"
        self.dev("kill", most["name"])
        self.killed = most["name"]

    def restart_one(self):
        self.dev("restart", self.killed)

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Redis:
    """One plain redis-server: the oracle for exact replies."""

    def __init__(self, *more):
        self.port = free_ports(1)
        self.dir = tempfile.mkdtemp(prefix="redis-compat-")
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connection = Connection("127.0.0.1", self.port)
                connection.call("PING")
                connection.close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError("redis-server did not start") from None
                time.sleep(0.05)

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class RedisPair:
    """A standalone Redis for the gateway and a Redis Cluster of 3 + 3 for the cluster ports: checks the suite."""

    name = "redis"
    can_fail_over = True

    def __init__(self):
        self.single = Redis("--client-output-buffer-limit", "normal", "64mb", "0", "0", "--maxclients", "10240")
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        self.nodes = [Redis(*options) for _ in range(6)]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"],
            check=True, stdout=subprocess.DEVNULL,
        )
        self.gateway = self.single.port
        self.cluster = [node.port for node in self.nodes[:3]]
        self.pid = self.single.process.pid
        self.http = None
        time.sleep(3)

    def kill_one(self):
        self.nodes[1].process.kill()

    def restart_one(self):
        pass

    def alive(self):
        return self.single.process.poll() is None

    def stop(self):
        for node in [self.single, *self.nodes]:
            node.stop()
