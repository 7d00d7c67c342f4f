#!/usr/bin/env python3
"""Nodes come and go while clients write and read: 3 → 4 → 6 → 5 → 3 real processes in zones a, b and c.

    python3 bench/elastic.py [--megabytes 300] [--connections 64] [--quiet 10] [--redis] [--tholos target/release/tholos]

A bench of `--connections` clients (half GET, half SET, 1,000-byte values) runs throughout at the cluster ports, and beside
it `tholos check` with 8 clients at the gateways, whose history is judged in the end. For each step: how long the job
took, the replicas it moved beside the fewest that could have been, the fullest node beside its share, and the latencies
of the bench's clients while it ran beside those of the quiet time before. Everything on one machine.

With `--redis` the first step is made with Redis Cluster 7 as well, in the same run: three masters with a replica each,
`appendfsync everysec`, and a fourth pair, to which `redis-cli --cluster rebalance` moves a quarter of the slots; the bench's
clients follow MOVED and ASK.

With `--kills N` nothing is measured: n4's share moves to it and back, and each time a process is killed with `kill -9` and
started again: who leads the meta group, who gives a replica up, who gets it or who leads the shard, while a move is at one of
its stages, N times each; every job must end by itself.

Needs Linux and Rust, and redis-server with `--redis`. Prints Markdown, and exits with 1 if a bar is missed: nothing acknowledged is lost, the history
is linearizable, no errors but connections that a leaving node closes, moved ≤ 1.05 × the fewest, the fullest node ≤ 1.02 × its share or that rounded up, p99 ≤ 3 × the quiet one.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(HERE, "peers"))

from servers import System, Tholos, free_ports, redis_command, wait_until  # noqa: E402

VALUE_BYTES = 1_000
ZONES = "abc"
# What the steps do: the words of `tholos cluster plan`, and the nodes that are started before.
STEPS = [
    ("3 → 4", ["n4"], ["add", "n4"]),
    ("4 → 6", ["n5", "n6"], ["add", "n5", "n6"]),
    ("6 → 5", [], ["remove", "n6"]),
    ("5 → 3", [], ["remove", "n4", "n5"]),
]
JOB_SECONDS = 1800
PLANS_MAX = 5
JOBS_PER_KILL = 5


def say(text):
    print(text, file=sys.stderr, flush=True)


class Elastic(Tholos):
    """`tholos serve` in zones, and more of them that join."""

    def start(self):
        self.nodes, self.commands, self.running = {}, {}, {}
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("THOLOS_")}
        plans = {f"n{i}": self.plan() for i in (1, 2, 3)}
        seeds = ",".join(f"{name}=127.0.0.1:{plan['peer']}" for name, plan in plans.items())
        ready = [self.serve(name, plan, ["--seeds", seeds]) for name, plan in plans.items()]
        wait_until("tholos", lambda: all(os.path.exists(path) for path in ready), self.dir)

    @staticmethod
    def plan():
        return dict(zip(("gateway", "cluster", "peer", "http"), free_ports(4)))

    def serve(self, name, plan, more):
        zone = ZONES[(int(name[1:]) - 1) % 3]
        command = [self.binary, "serve", "--name", name, "--dir", self.dir, "--zone", zone] + more
        for flag, port in plan.items():
            command += [f"--{flag}", f"127.0.0.1:{port}"]
        ready = os.path.join(self.dir, f"{name}.ready")
        self.nodes[name] = plan
        self.commands[name] = command + ["--ready-file", ready]
        self.running[name] = self.spawn(name, self.commands[name], self.env)
        return ready

    def spawn_piped(self, command):
        """A client whose answer is read in the end; it ends with the servers."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)
        self.processes.append(process)
        return process

    def kill_and_restart(self, name):
        process = self.running[name]
        process.kill()
        process.wait()
        self.processes.remove(process)
        self.running[name] = self.spawn(name, self.commands[name], self.env)

    def join(self, name):
        self.serve(name, self.plan(), ["--join", f"127.0.0.1:{self.nodes['n1']['peer']}"])
        wait_until(name, lambda: any(node["name"] == name and node["state"] == "spare" for node in self.status()["nodes"]), self.dir)

    def ask(self, *words, exits=(0,)):
        """What a command of the binary prints with --json; any node is asked that answers."""
        command = [self.binary, *words, "--json"]
        for address in self.addresses("http", self.nodes):
            command += ["--at", address]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env)
        if done.returncode not in exits:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        lines = done.stdout.splitlines()
        if not lines and done.returncode != 0:
            # A node that was busy, or is gone, has left the command without an answer: whoever looks looks again.
            return {}
        return json.loads(lines[-1])

    def status(self):
        return self.ask("cluster", "status", exits=(0, 1))

    def reports(self, names):
        """What each of these nodes says of itself, if it answers."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.nodes[name]['http']}/v1/node", timeout=1) as answer:
                    found[name] = json.load(answer)[0]
        return found

    def addresses(self, kind, names):
        return [f"127.0.0.1:{self.nodes[name][kind]}" for name in names]


def remove_data(system):
    """Of a cluster that has ended it is much. Not called for one that failed: somebody will want to know why."""
    shutil.rmtree(system.dir, ignore_errors=True)


class RedisCluster(System):
    """Three masters with a replica each, and a fourth pair that joins."""

    name = "redis-cluster"

    def start(self):
        self.ports = [port for _ in range(8) for port in [self.free()]]
        for port in self.ports:
            directory = os.path.join(self.dir, str(port))
            os.makedirs(directory)
            self.spawn(f"r{port}", ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--save", "",
                                    "--appendonly", "yes", "--appendfsync", "everysec", "--cluster-enabled", "yes"])
        wait_until("redis", lambda: all("PONG" in redis_command(port, "PING") for port in self.ports), self.dir)
        self.manage("create", *self.at(self.ports[:6]), "--cluster-replicas", "1", "--cluster-yes")
        ok = lambda: all("cluster_state:ok" in redis_command(port, "CLUSTER", "INFO") for port in self.ports[:6])
        wait_until("redis cluster", ok, self.dir)

    @staticmethod
    def free():
        # The bus uses the port 10,000 above.
        while True:
            port = free_ports(1)[0]
            if port + 10_000 < 32_000:
                return port

    @staticmethod
    def at(ports):
        return [f"127.0.0.1:{port}" for port in ports]

    def manage(self, *words):
        done = subprocess.run(["redis-cli", "--cluster", *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"redis-cli --cluster {words[0]}: {done.stdout[-2000:]}{done.stderr}")

    def addresses(self, *_):
        return self.at(self.ports[:3])

    def grow(self):
        """The fourth pair joins and gets its share: the seconds of the second."""
        first, master, replica = self.at([self.ports[0], *self.ports[6:]])
        self.manage("add-node", master, first)
        known = lambda: redis_command(self.ports[6], "CLUSTER", "NODES").count("connected") >= 7
        wait_until("the new master", known, self.dir)
        identity = redis_command(self.ports[6], "CLUSTER", "MYID").split("\r\n")[1]
        wait_until("the new master", lambda: self.agrees(identity), self.dir)
        self.manage("add-node", replica, first, "--cluster-slave", "--cluster-master-id", identity)
        joined = lambda: all("cluster_state:ok" in redis_command(port, "CLUSTER", "INFO") for port in self.ports)
        wait_until("the new pair", joined, self.dir)
        began = time.monotonic()
        self.manage("rebalance", first, "--cluster-use-empty-masters")
        return time.monotonic() - began

    def agrees(self, identity):
        return all(identity in redis_command(port, "CLUSTER", "NODES") for port in self.ports[:6])


def bench_command(system, seconds, args):
    command = [args.tholos, "bench", "--json", "--cluster", "--connections", str(args.connections), "--mix", "get=1,set=1",
               "--keys", str(args.keys), "--value-bytes", str(VALUE_BYTES), "--seconds", str(seconds), "--warmup", "0"]
    for address in system.addresses("cluster", ["n1", "n2", "n3"]):
        command += ["--at", address]
    return command


def bench(system, seconds, args):
    """Runs the clients for so long at the nodes that are never removed, and returns what they saw."""
    done = subprocess.run(bench_command(system, seconds, args), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"bench: exit {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def while_it_runs(system, args, work):
    """The bench until `work` is done; what it saw from its beginning to its end."""
    clients = subprocess.Popen(bench_command(system, JOB_SECONDS, args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        result = work()
    finally:
        # It says what it has measured until now.
        clients.send_signal(signal.SIGINT)
        said, why = clients.communicate(timeout=120)
    if clients.returncode not in (0, 1):
        raise RuntimeError(f"bench: exit {clients.returncode}: {why}")
    return result, json.loads(said.splitlines()[-1])


def fill(system, args):
    command = [args.tholos, "bench", "--json", "--fill", "--cluster", "--at", *system.addresses("cluster", ["n1"])[:1], "--keys",
               str(args.keys), "--value-bytes", str(VALUE_BYTES), "--seconds", "0.1", "--warmup", "0"]
    subprocess.run(command, check=True, capture_output=True)


def redis_grows(args):
    """The rows of Redis Cluster: its quiet time, and 3 → 4 masters."""
    with RedisCluster(args.dir) as system:
        say("fills Redis Cluster")
        fill(system, args)
        quiet = bench(system, args.quiet, args)
        seconds, seen = while_it_runs(system, args, system.grow)
    remove_data(system)
    return quiet, seconds, seen


def carry_out(system, words, begun=lambda _plan: None):
    """Plans, applies, calls `begun` with the plan and waits for the job's end: the plan and the seconds."""
    for _ in range(PLANS_MAX):
        # A plan is refused when the map has moved since: the meta group's own voters follow a job that has just ended.
        plan = system.ask("cluster", "plan", *words)
        began = time.monotonic()
        answer = system.ask("cluster", "apply", plan["id"], "--detach", exits=(0, 1))
        if "job" in answer:
            break
    else:
        raise RuntimeError(f"{' '.join(words)}: planned {PLANS_MAX} times, and refused each time: {plan['checks']}")
    job = answer["job"]
    begun(plan)
    while True:
        # A node that was just killed may be the one that the meta group is asked by.
        answer = system.ask("job", "list", exits=(0, 1, 3, 5))
        jobs = {row["id"]: row for row in answer.get("jobs", [])}
        state = jobs[job]["state"] if job in jobs else "unknown"
        if state == "done":
            return plan, time.monotonic() - began
        if state == "cancelled" or time.monotonic() - began > JOB_SECONDS:
            raise RuntimeError(f"job {job} is {state}: {jobs[job]}")
        time.sleep(0.1)


