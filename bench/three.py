"""Three `tholos serve` on loopback, for the benchmarks beside this file."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READY_SECONDS = 60


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def on_cpus(cpus, command):
    return ["taskset", "-c", cpus, *command] if cpus else command


class Three:
    """`options` go to every node; `wrap(at, command)` and `environment(at)` change how one is started."""

    def __init__(self, tholos, directory, options=(), cpus=None, wrap=None, environment=None):
        self.tholos, self.cpus = tholos, cpus
        ports = free_ports(12)
        self.http = [f"127.0.0.1:{port}" for port in ports[0:3]]
        self.cluster = [f"127.0.0.1:{port}" for port in ports[3:6]]
        self.gateway = [f"127.0.0.1:{port}" for port in ports[9:12]]
        peers = [f"127.0.0.1:{port}" for port in ports[6:9]]
        seeds = ",".join(f"n{at + 1}={peer}" for at, peer in enumerate(peers))
        self.processes = []
        for at in range(3):
            command = [
                tholos, "serve", "--name", f"n{at + 1}", "--dir", directory, "--http", self.http[at],
                "--cluster", self.cluster[at], "--gateway", self.gateway[at], "--peer", peers[at],
                "--seeds", seeds, "--log-level", "warn", *options,
            ]
            command = wrap(at, command) if wrap else command
            changed = dict(os.environ, **(environment(at) if environment else {}))
            self.processes.append(subprocess.Popen(on_cpus(cpus, command), env=changed))
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def load(self, at=1):
        with urllib.request.urlopen(f"http://{self.http[at]}/v1/load", timeout=10) as answer:
            return json.load(answer)

    def leads(self):
        return [node["leads"] for node in self.load()["nodes"]]

    def metric(self, name):
        """The sum of a metric over the nodes."""
        total = 0
        for http in self.http:
            with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(name) and line[len(name)] in " {":
                        total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if sum(self.leads()) == 64:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("the cluster is not ready in time")

    def pids(self):
        return [process.pid for process in self.processes]

    def resident_bytes(self):
        """Memory of the largest of the three."""
        page = os.sysconf("SC_PAGE_SIZE")
        sizes = []
        for pid in self.pids():
            with open(f"/proc/{pid}/statm") as statm:
                sizes.append(int(statm.read().split()[1]) * page)
        return max(sizes)

    def bench(self, *arguments, cpus=None):
        """Starts `tholos bench`."""
        command = [self.tholos, "bench", "--json", *map(str, arguments)]
        return subprocess.Popen(on_cpus(cpus, command), stdout=subprocess.PIPE, text=True)

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def figures(process):
    text, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"tholos bench has failed: {text}")
    return json.loads(text)


def arguments(document):
    """A parser with what all of these take."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tholos", default=os.path.join(target, "release", "tholos"), help="the binary")
    parser.add_argument("--dir", default=target, help="where data is kept while this runs")
    return parser


def parse(parser):
    args = parser.parse_args()
    if not os.path.exists(args.tholos):
        parser.error(f"{args.tholos} is missing: cargo build --release, or --tholos")
    return args


class Bars:
    """What was asked and what was measured, as Markdown; the process ends with 1 if a bar is missed."""

    def __init__(self):
        self.missed = 0
        print("| what | bar | measured | |")
        print("|---|---|---|---|")

    def row(self, what, bar, measured, holds=None):
        self.missed += holds is False
        word = {None: "", True: "holds", False: "**missed**"}[holds]
        print(f"| {what} | {bar} | {measured} | {word} |", flush=True)

    def end(self):
        raise SystemExit(1 if self.missed else 0)
