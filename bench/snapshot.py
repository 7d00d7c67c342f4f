#!/usr/bin/env python3
"""What clients notice of a snapshot: a shard of 1 GiB, 64 connections that write to it, with and without one under way.

    python3 bench/snapshot.py [--nodes 3] [--keys 1000000] [--value-bytes 1024] [--windows 3] [--tholos target/release/tholos]

Starts `tholos dev` with one shard, fills it, then measures `tholos bench` in windows of a few seconds. The log asks for a
snapshot by itself whenever it has grown by 256 MiB. A window counts as *during* if a snapshot was being written all of the
time, as *quiet* if none was at any time; the rest are left out. With three nodes all three write theirs at about the same
time, on one disk and in one process, which is three times what a machine of its own would see.

Prints, as Markdown, operations and p99.9 of the windows (best, median), the ratio of the best ones, the longest piece of
work on a snapshot that the worker did in one go (`tholos_node_snapshot_slice_longest_nanoseconds`), and resident memory.
Linux only. Compare ratios; and only those of a machine that has nothing else to do.
"""

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WAIT_SECONDS = 120
SAMPLE_SECONDS = 0.02


class Watch:
    """Samples whether snapshots are being written, and how much memory the process has."""

    def __init__(self, data, pid):
        self.data, self.pid = data, pid
        self.samples = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.wait(SAMPLE_SECONDS):
            writing = bool(glob.glob(os.path.join(self.data, "*", "snap", "*.snap.tmp")))
            self.samples.append((time.monotonic(), writing, resident_mib(self.pid)))

    def between(self, begin, end):
        return [sample for sample in self.samples if begin <= sample[0] <= end]


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def parse_args():
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3, help="nodes, all in one process (3)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys (1000000)")
    parser.add_argument("--value-bytes", type=int, default=1024, help="bytes of each value (1024)")
    parser.add_argument("--connections", type=int, default=64, help="clients at the same time (64)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window (2)")
    parser.add_argument("--windows", type=int, default=3, help="windows of each kind wanted (3)")
    parser.add_argument("--tries", type=int, default=60, help="windows at most (60)")
    parser.add_argument("--tholos", default=os.path.join(target, "release", "tholos"), help="the binary")
    parser.add_argument("--dir", default=target, help="where data is kept while this runs")
    return parser.parse_args()


def start(args, data):
    ready = os.path.join(data, "ready.json")
    command = [args.tholos, "dev", "--nodes", str(args.nodes), "--replicas", str(args.nodes), "--shards", "1"]
    command += ["--dir", os.path.join(data, "nodes"), "--ready-file", ready]
    command += ["--port", "0", "--cluster-port", "0", "--peer-port", "0", "--http-port", "0"]
    log = open(os.path.join(data, "log"), "wb")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + WAIT_SECONDS
    while not os.path.exists(ready):
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"it did not start: see {log.name}")
        time.sleep(0.1)
    with open(ready) as file:
        return process, json.load(file)


def bench(args, addresses, *more):
    command = [args.tholos, "bench", "--cluster", "--at", addresses["nodes"][0]["cluster"], "--json"]
    command += ["--keys", str(args.keys), "--value-bytes", str(args.value_bytes)]
    return json.loads(subprocess.run(command + [str(word) for word in more], check=True, capture_output=True).stdout)


def metric(addresses, name):
    with urllib.request.urlopen(f"http://{addresses['http']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return max(int(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def main():
    args = parse_args()
    data = tempfile.mkdtemp(prefix="snapshot-", dir=args.dir)
    process, addresses = start(args, data)
    try:
        measure(args, data, process, addresses)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(data)


def measure(args, data, process, addresses):
    bench(args, addresses, "--fill", "--pipeline", 16, "--connections", 64, "--seconds", 1)
    watch = Watch(os.path.join(data, "nodes"), process.pid)
    windows = {"quiet": [], "during": []}
    resident = {"quiet": 0.0, "during": 0.0}
    for _ in range(args.tries):
        begin = time.monotonic()
        result = bench(args, addresses, "--connections", args.connections, "--seconds", args.seconds, "--warmup", 0)
        samples = watch.between(begin, time.monotonic())
        writing = [sample[1] for sample in samples]
        kind = "during" if all(writing) else None if any(writing) else "quiet"
        for sample in samples:
            state = "during" if sample[1] else "quiet"
            resident[state] = max(resident[state], sample[2])
        if kind:
            windows[kind].append(result)
        if all(len(of_kind) >= args.windows for of_kind in windows.values()):
            break
    watch.stop.set()
    print(f"{args.nodes} nodes, one shard of {args.keys} keys of {args.value_bytes} bytes, {args.connections} connections,")
    print(f"windows of {args.seconds} s; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| | windows | operations/s, median | p99.9 ms, best | p99.9 ms, median | longest ms | resident MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    best = {}
    for kind, results in windows.items():
        if not results:
            print(f"| {kind} | 0 | | | | | {resident[kind]:.0f} |")
            continue
        tails = [result["p999_us"] / 1000 for result in results]
        best[kind] = min(tails)
        rate = statistics.median(result["ops_per_s"] for result in results)
        longest = max(result["max_us"] / 1000 for result in results)
        print(
            f"| {kind} | {len(results)} | {rate:.0f} | {min(tails):.2f} | {statistics.median(tails):.2f} "
            f"| {longest:.1f} | {resident[kind]:.0f} |"
        )
    slice_ms = metric(addresses, "tholos_node_snapshot_slice_longest_nanoseconds") / 1e6
    saved = metric(addresses, "tholos_wal_snapshots_saved_total")
    print(f"\n{saved} snapshots of a node; longest slice {slice_ms:.3f} ms", end="")
    if len(best) == 2:
        memory = resident["during"] / resident["quiet"]
        print(f"; p99.9 {best['during'] / best['quiet']:.2f} x, memory {memory:.2f} x the quiet one", end="")
    print(".")


if __name__ == "__main__":
    main()