# What a move waits for at each stage, as `tholos job list --json` has it, in the order in which a move meets them.
STAGES = {"begins": ("target-begins", "snapshot"), "sending": ("sending", "throttle"), "entries": ("entries",),
          "switch": ("decision",), "told": ("told",)}
# Who is killed: who leads the meta group, who gives the replica up, who gets it, and who leads the shard and sends it.
ROLES = ("meta leader", "source", "target", "leader")


class Striker(threading.Thread):
    """Looks at a job until a move is at a stage, and kills who plays a role in it, once."""

    def __init__(self, system, role, stage, moves):
        super().__init__()
        self.system, self.role, self.waits = system, role, STAGES[stage]
        self.moves = {move["shard"]: move for move in moves}
        self.over = threading.Event()
        self.killed = None

    def run(self):
        while self.killed is None and not self.over.is_set():
            reports = self.system.reports(self.system.nodes)
            leads = [name for name, report in reports.items() if report["job"]]
            # Stages are short: who leads the meta group is asked again and again, as long as it does.
            while leads and reports[leads[0]]["job"] and self.killed is None and not self.over.is_set():
                for stands in reports[leads[0]]["job"]["moves"]:
                    if stands["wait"] in self.waits and stands["shard"] in self.moves and self.killed is None:
                        self.killed = self.victim(reports, leads[0], stands["shard"])
                if self.killed is None:
                    again = self.system.reports(leads[:1])
                    leads, reports = list(again), reports | again
            if self.killed:
                self.system.kill_and_restart(self.killed)

    def victim(self, reports, meta_leader, shard):
        if self.role == "meta leader":
            return meta_leader
        if self.role == "leader":
            leads = [name for name, report in reports.items() for row in report["shards"] if row["shard"] == shard and row["leads"]]
            return leads[0] if leads else None
        return self.moves[shard]["from" if self.role == "source" else "to"]


