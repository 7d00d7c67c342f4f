"""redis-py against one server: the shared table, typed calls, pipelines, transactions, reconnection.

Works with redis-py 5 and 8. One line a check on stdout: `ok NAME` or `FAIL NAME: why`.
"""

import argparse
import json
import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.cluster import RedisCluster

ARGS = argparse.ArgumentParser()
ARGS.add_argument("what", choices=["suite", "failover"])
ARGS.add_argument("--mode", choices=["gateway", "cluster"], required=True)
ARGS.add_argument("--host", default="127.0.0.1")
ARGS.add_argument("--port", type=int, required=True)
ARGS.add_argument("--proto", type=int, choices=[2, 3], default=2)
ARGS.add_argument("--table", required=True)
ARGS.add_argument("--name", required=True, help="prefix of all keys; unique to this run")
ARGS = ARGS.parse_args()


def connect(**more):
    options = dict(host=ARGS.host, port=ARGS.port, protocol=ARGS.proto, socket_timeout=10, **more)
    if ARGS.mode == "cluster":
        return RedisCluster(**options)
    return redis.Redis(**options)


def raw_client():
    """A client whose replies are not translated by command."""
    client = connect(decode_responses=True)
    if ARGS.mode == "cluster":
        client.cluster_response_callbacks.clear()
        for node in client.get_nodes():
            client.get_redis_connection(node).response_callbacks.clear()
    else:
        client.response_callbacks.clear()
    return client


def matches(expected, actual):
    if isinstance(expected, dict):
        if "error" in expected:
            return isinstance(actual, Exception) and str(actual).startswith(strip_code(expected["error"]))
        if "int" in expected:
            low, high = expected["int"]
            return isinstance(actual, int) and low <= actual <= high
        return True
    return not isinstance(actual, Exception) and expected == actual


def strip_code(text):
    """redis-py drops the `ERR ` of an error."""
    return text[4:] if text.startswith("ERR ") else text


def table_checks():
    client = raw_client()
    for number, case in enumerate(json.load(open(ARGS.table, encoding="utf-8"))):
        if ARGS.mode == "cluster" and case.get("keyless"):
            continue
        if ARGS.mode == "gateway" and case.get("cluster"):
            continue
        check(f"table: {case['name']}", lambda: run_case(client, number, case))
    client.close()


def run_case(client, number, case):
    prefix = "{%s:%d}:" % (ARGS.name, number)
    for args, expected in case["steps"]:
        args = [prefix + arg[1:] if arg.startswith("$") else arg for arg in args]
        try:
            actual = client.execute_command(*args)
        except redis.ResponseError as error:
            actual = error
        assert matches(expected, actual), f"{args} gave {actual!r}, not {expected!r}"


def check(name, run):
    try:
        run()
    except Exception as error:  # any failure of a check is its result
        print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    else:
        print(f"ok {name}", flush=True)


def same(actual, expected):
    # The cluster pipeline of redis-py 8 leaves the status as it came.
    actual = [True if reply == "OK" else reply for reply in actual] if isinstance(actual, list) else actual
    assert actual == expected, f"{actual!r}, not {expected!r}"


def key(name):
    return "{%s}:%s" % (ARGS.name, name)


def typed_calls():
    client = connect(decode_responses=True)
    assert client.ping() is True
    assert client.set(key("s"), "v", ex=100, get=True) is None
    assert client.get(key("s")) == "v"
    assert 98 <= client.ttl(key("s")) <= 100
    assert client.set(key("s"), "w", nx=True) is None
    assert client.mset({key("m1"): "1", key("m2"): "2"}) is True
    assert client.mget(key("m1"), key("none"), key("m2")) == ["1", None, "2"]
    assert client.incrbyfloat(key("f"), 2.5) == 2.5
    assert client.expire(key("m1"), 10) is True and client.persist(key("m1")) is True
    assert client.getex(key("s"), px=5000) == "v" and client.getdel(key("s")) == "v"
    assert client.exists(key("s")) == 0 and client.type(key("m1")) == "string"
    assert client.delete(key("m1"), key("m2"), key("f")) == 3
    client.close()


