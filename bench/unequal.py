#!/usr/bin/env python3
"""Three nodes of which one is slow: leaders that follow measured load beside leaders that stay, in one run.

    python3 bench/unequal.py [--seconds 20] [--only processor,disk] [--tholos target/release/tholos]

For each kind of slowness two clusters run one after the other, `leaders = "load"` and `leaders = "map"`, three times
`tholos serve` on loopback. First all nodes are well; then n1 is slow, and after --settle seconds it is measured again.

 * processor: n1 is stopped and continued (SIGSTOP, SIGCONT) for 5 ms each: half a processor, whatever the scheduler.
 * disk: n1 runs with a shim (built by cc) that makes each fdatasync and fsync take --sync-ms longer while a file exists.

Clients: `tholos bench --cluster`, --connections of them, 90 % reads. Needs Linux and cc. Prints Markdown.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HALF_SECONDS = 0.005
READY_SECONDS = 60
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_a_while(void) {
    const char *flag = getenv("SLOW_SYNC_FLAG"), *us = getenv("SLOW_SYNC_US");
    if (flag && us && access(flag, F_OK) == 0) usleep(atoi(us));
}
int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_a_while();
    return real(file);
}
int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_a_while();
    return real(file);
}
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Cluster:
    def __init__(self, args, directory, leaders, shim):
        self.args, self.flag = args, os.path.join(directory, "slow")
        ports = free_ports(12)
        self.http = [f"127.0.0.1:{port}" for port in ports[0:3]]
        self.cluster = [f"127.0.0.1:{port}" for port in ports[3:6]]
        peers = [f"127.0.0.1:{port}" for port in ports[6:9]]
        seeds = ",".join(f"n{at + 1}={peer}" for at, peer in enumerate(peers))
        self.processes = []
        for at in range(3):
            environment = dict(os.environ)
            if shim and at == 0:
                slow_us = str(int(args.sync_ms * 1000))
                environment.update(LD_PRELOAD=shim, SLOW_SYNC_FLAG=self.flag, SLOW_SYNC_US=slow_us)
            command = [
                args.tholos, "serve", "--name", f"n{at + 1}", "--dir", directory, "--http", self.http[at],
                "--cluster", self.cluster[at], "--gateway", f"127.0.0.1:{ports[9 + at]}", "--peer", peers[at],
                "--seeds", seeds, "--leaders", leaders, "--log-level", "warn",
            ]
            self.processes.append(subprocess.Popen(command, env=environment))
        self.half = threading.Event()
        self.halving = None
        self.wait_until_ready()

    def load(self):
        with urllib.request.urlopen(f"http://{self.http[1]}/v1/load", timeout=10) as answer:
            return json.load(answer)

    def leads(self):
        return [node["leads"] for node in self.load()["nodes"]]

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

    def slow(self, kind):
        if kind == "disk":
            open(self.flag, "w").close()
            return
        self.half.set()
        self.halving = threading.Thread(target=self.halve)
        self.halving.start()

    def halve(self):
        process = self.processes[0]
        while self.half.is_set():
            process.send_signal(signal.SIGSTOP)
            time.sleep(HALF_SECONDS)
            process.send_signal(signal.SIGCONT)
            time.sleep(HALF_SECONDS)

    def bench(self, seconds):
        command = [
            self.args.tholos, "bench", "--at", self.cluster[1], "--cluster", "--connections", str(self.args.connections),
            "--seconds", str(seconds), "--mix", "get=90,set=10", "--json",
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self):
        self.half.clear()
        if self.halving:
            self.halving.join()
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def build_shim(directory):
    source, shim = os.path.join(directory, "shim.c"), os.path.join(directory, "shim.so")
    with open(source, "w") as out:
        out.write(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def figures(process):
    text, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"tholos bench has failed: {text}")
    return json.loads(text)


def measure(args, kind, leaders):
    """Figures of the cluster while all are well, of the first seconds with one slow, and after these."""
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        shim = build_shim(directory) if kind == "disk" else None
        cluster = Cluster(args, directory, leaders, shim)
        try:
            # What is measured of a node is measured under load, so clients go on all the time.
            well = figures(cluster.bench(args.seconds))
            before = cluster.leads()
            cluster.slow(kind)
            turning = cluster.bench(args.settle)
            gone_after, began = None, time.monotonic()
            while turning.poll() is None:
                leads = cluster.leads()
                if gone_after is None and (leads[0] == 0 if kind == "disk" else leads[0] < before[0]):
                    gone_after = time.monotonic() - began
                time.sleep(0.2)
            figures(turning)
            slow = figures(cluster.bench(args.seconds))
            after = cluster.load()
            return {
                "well": well, "slow": slow, "before": before, "after": [node["leads"] for node in after["nodes"]],
                "capacity": after["nodes"][0]["capacity"], "moves": len(after["moves"]), "first_after_s": gone_after,
            }
        finally:
            cluster.stop()


def parse_args():
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="measured each time (20)")
    parser.add_argument("--settle", type=int, default=10, help="left to the cluster when a node has turned slow (10)")
    parser.add_argument("--connections", type=int, default=64, help="clients (64)")
    parser.add_argument("--sync-ms", type=float, default=100.0, help="what a sync takes longer on a slow disk (100)")
    parser.add_argument("--only", default="processor,disk", help="kinds of slowness")
    parser.add_argument("--tholos", default=os.path.join(target, "release", "tholos"), help="the binary")
    parser.add_argument("--dir", default=target, help="where data is kept while this runs")
    args = parser.parse_args()
    args.kinds = [kind for kind in args.only.split(",") if kind]
    if unknown := [kind for kind in args.kinds if kind not in ("processor", "disk")]:
        parser.error(f"--only knows processor and disk, not {', '.join(unknown)}")
    if not os.path.exists(args.tholos):
        parser.error(f"{args.tholos} is missing: cargo build --release, or --tholos")
    return args


def main():
    args = parse_args()
    print("| slow | leaders | ops/s well | ops/s slow | p99 ms well | p99 ms slow | errors | leads before | leads after | first gone after |")
    print("|---|---|--:|--:|--:|--:|--:|---|---|--:|")
    for kind in args.kinds:
        for leaders in ("load", "map"):
            say(f"{kind}, leaders = {leaders}")
            found = measure(args, kind, leaders)
            well, slow = found["well"], found["slow"]
            gone = "-" if found["first_after_s"] is None else f"{found['first_after_s']:.1f} s"
            cells = [
                kind, leaders, f"{well['ops_per_s']:,.0f}", f"{slow['ops_per_s']:,.0f}", f"{well['p99_us'] / 1e3:.1f}",
                f"{slow['p99_us'] / 1e3:.1f}", str(well["errors"] + slow["errors"]), "/".join(map(str, found["before"])),
                "/".join(map(str, found["after"])), gone,
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