def strike(args):
    """Kills each role at each stage of a move, so many times; exits with 1 if a job does not end by itself or anything is
    lost, or if a stage was not met so often."""
    with Elastic(args.dir, args.tholos) as system:
        fill(system, args)
        system.join("n4")
        check = [system.binary, "check", "--json", "--connections", "16", "--think-ms", "5", "--seconds", "7200", "--at",
                 ",".join(system.addresses("gateway", system.nodes))]
        checker = system.spawn_piped(check)
        killed = {(role, stage): 0 for role in ROLES for stage in STAGES}
        tried, slowest, turn, chance = dict(killed), 0.0, 0, random.Random(args.kills)
        # What keeps the shards at work, so that a move has something to catch up with.
        system.spawn_piped(bench_command(system, 7200, args))
        with contextlib.suppress(KeyboardInterrupt):
            while min(killed.values()) < args.kills and turn < JOBS_PER_KILL * args.kills * len(killed):
                # Some stages are short: others are not held up by one that is not met.
                # By chance, or each would be met on the way to n4 only, or on the way back.
                open_cells = [cell for cell in killed if killed[cell] < args.kills]
                least = min(tried[cell] for cell in open_cells)
                role, stage = chance.choice([cell for cell in open_cells if tried[cell] == least])
                tried[role, stage] += 1
                words, turn = ["add", "n4"] if turn % 2 == 0 else ["drain", "n4"], turn + 1
                # The node that was killed last may not be up again.
                healthy = lambda: system.status()["verdict"] == "healthy"
                wait_until("every node", healthy, system.dir)
                striker = None

                def begun(plan):
                    nonlocal striker
                    striker = Striker(system, role, stage, plan["moves"])
                    striker.start()

                try:
                    _, seconds = carry_out(system, words, begun)
                finally:
                    if striker is not None:
                        striker.over.set()
                        striker.join()
                if striker.killed:
                    killed[role, stage] += 1
                    slowest = max(slowest, seconds)
                say(f"{turn}: {' '.join(words)}, {role} at {stage}: {striker.killed or 'not met'}, done after {seconds:.1f} s")
        checker.send_signal(2)
        verdict = json.loads(checker.communicate(timeout=120)[0].splitlines()[-1])
    remove_data(system)
    print("| killed | " + " | ".join(STAGES) + " |\n|---|" + "--:|" * len(STAGES))
    for role in ROLES:
        print(f"| {role} | " + " | ".join(str(killed[role, stage]) for stage in STAGES) + " |")
    print(f"\n{turn} jobs: each ended by itself, the slowest with a kill after {slowest:.1f} s. "
          f"`tholos check`: {verdict['verdict']}, {verdict['operations']} operations, {verdict['lost']} lost.")
    held = verdict["verdict"] == "linearizable" and verdict["lost"] == 0 and min(killed.values()) >= args.kills
    return 0 if held else 1


