"""Random commands, right and wrong, side by side with a real Redis: each reply byte for byte.

The commands are drawn from a seed, over few keys in one slot, so that they meet. Left out is what may rightly differ:
the order of SCAN, RANDOMKEY, the last digits of long floats, times that run out while the test runs, and WATCH (an absent key counts
as changed when another key of its slot was deleted).
"""

import random

from resp import Connection
from servers import Redis

SEEDS = 30
COMMANDS = 400

INTEGERS = ["0", "1", "-1", "2", "10", "-5", "100", "9223372036854775807", "-9223372036854775808", "9223372036854775808"]
ODD_NUMBERS = ["", " 1", "1 ", "+1", "01", "0x10", "1e3", "abc", "-", "--1", "1.5", "99999999999999999999"]
FLOATS = ["0.5", "-0.25", "1.5", "3", "1e2", "-2.75", "abc", "", "inf", "nan", "1.5x"]
TEXTS = ["", "a", "hello", "Hello World", "12345", "-7", "3.25", "x" * 40, "x" * 50, "y" * 100, "\r\n", "caf\u00e9", "\u0000\u0001"]
FAR = ["4102444800", "4102444801", "7000000000"]
FAR_MS = ["4102444800000", "4102444800500", "7000000000123"]
LONG = ["1000", "5000", "100000"]
LONG_MS = ["1000000", "5000000"]
BAD_TIMES = ["0", "-1", "abc", "9223372036854775807", "-9223372036854775808", "1.5"]

# What they answer is a time still to run: only the kind of reply and a tolerance are compared.
REMAINING = {"TTL": 2, "PTTL": 3000, "EXPIRETIME": 2, "PEXPIRETIME": 3000}


class Chance:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.prefix = "{random:%d}:" % seed

    def key(self):
        return self.prefix + self.random.choice("abcdef")

    def pick(self, *lists):
        return self.random.choice(self.random.choice(lists))

    def one_in(self, count):
        return self.random.randrange(count) == 0

    def integer(self):
        return self.pick(INTEGERS, INTEGERS, ODD_NUMBERS)

    def expiry(self):
        """A way to say when, for SET and GETEX; now and then a wrong one."""
        kind = self.random.choice(["EX", "PX", "EXAT", "PXAT"])
        good = {"EX": LONG, "PX": LONG_MS, "EXAT": FAR, "PXAT": FAR_MS}[kind]
        return [self.case(kind), self.pick(good, good, good, BAD_TIMES)]

    def case(self, word):
        return word if self.one_in(2) else word.lower()

    def some(self, words, chance=3):
        return [self.case(word) for word in words if self.one_in(chance)]


def set_options(c):
    options = c.some(["NX", "XX", "GET", "KEEPTTL"], 4)
    if c.one_in(3):
        options += c.expiry()
    if c.one_in(20):
        options.append("BOGUS")
    c.random.shuffle(options) if c.one_in(10) else None
    return options


def pairs(c):
    words = [word for _ in range(c.random.randrange(1, 4)) for word in (c.key(), c.pick(TEXTS))]
    return words[:-1] if c.one_in(15) else words


def getex_options(c):
    options = c.expiry() if c.one_in(2) else c.some(["PERSIST", "BOGUS"], 3)
    return options + (["PERSIST"] if c.one_in(15) else [])


def lcs_options(c):
    options = c.some(["LEN", "IDX", "WITHMATCHLEN"])
    return options + (["MINMATCHLEN", c.pick(["0", "2", "-1", "x"])] if c.one_in(3) else [])


