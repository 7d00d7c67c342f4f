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


# Where the keys are among the arguments, so that all of them are of one slot.
ONE, TWO, ALL, EVERY_OTHER, NONE = "first", "first two", "all", "every other", "none"
# Commands with the least number of their arguments: what they say to any others.
SHAPES = {
    ONE: "GET 1 SET 2 TYPE 1 EXPIRE 2 PEXPIRE 2 EXPIREAT 2 PEXPIREAT 2 TTL 1 PTTL 1 EXPIRETIME 1 PEXPIRETIME 1 PERSIST 1 INCR 1 "
    "DECR 1 INCRBY 2 DECRBY 2 SETNX 2 SETEX 3 PSETEX 3 GETSET 2 GETDEL 1 GETEX 1 APPEND 2 STRLEN 1 GETRANGE 3 SUBSTR 3 SETRANGE 3",
    TWO: "RENAME 2 RENAMENX 2 COPY 2 LCS 2",
    ALL: "DEL 1 UNLINK 1 EXISTS 1 TOUCH 1 MGET 1",
    EVERY_OTHER: "MSET 2 MSETNX 2",
    NONE: "MULTI 0 EXEC 0 DISCARD 0 UNWATCH 0 PING 0 ECHO 1 SCAN 1 KEYS 1 DBSIZE 0 RANDOMKEY 0 WAIT 2",
}
SHAPED = [
    (name, int(least), keys)
    for keys, text in SHAPES.items()
    for name, least in zip(text.split()[::2], text.split()[1::2])
]
OPTIONS = (
    "NX XX GET KEEPTTL EX PX EXAT PXAT PERSIST GT LT LEN IDX WITHMATCHLEN MINMATCHLEN REPLACE DB MATCH COUNT TYPE ASYNC SYNC"
).split()
ODD_TEXTS = ["\r\n", "a\rb\n", "[a-c]", "\\", "{x}", "-0", "00", "+inf", "1e400", "4294967296", "2147483648"]
# No key of theirs may die while the test runs.
TIMED = ("SET", "SETEX", "PSETEX", "GETEX", "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT")
# Not part of a transaction, or answers what rightly differs: only errors are compared, and only outside MULTI.
ERRORS_ONLY = ("SCAN", "KEYS", "DBSIZE", "RANDOMKEY", "WAIT")


def odd_command(c):
    """Any command with any arguments. Few are right; what is wrong with them must be told as Redis tells it."""
    name, least, keys = c.random.choice(SHAPED)
    words = [c.case(name)]
    for at in range(max(0, least + c.random.choice([-1, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4]))):
        is_key = {ONE: at == 0, TWO: at < 2, ALL: True, EVERY_OTHER: at % 2 == 0, NONE: False}[keys]
        if is_key:
            words.append(c.key())
        elif name == "SETRANGE" and at == 1:
            words.append(c.pick(["0", "7", "70"], ODD_NUMBERS))
        elif name in TIMED:
            options = [c.case(c.random.choice(OPTIONS))]
            words.append(c.pick(LONG_MS, FAR_MS, BAD_TIMES, ODD_NUMBERS, ODD_TEXTS, ["a", "hello"], options))
        else:
            words.append(c.pick(INTEGERS, ODD_NUMBERS, ODD_TEXTS, TEXTS, [c.case(c.random.choice(OPTIONS))]))
    return words


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


def run_seed(ours, theirs, seed, make):
    c = Chance(seed)
    history = []
    queued = None
    for _ in range(COMMANDS):
        words = make(c)
        name = words[0].upper()
        if name in ERRORS_ONLY:
            if queued is not None:
                continue
            if name == "SCAN" and "\0" in "".join(words):
                continue  # C reads a cursor up to the first zero byte.
            if name == "WAIT" and len(words) == 3 and all(word.lstrip("-").isdigit() for word in words[1:]):
                continue  # It may wait for as long as it says.
            actual, wanted = ours.raw(*words), theirs.raw(*words)
            same = actual == wanted if b"-" in (actual[:1], wanted[:1]) else True
            assert same, f"{words} gave {actual!r}, Redis {wanted!r}"
            continue
        # Remaining times inside EXEC's reply could differ by a millisecond; they are asked outside.
        if queued is not None and name in REMAINING:
            continue
        actual, wanted = ours.raw(*words), theirs.raw(*words)
        history.append(words)
        if wanted == b"+OK\r\n" and name == "MULTI":
            queued = True
        elif name == "EXEC" or (name == "DISCARD" and wanted == b"+OK\r\n"):
            queued = None
        assert alike(words, actual, wanted), f"{words} gave {actual!r}, Redis {wanted!r}; before it: {history[-4:-1]}"


def run(report, server):
    oracle = Redis()
    areas = [("random commands", next_command, 0), ("odd arguments", odd_command, 500)]
    try:
        for protocol in ("2", "3"):
            for title, make, first in areas:
                report.area(f"replies to {title} beside redis-server, RESP{protocol}")
                for seed in range(first, first + SEEDS):
                    report.check(f"seed {seed}", lambda: one(server, oracle, protocol, seed, make))
    finally:
        oracle.stop()


def one(server, oracle, protocol, seed, make):
    ours, theirs = Connection("127.0.0.1", server.gateway), Connection("127.0.0.1", oracle.port)
    try:
        for connection in (ours, theirs):
            connection.call("HELLO", protocol)
        # Seeds of both protocols must not meet on one key.
        run_seed(ours, theirs, seed + (1000 if protocol == "3" else 0), make)
    finally:
        ours.close()
        theirs.close()