def fullest(system):
    """Replicas of the fullest node, and its share of all: of a zone its nodes', no shard having two replicas in a zone."""
    nodes = [node for node in system.status()["nodes"] if node["replicas"] > 0]
    worst = (0.0, 0, 0.0)
    for node in nodes:
        zone = [other for other in nodes if other["zone"] == node["zone"]]
        share = sum(other["replicas"] for other in zone) / len(zone)
        worst = max(worst, (node["replicas"] / share, node["replicas"], share))
    return worst[1], worst[2]


def parse_args():
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="of values, in 10^6 bytes (300)")
    parser.add_argument("--connections", type=int, default=64, help="clients of the bench (64)")
    parser.add_argument("--quiet", type=float, default=10, help="seconds of the quiet time (10)")
    parser.add_argument("--kills", type=int, default=0, help="only this: each role is killed at each stage, so many times (0)")
    parser.add_argument("--redis", action="store_true", help="the first step with Redis Cluster, too")
    parser.add_argument("--tholos", default=os.path.join(target, "release", "tholos"), help="the binary")
    parser.add_argument("--dir", default=target, help="where data is kept while this runs")
    args = parser.parse_args()
    args.keys = args.megabytes * 1_000_000 // VALUE_BYTES
    args.tholos, args.dir = os.path.abspath(args.tholos), os.path.abspath(args.dir)
    return args