COMMANDS_OF = [
    (8, lambda c: ["GET", c.key()]),
    (8, lambda c: ["SET", c.key(), c.pick(TEXTS, TEXTS, INTEGERS), *set_options(c)]),
    (3, lambda c: ["DEL", *(c.key() for _ in range(c.random.randrange(1, 4)))]),
    (1, lambda c: ["UNLINK", c.key(), c.key()]),
    (2, lambda c: ["EXISTS", c.key(), c.key(), c.key()]),
    (1, lambda c: ["TOUCH", c.key(), c.key()]),
    (1, lambda c: ["TYPE", c.key()]),
    (2, lambda c: ["EXPIRE", c.key(), c.pick(LONG, LONG, BAD_TIMES), *c.some(["NX", "XX", "GT", "LT"], 5)]),
    (2, lambda c: ["PEXPIRE", c.key(), c.pick(LONG_MS, LONG_MS, BAD_TIMES), *c.some(["NX", "XX", "GT", "LT"], 5)]),
    (2, lambda c: ["EXPIREAT", c.key(), c.pick(FAR, FAR, BAD_TIMES), *c.some(["NX", "XX", "GT", "LT"], 5)]),
    (2, lambda c: ["PEXPIREAT", c.key(), c.pick(FAR_MS, FAR_MS, BAD_TIMES), *c.some(["NX", "XX", "GT", "LT"], 5)]),
    (1, lambda c: ["EXPIRE", c.key(), "100", "BOGUS"]),
    (2, lambda c: ["TTL", c.key()]),
    (2, lambda c: ["PTTL", c.key()]),
    (2, lambda c: ["EXPIRETIME", c.key()]),
    (2, lambda c: ["PEXPIRETIME", c.key()]),
    (2, lambda c: ["PERSIST", c.key()]),
    (2, lambda c: ["INCR", c.key()]),
    (2, lambda c: ["DECR", c.key()]),
    (3, lambda c: ["INCRBY", c.key(), c.integer()]),
    (3, lambda c: ["DECRBY", c.key(), c.integer()]),
    (3, lambda c: ["INCRBYFLOAT", c.prefix + "float", c.pick(FLOATS)]),
    (2, lambda c: ["MGET", c.key(), c.key(), c.key()]),
    (2, lambda c: ["MSET", *pairs(c)]),
    (2, lambda c: ["MSETNX", *pairs(c)]),
    (2, lambda c: ["SETNX", c.key(), c.pick(TEXTS)]),
    (2, lambda c: ["SETEX", c.key(), c.pick(LONG, LONG, BAD_TIMES), c.pick(TEXTS)]),
    (2, lambda c: ["PSETEX", c.key(), c.pick(LONG_MS, LONG_MS, BAD_TIMES), c.pick(TEXTS)]),
    (2, lambda c: ["GETSET", c.key(), c.pick(TEXTS)]),
    (2, lambda c: ["GETDEL", c.key()]),
    (4, lambda c: ["GETEX", c.key(), *getex_options(c)]),
    (3, lambda c: ["APPEND", c.key(), c.pick(TEXTS)]),
    (2, lambda c: ["STRLEN", c.key()]),
    (4, lambda c: ["GETRANGE", c.key(), c.integer(), c.integer()]),
    (1, lambda c: ["SUBSTR", c.key(), c.integer(), c.integer()]),
    (4, lambda c: ["SETRANGE", c.key(), c.pick(["0", "1", "5", "30", "-1", "abc", "536870912", "9223372036854775807"]), c.pick(TEXTS)]),
    (3, lambda c: ["LCS", c.key(), c.key(), *lcs_options(c)]),
    (3, lambda c: ["RENAME", c.key(), c.key()]),
    (2, lambda c: ["RENAMENX", c.key(), c.key()]),
    (2, lambda c: ["COPY", c.key(), c.key(), *c.some(["REPLACE"], 2), *(["DB", c.pick(["0", "x", "-1"])] if c.one_in(6) else [])]),
    (2, lambda c: ["OBJECT", "ENCODING", c.key()]),
    (1, lambda c: ["MULTI"]),
    (2, lambda c: ["EXEC"]),
    (1, lambda c: ["DISCARD"]),
    (1, lambda c: ["UNWATCH"]),
    (1, lambda c: ["PING", *(["x"] * c.random.randrange(3))]),
    (1, lambda c: ["ECHO", c.pick(TEXTS)]),
    (1, lambda c: ["NOSUCH", c.pick(TEXTS), c.key()]),
    (1, lambda c: ["SELECT", c.pick(["0", "x", ""])]),
]
WEIGHTS = [weight for weight, _ in COMMANDS_OF]


def next_command(c):
    make = c.random.choices(COMMANDS_OF, WEIGHTS)[0][1]
    words = make(c)
    words[0] = c.case(words[0])
    if c.one_in(40):  # a wrong number of arguments
        words = words[:-1] if c.one_in(2) and len(words) > 1 else words + [c.prefix + "extra"]
    return words


def alike(words, ours, theirs):
    if ours == theirs:
        return True
    tolerance = REMAINING.get(words[0].upper())
    if tolerance and ours[:1] == theirs[:1] == b":":
        return abs(int(ours[1:]) - int(theirs[1:])) <= tolerance
    return False


def run_seed(ours, theirs, seed):
    c = Chance(seed)
    history = []
    queued = None
    for _ in range(COMMANDS):
        words = next_command(c)
        name = words[0].upper()
        # Remaining times inside EXEC's reply could differ by a millisecond; they are asked outside.
        if queued is not None and name in REMAINING:
            continue
        actual, wanted = ours.raw(*words), theirs.raw(*words)
        history.append(words)
        if wanted == b"+OK\r\n" and name == "MULTI":
            queued = True
        elif name in ("EXEC", "DISCARD"):
            queued = None
        assert alike(words, actual, wanted), f"{words} gave {actual!r}, Redis {wanted!r}; before it: {history[-4:-1]}"


def run(report, server):
    oracle = Redis()
    try:
        for protocol in ("2", "3"):
            report.area(f"replies to random commands beside redis-server, RESP{protocol}")
            for seed in range(SEEDS):
                report.check(f"seed {seed}", lambda: one(server, oracle, protocol, seed))
    finally:
        oracle.stop()


def one(server, oracle, protocol, seed):
    ours, theirs = Connection("127.0.0.1", server.gateway), Connection("127.0.0.1", oracle.port)
    try:
        for connection in (ours, theirs):
            connection.call("HELLO", protocol)
        # Seeds of both protocols must not meet on one key.
        run_seed(ours, theirs, seed + (1000 if protocol == "3" else 0))
    finally:
        ours.close()
        theirs.close()
