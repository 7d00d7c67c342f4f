"""What connections, the server and its table answer, side by side with a real Redis: each reply byte for byte.

One command a line, in order, on one connection, which is opened anew when it was closed. `%20` is a byte, `""` an empty argument.
Left out is what rightly differs: versions, numbers of clients, what is not there, help texts.
"""

from urllib.parse import unquote_to_bytes

from resp import Closed, Connection
from servers import Redis

LINES = """\
PING
PING a
PING a b
ECHO
ECHO a
ECHO a b
HELLO 1
HELLO 4
HELLO x
HELLO 3 AUTH
HELLO 3 AUTH a
HELLO 3 SETNAME
HELLO 3 SETNAME a%20b
HELLO 3 SETNAME
HELLO 3 BOGUS
CLIENT GETNAME
HELLO 3 SETNAME bar AUTH a b
CLIENT GETNAME
HELLO 99999999999999999999
HELLO -1
HELLO 3 auth default
AUTH
AUTH a
AUTH a b
AUTH a b c
AUTH default x
SELECT
SELECT 0
SELECT -1
SELECT 16
SELECT a
SELECT 99999999999
SELECT 0 1
CLIENT
CLIENT SETNAME
CLIENT SETNAME a%20b
CLIENT SETNAME ok
CLIENT SETNAME a b
CLIENT GETNAME
CLIENT GETNAME x
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT SETNAME a%0a
CLIENT INFO x
CLIENT LIST x
CLIENT LIST TYPE
CLIENT LIST TYPE x
CLIENT LIST TYPE master
CLIENT LIST TYPE replica
CLIENT LIST TYPE pubsub
CLIENT LIST ID
CLIENT LIST ID x
CLIENT LIST ID 0
CLIENT LIST ID -1
CLIENT LIST BOGUS 1
CLIENT KILL
CLIENT KILL x
CLIENT KILL 1.2.3.4:5
CLIENT KILL ID
CLIENT KILL ID x
CLIENT KILL ID 0
CLIENT KILL ID 99999999
CLIENT KILL ID -4
CLIENT KILL TYPE x
CLIENT KILL TYPE master
CLIENT KILL TYPE pubsub
CLIENT KILL USER nosuch
CLIENT KILL ADDR 1.2.3.4:5
CLIENT KILL LADDR 1.2.3.4:5
CLIENT KILL SKIPME maybe
CLIENT KILL SKIPME yes BOGUS
CLIENT KILL ADDR 1.2.3.4:5 SKIPME no
CLIENT KILL ID 999999 ADDR
CLIENT NO-EVICT
CLIENT NO-EVICT on
CLIENT NO-EVICT OFF
CLIENT NO-EVICT x
CLIENT NO-EVICT on x
CLIENT REPLY
CLIENT REPLY x
CLIENT REPLY on
CLIENT BOGUS
CLIENT BOGUS a b c
CLIENT TRACKING
CLIENT HELP x
COMMAND COUNT x
COMMAND BOGUS
COMMAND GETKEYS
COMMAND GETKEYS GET
COMMAND GETKEYS GET a
COMMAND GETKEYS get a b
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYS MSET a 1 b
COMMAND GETKEYS PING
COMMAND GETKEYS BOGUS
COMMAND GETKEYS BOGUS a
COMMAND GETKEYS COPY a b
COMMAND GETKEYS OBJECT ENCODING a
COMMAND GETKEYS OBJECT BOGUS a
COMMAND GETKEYS OBJECT
COMMAND GETKEYS LCS a b
COMMAND GETKEYS SET a b EX 1
COMMAND GETKEYS DEL a b c
COMMAND GETKEYS WATCH a b
COMMAND GETKEYS SCAN 0
COMMAND GETKEYS RENAME a b
COMMAND GETKEYSANDFLAGS GET a
COMMAND GETKEYSANDFLAGS COPY a b
COMMAND GETKEYSANDFLAGS GETEX b EX 1
COMMAND GETKEYSANDFLAGS DEL a b
COMMAND INFO nosuch
COMMAND INFO get
COMMAND INFO mset
COMMAND INFO object|encoding
COMMAND INFO client|nosuch
COMMAND INFO lcs
COMMAND INFO copy
COMMAND INFO del
COMMAND INFO expire
COMMAND INFO exec
COMMAND INFO watch
COMMAND INFO ping
COMMAND INFO echo
COMMAND INFO select
COMMAND INFO auth
COMMAND INFO hello
COMMAND INFO quit
COMMAND INFO reset
COMMAND INFO role
COMMAND INFO time
COMMAND INFO dbsize
COMMAND INFO readwrite
COMMAND INFO asking
COMMAND INFO info
COMMAND INFO scan
COMMAND INFO keys
COMMAND INFO flushdb
COMMAND INFO flushall
COMMAND INFO wait
COMMAND INFO randomkey
COMMAND INFO unlink
COMMAND INFO exists
COMMAND INFO type
COMMAND INFO pexpire
COMMAND INFO expireat
COMMAND INFO pexpireat
COMMAND INFO ttl
COMMAND INFO pttl
COMMAND INFO expiretime
COMMAND INFO pexpiretime
COMMAND INFO persist
COMMAND INFO incr
COMMAND INFO decr
COMMAND INFO incrby
COMMAND INFO decrby
COMMAND INFO incrbyfloat
COMMAND INFO mget
COMMAND INFO msetnx
COMMAND INFO setnx
COMMAND INFO setex
COMMAND INFO psetex
COMMAND INFO getset
COMMAND INFO getdel
COMMAND INFO append
COMMAND INFO strlen
COMMAND INFO getrange
COMMAND INFO substr
COMMAND INFO setrange
COMMAND INFO rename
COMMAND INFO renamenx
COMMAND INFO touch
COMMAND INFO multi
COMMAND INFO discard
COMMAND INFO unwatch
COMMAND INFO object|help
COMMAND INFO client|id
COMMAND INFO client|kill
COMMAND INFO command|docs
COMMAND INFO config|get
COMMAND INFO cluster|slots
COMMAND LIST FILTERBY
COMMAND LIST FILTERBY BOGUS x
COMMAND LIST FILTERBY MODULE x
COMMAND LIST FILTERBY PATTERN getr*
COMMAND LIST FILTERBY PATTERN GETR*
COMMAND LIST FILTERBY ACLCAT nosuch
COMMAND LIST BOGUS
COMMAND DOCS nosuch
INFO a b
INFO nosuch
CONFIG
CONFIG BOGUS
CONFIG GET
CONFIG GET nosuch
CONFIG GET maxmemory
CONFIG GET save
CONFIG SET
CONFIG SET maxmemory
CONFIG SET maxmemory x
CONFIG SET maxmemory 100mb
CONFIG GET maxmemory
CONFIG SET maxmemory 0
CONFIG SET maxmemory -1
CONFIG SET nosuch 1
CONFIG SET maxmemory 0 maxmemory 0
CONFIG SET maxmemory 0 nosuch
CONFIG SET timeout 0
CONFIG GET timeout
CONFIG RESETSTAT
CONFIG RESETSTAT x
CONFIG REWRITE
ROLE x
TIME x
DBSIZE x
READONLY
READWRITE
READWRITE x
ASKING
ASKING x
CLUSTER
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER NODES
CLUSTER BOGUS
CLUSTER LINKS
CLUSTER COUNTKEYSINSLOT 1
CLUSTER HELP
CLUSTER KEYSLOT
CLUSTER KEYSLOT a b
RESET x
QUIT x
WAIT 0
WAIT a 0
WAIT 0 -1
WAIT 0 9223372036854775808
OBJECT
OBJECT ENCODING
OBJECT ENCODING nokey
OBJECT x y
SCAN
SCAN x
SCAN 0 MATCH
SCAN 0 COUNT 0
SCAN 0 COUNT x
SCAN 0 COUNT -1
SCAN 0 BOGUS
SCAN 0 BOGUS 1
SCAN 18446744073709551616
SCAN %201
SCAN 1%20
SCAN 0 MATCH a COUNT ""
KEYS
KEYS a b
KEYS nosuch
RANDOMKEY x
MULTI
MULTI
WATCH a
MULTI
NOSUCH
MULTI
GET
PING
MULTI
SET k
DISCARD
DISCARD
WATCH
MULTI x
MULTI
WATCH
MULTI
PING
MULTI
HELLO 9
MULTI
AUTH a b
MULTI
SELECT 99
CLIENT SETNAME q
CONFIG GET save
CLIENT GETNAME
MULTI
RESET
MULTI
UNWATCH
DISCARD x
MULTI
INCR a
SET a x
INCR a
DEL a
MULTI
QUIT
nosuch
nosuch a
nosuch a b c
%00GET
""
"" a
verylongcommandnameverylongcommandnameverylongcommandnameverylongcommandnameverylongcommandnameverylongcommandnameverylongcommandnameverylongcommandname a
nosuch aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b c
nosuch aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb c d e
nosuch 'a b'
nosuch a%0d%0ab
""".splitlines()


def words_of(line):
    return [b"" if word == '""' else unquote_to_bytes(word) for word in line.split(" ")]


class Side:
    """A connection to one of the two, opened again when it was closed."""

    def __init__(self, port, protocol):
        self.port, self.protocol = port, protocol
        self.open()

    def open(self):
        self.connection = Connection("127.0.0.1", self.port)
        self.connection.call("HELLO", self.protocol)

    def ask(self, words):
        try:
            return self.connection.raw(*words)
        except (Closed, ConnectionError):
            self.open()
            return b"(closed)"


def run(report, server):
    oracle = Redis()
    try:
        for protocol in ("2", "3"):
            report.area(f"replies to connections beside redis-server, RESP{protocol}")
            ours, theirs = Side(server.gateway, protocol), Side(oracle.port, protocol)
            for number, line in enumerate(LINES, 1):
                actual, wanted = ours.ask(words_of(line)), theirs.ask(words_of(line))
                same = actual == wanted
                report.result(f"{number} {line[:60]}", None if same else f"{actual[:300]!r}, Redis {wanted[:300]!r}")
    finally:
        oracle.stop()