def looks():
    """What the library makes objects of: it expects each field that Redis has."""
    client = connect(decode_responses=True)
    assert client.client_setname("looks") is True
    own = client.client_info()
    assert own["name"] == "looks" and own["omem"] == 0, own
    assert "looks" in [other["name"] for other in client.client_list()]
    assert client.set(key("looks"), "x", ex=1000) is True
    # This node's replica has it a moment after the leader.
    deadline = time.monotonic() + 5
    keyspace = {"expires": 0}
    while keyspace["expires"] == 0 and time.monotonic() < deadline:
        keyspace = client.info("keyspace").get("db0", keyspace)
    assert keyspace["keys"] >= keyspace["expires"] >= 1, keyspace
    assert client.object("encoding", key("looks")) == "embstr"
    assert client.command_getkeys("SET", "a", "b") == ["a"]
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.role()[0] == "master" and client.time()[0] > 0 and client.dbsize() >= 1
    assert client.delete(key("looks")) == 1
    client.close()


def large_value():
    client = connect()
    value = bytes(range(256)) * 4096
    client.set(key("large"), value)
    assert client.get(key("large")) == value
    assert client.getrange(key("large"), 256, 511) == bytes(range(256))
    client.delete(key("large"))
    client.close()


def pipeline_in_order():
    client = connect(decode_responses=True)
    pipe = client.pipeline(transaction=False)
    names = [f"{ARGS.name}:p{i}" for i in range(1000)]
    for i, name in enumerate(names):
        pipe.set(name, i)
        pipe.get(name)
    replies = pipe.execute()
    assert [reply for reply in replies[1::2]] == [str(i) for i in range(1000)]
    assert all(replies[0::2])
    client.close()


def transaction():
    client = connect(decode_responses=True)
    if ARGS.mode == "cluster" and redis.__version__.startswith("5."):
        return transaction_by_hand(client)
    pipe = client.pipeline(transaction=True)
    pipe.set(key("t"), "1").incrby(key("t"), 41).get(key("t"))
    same(pipe.execute(), [True, 42, "42"])
    # Another client writes between WATCH and EXEC: the transaction must not run.
    other = connect(decode_responses=True)
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(key("t"))
        same(pipe.get(key("t")), "42")
        other.set(key("t"), "changed")
        pipe.multi()
        pipe.set(key("t"), "lost")
        try:
            pipe.execute()
            raise AssertionError("the watched key changed and EXEC ran")
        except redis.WatchError:
            pass
    same(client.get(key("t")), "changed")
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(key("t"))
        pipe.multi()
        pipe.set(key("t"), "kept")
        same(pipe.execute(), [True])
    same(client.get(key("t")), "kept")


def transaction_by_hand(client):
    """redis-py 5 has no transactions in cluster mode, so they are spoken on the connection of the key's node."""
    node = client.get_node_from_key(key("t"))
    direct = redis.Redis(host=node.host, port=node.port, protocol=ARGS.proto, decode_responses=True)
    pipe = direct.pipeline(transaction=True)
    pipe.set(key("t"), "1").incrby(key("t"), 41).get(key("t"))
    same(pipe.execute(), [True, 42, "42"])
    with direct.pipeline(transaction=True) as pipe:
        pipe.watch(key("t"))
        client.set(key("t"), "changed")
        pipe.multi()
        pipe.set(key("t"), "lost")
        try:
            pipe.execute()
            raise AssertionError("the watched key changed and EXEC ran")
        except redis.WatchError:
            pass
    same(client.get(key("t")), "changed")


def scan_all():
    client = connect(decode_responses=True)
    names = {f"{ARGS.name}:scan:{i}" for i in range(300)}
    for name in names:
        client.set(name, "x")
    found = set(client.scan_iter(match=f"{ARGS.name}:scan:*", count=50))
    assert found == names, f"{len(found)} of {len(names)} keys"
    client.close()


def fan_out():
    """Keys in many slots: the gateway takes them in one command, a cluster client splits or refuses."""
    client = connect(decode_responses=True)
    names = [f"{ARGS.name}:fan:{i}" for i in range(50)]
    if ARGS.mode == "gateway":
        for name in names:
            client.set(name, name)
        assert client.mget(names) == names
        assert client.exists(*names) == 50 and client.touch(*names) == 50
        assert client.delete(*names) == 50
        return
    assert client.mset_nonatomic({name: name for name in names})
    assert client.mget_nonatomic(names) == names
    assert client.delete(*names) == 50