def main():
    args = parse_args()
    if args.kills:
        return strike(args)
    rows, misses = [], []

    def hold(true, text):
        if not true:
            misses.append(text)

    with Elastic(args.dir, args.tholos) as system:
        say(f"fills {args.keys} keys")
        fill(system, args)
        check = [system.binary, "check", "--json", "--connections", "8", "--think-ms", "5", "--seconds", "7200", "--at",
                 ",".join(system.addresses("gateway", ["n1", "n2", "n3"]))]
        checker = system.spawn_piped(check)
        try:
            quiet = bench(system, args.quiet, args)
            say(f"quiet: {quiet['ops_per_s']:.0f} ops/s, p99 {quiet['p99_us'] / 1000:.1f} ms")
            for name, joins, words in STEPS:
                for node in joins:
                    system.join(node)
                (plan, seconds), seen = while_it_runs(system, args, lambda: carry_out(system, words))
                moved, least = plan["moves_total"], plan["least_possible"]
                most, share = fullest(system)
                p99, worst, rate = seen["p99_us"], seen["max_us"], seen["ops_per_s"]
                errors, kinds = seen["errors"], seen["errors_by_kind"]
                rows.append((name, seconds, moved, least, plan["bytes"] / 1e6, most, share, rate, p99 / 1000, worst / 1000, errors))
                say(f"{name}: {seconds:.1f} s, {moved} of {least} replicas, p99 {p99 / 1000:.1f} ms, {errors} errors {kinds or ''}")
                hold(moved <= 1.05 * least, f"{name}: moved {moved}, the fewest are {least}")
                hold(most <= max(1.02 * share, -(-share // 1)), f"{name}: the fullest node has {most} of {share:.1f}")
                hold(p99 <= 3 * quiet["p99_us"], f"{name}: p99 {p99 / 1000:.1f} ms, quiet {quiet['p99_us'] / 1000:.1f} ms")
                # Who retries once loses nothing by a node that has left and closes its connections.
                hold(all("connection" in kind for kind in kinds), f"{name}: {kinds}")
        finally:
            checker.send_signal(2)
            said, why = checker.communicate(timeout=120)
        verdict = json.loads(said.splitlines()[-1])

    remove_data(system)
    redis = redis_grows(args) if args.redis else None

    hold(verdict["verdict"] == "linearizable", f"the history is {verdict['verdict']}: {why}")
    hold(verdict["lost"] == 0, f"{verdict['lost']} acknowledged writes lost")
    print(f"{args.megabytes} MB in {args.keys} values, {args.connections} connections, half GET, half SET. "
          f"Quiet: {quiet['ops_per_s']:.0f} ops/s, p50 {quiet['p50_us'] / 1000:.2f} ms, p99 {quiet['p99_us'] / 1000:.1f} ms, "
          f"max {quiet['max_us'] / 1000:.0f} ms.\n")
    print("| step | s | replicas moved | the fewest | MB | fullest node, its share | ops/s meanwhile | p99 ms | max ms | errors |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, seconds, moved, least, mb, most, share, rate, p99, worst, errors in rows:
        print(f"| {name} | {seconds:.1f} | {moved} | {least} | {mb:.0f} | {most}, {share:.1f} | {rate:,.0f} | {p99:.1f} | {worst:.0f} "
              f"| {errors} |")
    print(f"\n`tholos check` beside it: {verdict['verdict']}, {verdict['operations']} operations, {verdict['lost']} lost.")
    if redis:
        beside, seconds, seen = redis
        print(f"\nRedis Cluster 7, 3 → 4 masters, one replica each, fsync every second: quiet {beside['ops_per_s']:.0f} ops/s, p99 "
              f"{beside['p99_us'] / 1000:.1f} ms; {seconds:.1f} s for the rebalance, meanwhile "
              f"{seen['ops_per_s']:,.0f} ops/s, p99 {seen['p99_us'] / 1000:.1f} ms, max {seen['max_us'] / 1000:.0f} ms, "
              f"{seen['errors']} errors.")
    for miss in misses:
        print(f"\nMISSED: {miss}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
