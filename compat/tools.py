"""redis-cli, redis-benchmark, and the exact bytes of replies beside a real Redis."""

import json
import os
import re
import subprocess

from resp import Connection, ReplyError
from servers import Redis

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "table.json")


def cli(*args, input_text=None, timeout=60):
    done = subprocess.run(["redis-cli", *args], input=input_text, capture_output=True, text=True, timeout=timeout)
    return done.stdout + done.stderr


def expect(actual, expected):
    assert actual.strip() == expected, f"{actual.strip()!r}, not {expected!r}"


def contains(actual, *parts):
    for part in parts:
        assert part in actual, f"{part!r} is not in {actual[-600:]!r}"


def exact_replies(report, server):
    """Each reply to the table's commands, byte for byte as Redis gives it, in both protocols."""
    with open(TABLE, encoding="utf-8") as file:
        table = json.load(file)
    oracle = Redis()
    try:
        for protocol in ("2", "3"):
            report.area(f"replies, byte for byte beside redis-server, RESP{protocol}")
            ours = Connection("127.0.0.1", server.gateway)
            theirs = Connection("127.0.0.1", oracle.port)
            ours.call("HELLO", protocol)
            theirs.call("HELLO", protocol)
            for number, case in enumerate(table):
                if not case.get("cluster"):
                    report.check(case["name"], lambda: same_bytes(ours, theirs, "{exact%s:%d}:" % (protocol, number), case))
            ours.close()
            theirs.close()
    finally:
        oracle.stop()


def same_bytes(ours, theirs, prefix, case):
    # All steps run before the first complaint, so that both connections stay in step.
    complaints = []
    for args, expected in case["steps"]:
        args = [prefix + arg[1:] if arg.startswith("$") else arg for arg in args]
        actual, wanted = ours.raw(*args), theirs.raw(*args)
        # Counts and remaining times may differ; their type may not.
        same = actual[:1] == wanted[:1] if isinstance(expected, dict) and "error" not in expected else actual == wanted
        if not same:
            complaints.append(f"{args} gave {actual!r}, Redis {wanted!r}")
    assert not complaints, "; ".join(complaints)


def redis_cli(report, server):
    gateway, cluster = str(server.gateway), str(server.cluster[0])
    report.area("redis-cli")
    for protocol in ("-2", "-3"):
        tag = f"cli{protocol}"
        report.check(f"{protocol} SET", lambda: expect(cli(protocol, "-p", gateway, "SET", tag, "world"), "OK"))
        report.check(f"{protocol} GET", lambda: expect(cli(protocol, "-p", gateway, "GET", tag), "world"))
        report.check(f"{protocol} INCR", lambda: expect(cli(protocol, "-p", gateway, "INCR", tag + "n"), "1"))
        report.check(f"{protocol} an error", lambda: contains(cli(protocol, "-p", gateway, "INCR", tag), "not an integer"))
        keys = [f"{tag}:{i}" for i in range(30)]
        script = "".join(f"SET {key} {key}\nGET {key}\n" for key in keys)
        expected = "\n".join(f"OK\n{key}" for key in keys)
        report.check(f"{protocol} a script on stdin", lambda: expect(cli(protocol, "-p", gateway, input_text=script), expected))
        report.check(f"{protocol} -c follows MOVED", lambda: follows_moved(protocol, cluster, keys))
    report.check("MULTI on stdin", lambda: expect(
        cli("-p", gateway, input_text="MULTI\nSET {m}a 1\nINCR {m}a\nEXEC\n"), "OK\nQUEUED\nQUEUED\nOK\n2"))
    report.check("--pipe", lambda: pipe_mode(gateway))
    report.check("--scan", lambda: contains(cli("-p", gateway, "--scan", "--pattern", "cli-2:1?"), "cli-2:10", "cli-2:19"))
    report.check("INFO", lambda: contains(cli("-p", gateway, "INFO"), "redis_version:", "redis_mode:standalone", "loading:0"))
    report.check("COMMAND DOCS", lambda: contains(cli("-p", gateway, "COMMAND", "DOCS", "get"), "summary", "since"))
    report.check("CLUSTER INFO", lambda: contains(cli("-p", cluster, "CLUSTER", "INFO"), "cluster_state:ok", "cluster_slots_assigned:16384"))
    report.check("CLUSTER KEYSLOT", lambda: expect(cli("-p", cluster, "CLUSTER", "KEYSLOT", "hello"), "866"))
    report.check("--cluster check", lambda: contains(cli("--cluster", "check", f"127.0.0.1:{cluster}"), "[OK] All 16384 slots covered."))
    report.check("--cluster info", lambda: contains(cli("--cluster", "info", f"127.0.0.1:{cluster}"), "keys per slot on average"))
    report.check("MOVED without -c", lambda: moved_without_c(server))
    report.check("CROSSSLOT", lambda: contains(cli("-c", "-p", cluster, "MSET", "a", "1", "b", "2"), "CROSSSLOT"))