def is_moved(reply):
    # redis-py 5 makes no such exception of it in RESP3.
    return isinstance(reply, redis.exceptions.MovedError) or str(reply).startswith("MOVED ")


def replica_reads():
    """READONLY: every node that has a replica answers, and nobody ever sees less than was acknowledged."""
    writer = connect(decode_responses=True)
    # A node that leads anything is shown as a master only, so the library would read at leaders.
    nodes = [
        redis.Redis(node.host, node.port, protocol=ARGS.proto, socket_timeout=10, decode_responses=True)
        for node in writer.get_nodes()
    ]
    assert len(nodes) == 3, nodes
    names = [f"{ARGS.name}:replica:{i}" for i in range(40)]
    for turn in range(5):
        for name in names:
            assert writer.set(name, f"{name} {turn}")
        for node in nodes:
            # One connection, so that READONLY holds for what follows.
            with node.pipeline(transaction=False) as pipe:
                pipe.execute_command("READWRITE")
                for name in names:
                    pipe.get(name)
                replies = pipe.execute(raise_on_error=False)
                assert any(is_moved(reply) for reply in replies), "it leads some of them only"
                pipe.execute_command("READONLY")
                for name in names:
                    pipe.get(name)
                same(pipe.execute(raise_on_error=False)[1:], [f"{name} {turn}" for name in names])
    assert writer.delete(*names) == 40
    for node in nodes:
        node.close()


def parallel_clients():
    errors = []

    def work():
        try:
            client = connect(decode_responses=True)
            for _ in range(20):
                client.incr(key("parallel"))
            client.close()
        except Exception as error:  # reported below, in the thread that counts
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert connect(decode_responses=True).get(key("parallel")) == "400"


def reconnects():
    # The killed connection may be found closed only when it is written to.
    again = {"retry": Retry(NoBackoff(), 1), "retry_on_error": [redis.ConnectionError]}
    client = redis.Redis(host=ARGS.host, port=ARGS.port, protocol=ARGS.proto, **again)
    own = client.client_id()
    other = redis.Redis(host=ARGS.host, port=ARGS.port, protocol=ARGS.proto)
    assert own != other.client_id()
    assert other.client_kill_filter(_id=own) == 1
    assert client.client_id() not in (own, None)


def failover():
    """Writes until stdin says stop, retrying as a careful program would, then reads all that was acknowledged."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    acknowledged, errors, longest, deadline, sent = {}, 0, 0.0, None, 0
    client = connect(decode_responses=True)
    last = time.monotonic()
    while not stop.is_set() or (deadline and time.monotonic() < deadline):
        if stop.is_set() and deadline is None:
            deadline = time.monotonic() + 1
        # Keys in all slots, each written once: so a write in doubt can be sent again.
        name = f"{ARGS.name}:f:{sent}"
        try:
            client.set(name, str(sent))
        except redis.RedisError:
            errors += 1
            time.sleep(0.05)
            continue
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        acknowledged[name] = str(sent)
        sent += 1
        if sent == 10:
            print("ready", flush=True)
        time.sleep(0.01)

    def nothing_lost():
        lost = [name for name, value in acknowledged.items() if client.get(name) != value]
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes lost, first {lost[0]}"

    def goes_on():
        assert len(acknowledged) >= 50, f"only {len(acknowledged)} writes"
        assert time.monotonic() - last < 3, "no write in the end"

    check("writes go on after a leader is killed", goes_on)
    check("nothing acknowledged is lost", nothing_lost)
    print(f"note {len(acknowledged)} writes, {errors} errors, longest gap {longest:.2f} s", flush=True)


if ARGS.what == "failover":
    failover()
else:
    table_checks()
    check("typed calls", typed_calls)
    check("a value of 1 MiB", large_value)
    check("1000 commands in a pipeline, in order", pipeline_in_order)
    check("MULTI and WATCH", transaction)
    check("SCAN finds all keys", scan_all)
    check("keys in many slots", fan_out)
    check("20 clients at once", parallel_clients)
    if ARGS.mode == "cluster":
        check("reads from replicas", replica_reads)
    if ARGS.mode == "gateway":
        check("what the server tells of itself", looks)
        check("reconnects after CLIENT KILL", reconnects)
