#!/usr/bin/env python3
"""Stock Redis clients, unmodified, against Tholos on both of its client ports.

`run.py --tholos target/release/tholos` is what `cargo xtask compat` calls. `--against-redis` runs the same checks
against plain Redis, which shows whether the checks themselves are true. `--only WORD` runs the areas whose
name holds the word. Client libraries are pinned in clients/ and installed below target/compat on first use.

The last line is `N passed, N failed`; the exit code is 0 only if nothing failed.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import time

import connection_commands
import hostile
import random_commands
import tools
from report import Report
from servers import RedisPair, Tholos

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "target"), "compat")
CLIENTS = os.path.join(HERE, "clients")
SUITE_SECONDS = 120


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--tholos", metavar="BINARY")
    target.add_argument("--against-redis", action="store_true")
    parser.add_argument("--only", default="", help="part of an area's name")
    options = parser.parse_args()

    os.makedirs(CACHE, exist_ok=True)
    report = Report()
    report.area("installing the clients")
    clients = install(report)
    try:
        report.area("start")
        log = os.path.join(CACHE, "server.log")
        server = RedisPair() if options.against_redis else Tholos(options.tholos, log)
        report.result("the server is ready")
    except Exception as error:
        report.result("the server is ready", error)
        return report.finish()
    try:
        run_areas(report, server, clients, options.only)
        report.area("end")
        report.result("the server still runs", None if server.alive() else "it has ended")
    finally:
        server.stop()
    return report.finish()


def run_areas(report, server, clients, only):
    areas = [
        ("exact replies", lambda: tools.exact_replies(report, server)),
        ("connection commands", lambda: connection_commands.run(report, server)),
        ("random commands", lambda: random_commands.run(report, server)),
        ("redis-cli", lambda: tools.redis_cli(report, server)),
        ("client libraries", lambda: suites(report, server, clients)),
        ("redis-benchmark", lambda: tools.redis_benchmark(report, server)),
        ("hostile input", lambda: hostile.run(report, server)),
        ("a killed leader", lambda: killed_leader(report, server, clients)),
    ]
    for name, run in areas:
        if only not in name:
            continue
        try:
            run()
        except Exception as error:  # one broken area must not hide the others
            report.result(f"{name} ran to its end", f"{type(error).__name__}: {error}")


def install(report):
    """Client name → command. A client that cannot be installed is a failure, not a skip."""
    clients = {}
    # At the same time: some wait for the network, and one compiles. Those of Node share a folder.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pythons = {f"redis-py {version}": pool.submit(python_client, version) for version in ("5", "8")}
        node, rust = pool.submit(node_modules), pool.submit(rust_client)
        for name, client in {**pythons, "redis-rs": rust}.items():
            report.check(name, lambda: clients.__setitem__(name, client.result()))
        for name in ("node_redis", "ioredis"):
            report.check(name, lambda: clients.__setitem__(name, ["node", os.path.join(node.result(), f"{name}.mjs")]))
    return clients


def python_client(version):
    environment = os.path.join(CACHE, f"redis-py-{version}")
    wanted = os.path.join(CLIENTS, "python", f"requirements-{version}.txt")
    stamp = os.path.join(environment, "requirements.txt")
    if not same_content(wanted, stamp):
        shutil.rmtree(environment, ignore_errors=True)
        quietly([sys.executable, "-m", "venv", environment])
        pip = [os.path.join(environment, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        quietly([*pip, "--require-hashes", "-r", wanted])
        shutil.copy(wanted, stamp)
    return [os.path.join(environment, "bin", "python"), os.path.join(CLIENTS, "python", "check.py")]


def node_modules():
    folder = os.path.join(CLIENTS, "node")
    stamp = os.path.join(folder, "node_modules", "lock-as-installed.json")
    if not same_content(os.path.join(folder, "package-lock.json"), stamp):
        quietly(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder)
        shutil.copy(os.path.join(folder, "package-lock.json"), stamp)
    return folder


def rust_client():
    folder = os.path.join(CLIENTS, "rust")
    target = os.path.join(CACHE, "rust")
    quietly(["cargo", "build", "--quiet", "--locked"], cwd=folder, env={**os.environ, "CARGO_TARGET_DIR": target})
    return [os.path.join(target, "debug", "compat-rust")]


def same_content(one, other):
    try:
        with open(one, "rb") as a, open(other, "rb") as b:
            return a.read() == b.read()
    except FileNotFoundError:
        return False


def quietly(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-800:]}")


def arguments(what, mode, port, protocol, name):
    table = os.path.join(HERE, "table.json")
    return [what, "--mode", mode, "--port", str(port), "--proto", protocol, "--table", table, "--name", name]


def suites(report, server, clients):
    for client, command in clients.items():
        for mode, port in (("gateway", server.gateway), ("cluster", server.cluster[0])):
            for protocol in ("2", "3"):
                report.area(f"{client}, {mode}, RESP{protocol}")
                name = f"{client.replace(' ', '')}-{mode}-{protocol}"
                done = run_suite([*command, *arguments("suite", mode, port, protocol, name)])
                read_results(report, *done)


def run_suite(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SUITE_SECONDS)
        return done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(), f"no end after {SUITE_SECONDS} s", 1


def read_results(report, stdout, stderr, code):
    for line in stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ok":
            report.result(rest)
        elif word == "FAIL":
            name, _, why = rest.partition(": ")
            report.result(name, why)
        elif word == "note":
            print(f"         {rest}")
    if code != 0:
        report.result("runs to its end", f"code {code}: {stderr[-600:]}")


def killed_leader(report, server, clients):
    """All clients write at once, on both ports, while one node is killed and comes back."""
    report.area("a killed leader")
    running = []
    for client, command in clients.items():
        for mode, port in (("gateway", server.gateway), ("cluster", server.cluster[0])):
            name = f"fo-{client.replace(' ', '')}-{mode}"
            # redis-py 5 does not follow MOVED in RESP3, and leaders may move though nobody was killed.
            proto = "2" if (client, mode) == ("redis-py 5", "cluster") else "3"
            process = subprocess.Popen(
                [*command, *arguments("failover", mode, port, proto, name)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            running.append((f"{client}, {mode}", process))
    time.sleep(4)
    report.check("kill", server.kill_one)
    time.sleep(5)
    report.check("restart", server.restart_one)
    time.sleep(3)
    for label, process in running:
        try:
            stdout, stderr = process.communicate("stop\n", timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            stderr += " no end after 60 s"
        report.area(f"a killed leader: {label}")
        read_results(report, stdout, stderr, process.returncode)


if __name__ == "__main__":
    sys.exit(main())