def follows_moved(protocol, port, keys):
    for key in keys:
        expect(cli("-c", protocol, "-p", port, "SET", "c" + key, key), "OK")
    # One session over all nodes: redis-cli keeps a connection and is sent from node to node.
    script = "".join(f"GET c{key}\n" for key in keys)
    lines = cli("-c", protocol, "-p", port, input_text=script).splitlines()
    values = [line for line in lines if not line.startswith("->")]
    assert values == keys, f"{values}"


def pipe_mode(port):
    commands = "".join(f"*3\r\n$3\r\nSET\r\n$7\r\npipe{i:03}\r\n$1\r\nx\r\n" for i in range(1000))
    contains(cli("-p", port, "--pipe", input_text=commands), "errors: 0, replies: 1000")


def moved_without_c(server):
    """Each key is led by exactly one node; the others name that one."""
    connections = {port: Connection("127.0.0.1", port) for port in server.cluster}
    for i in range(20):
        replies = {port: connection.call("GET", f"moved:{i}") for port, connection in connections.items()}
        hints = {port: reply for port, reply in replies.items() if isinstance(reply, ReplyError)}
        leaders = set(replies) - set(hints)
        assert len(leaders) == 1, f"{len(leaders)} nodes serve moved:{i}: {replies}"
        for reply in hints.values():
            found = re.fullmatch(r"MOVED (\d+) 127\.0\.0\.1:(\d+)", reply)
            assert found and int(found[2]) in leaders, f"{reply!r}, but {leaders} serves it"


def redis_benchmark(report, server):
    report.area("redis-benchmark")
    gateway, cluster = str(server.gateway), str(server.cluster[0])
    tests = ["-t", "ping,set,get,incr", "-n", "10000", "-r", "10000", "--csv"]
    names = ("PING_INLINE", "PING_MBULK", "SET", "GET", "INCR")
    for label, more in (
        ("gateway", ["-p", gateway]),
        ("gateway, RESP3", ["-p", gateway, "-3"]),
        ("gateway, -P 16", ["-p", gateway, "-P", "16"]),
        ("gateway, 256 B values", ["-p", gateway, "-d", "256"]),
        ("cluster", ["-p", cluster, "--cluster"]),
        ("cluster, -P 16", ["-p", cluster, "--cluster", "-P", "16"]),
    ):
        report.check(label, lambda: benchmark(names, [*more, *tests]))


def benchmark(names, args):
    done = subprocess.run(["redis-benchmark", *args], capture_output=True, text=True, timeout=180)
    text = done.stdout + done.stderr
    assert done.returncode == 0, f"code {done.returncode}: {text[-400:]}"
    rows = {line.split('"')[1]: float(line.split('"')[3]) for line in done.stdout.splitlines()
            if line.startswith('"') and not line.startswith('"test"')}
    for name in names:
        assert rows.get(name, 0) > 0, f"no figure for {name}: {text[-400:]}"
    for word in ("Error", "ERR ", "MOVED", "CLUSTERDOWN", "INDOUBT"):
        assert word not in text, text[-400:]
