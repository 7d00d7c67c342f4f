//! Commands for the connection, the server and the cluster.

use super::containers::{CLIENT, CLUSTER};
use crate::cmd::key;
use crate::table::{Categories, Flags, Spec};

/// In order of their names.
pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "asking",
        arity: 1,
        flags: Flags::FAST,
        categories: Categories::CONNECTION,
        group: "cluster",
        since: "3.0.0",
        summary: "Accepted for clients of Redis Cluster; does nothing here.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "auth",
        arity: -2,
        flags: Flags::NOSCRIPT
            .or(Flags::LOADING.or(Flags::STALE.or(Flags::FAST.or(Flags::NO_AUTH.or(Flags::ALLOW_BUSY))))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "1.0.0",
        summary: "Tells who is at the other end.",
        complexity: "O(N) in the passwords of the user",
        syntax: "[username] password",
        ..Spec::EMPTY
    },
    Spec {
        name: "client",
        arity: -2,
        flags: Flags(0),
        group: "connection",
        since: "2.4.0",
        summary: "About connections.",
        complexity: "Depends on the subcommand",
        subcommands: CLIENT,
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster",
        arity: -2,
        flags: Flags(0),
        group: "cluster",
        since: "3.0.0",
        summary: "About the cluster.",
        complexity: "Depends on the subcommand",
        subcommands: CLUSTER,
        ..Spec::EMPTY
    },
    Spec {
        name: "command",
        arity: -1,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output_order"],
        group: "server",
        since: "2.8.13",
        summary: "Answers the table of commands.",
        complexity: "O(N) in the commands",
        subcommands: COMMAND,
        ..Spec::EMPTY
    },
    Spec {
        name: "config",
        arity: -2,
        flags: Flags(0),
        group: "server",
        since: "2.0.0",
        summary: "About the settings.",
        complexity: "Depends on the subcommand",
        subcommands: CONFIG,
        ..Spec::EMPTY
    },
    Spec {
        name: "dbsize",
        arity: 1,
        flags: Flags::READONLY.or(Flags::FAST),
        categories: Categories::KEYSPACE,
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        group: "server",
        since: "1.0.0",
        summary: "Counts all keys.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "echo",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE.or(Flags::FAST)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "1.0.0",
        summary: "Answers what it was sent.",
        complexity: "O(1)",
        syntax: "message",
        ..Spec::EMPTY
    },
    Spec {
        name: "flushall",
        arity: -1,
        flags: Flags::WRITE,
        categories: Categories::KEYSPACE.or(Categories::DANGEROUS),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        group: "server",
        since: "1.0.0",
        summary: "Deletes all keys.",
        complexity: "O(N) in all keys",
        syntax: "[ASYNC | SYNC]",
        parser: Some(key::parse_flush),
        ..Spec::EMPTY
    },
    Spec {
        name: "flushdb",
        arity: -1,
        flags: Flags::WRITE,
        categories: Categories::KEYSPACE.or(Categories::DANGEROUS),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        group: "server",
        since: "1.0.0",
        summary: "Deletes all keys.",
        complexity: "O(N) in all keys",
        syntax: "[ASYNC | SYNC]",
        parser: Some(key::parse_flush),
        ..Spec::EMPTY
    },
    Spec {
        name: "hello",
        arity: -1,
        flags: Flags::NOSCRIPT
            .or(Flags::LOADING.or(Flags::STALE.or(Flags::FAST.or(Flags::NO_AUTH.or(Flags::ALLOW_BUSY))))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "6.0.0",
        summary: "Agrees on the protocol and tells who both ends are.",
        complexity: "O(1)",
        syntax: "[protover] [AUTH username password] [SETNAME clientname]",
        ..Spec::EMPTY
    },
    Spec {
        name: "info",
        arity: -1,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::DANGEROUS,
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        group: "server",
        since: "1.0.0",
        summary: "Answers figures of the server.",
        complexity: "O(1)",
        syntax: "[section [section ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "ping",
        arity: -1,
        flags: Flags::FAST,
        categories: Categories::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        group: "connection",
        since: "1.0.0",
        summary: "Answers PONG, or what it was sent.",
        complexity: "O(1)",
        syntax: "[message]",
        ..Spec::EMPTY
    },
    Spec {
        name: "quit",
        arity: -1,
        flags: Flags::NOSCRIPT
            .or(Flags::LOADING.or(Flags::STALE.or(Flags::FAST.or(Flags::NO_AUTH.or(Flags::ALLOW_BUSY))))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "1.0.0",
        summary: "Closes the connection.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "readonly",
        arity: -1,
        flags: Flags::LOADING.or(Flags::STALE.or(Flags::FAST)),
        categories: Categories::CONNECTION,
        group: "cluster",
        since: "3.0.0",
        summary: "Allows replicas to answer this connection's reads, and tells how old the answers may be, in milliseconds.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "readwrite",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE.or(Flags::FAST)),
        categories: Categories::CONNECTION,
        group: "cluster",
        since: "3.0.0",
        summary: "Ends READONLY.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "reset",
        arity: 1,
        flags: Flags::NOSCRIPT
            .or(Flags::LOADING.or(Flags::STALE.or(Flags::FAST.or(Flags::NO_AUTH.or(Flags::ALLOW_BUSY))))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "6.2.0",
        summary: "Sets the connection back to how it began.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "role",
        arity: 1,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE.or(Flags::FAST))),
        categories: Categories::ADMIN,
        group: "server",
        since: "2.8.12",
        summary: "Answers whether this node leads.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "select",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE.or(Flags::FAST)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "1.0.0",
        summary: "Chooses the database, of which there is one, 0.",
        complexity: "O(1)",
        syntax: "index",
        ..Spec::EMPTY
    },
    Spec {
        name: "time",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE.or(Flags::FAST)),
        tips: &["nondeterministic_output"],
        group: "server",
        since: "2.6.0",
        summary: "Answers the server's time.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
];

const COMMAND: &[Spec] = &[
    Spec {
        name: "command|count",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "server",
        since: "2.8.13",
        summary: "Counts the commands.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|docs",
        arity: -2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output_order"],
        group: "server",
        since: "7.0.0",
        summary: "Answers what commands do and which arguments they take.",
        complexity: "O(N) in the commands",
        syntax: "[command-name [command-name ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|getkeys",
        arity: -4,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "server",
        since: "2.8.13",
        summary: "Picks the keys out of a command.",
        complexity: "O(N) in the arguments",
        syntax: "command [arg [arg ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|getkeysandflags",
        arity: -4,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "server",
        since: "7.0.0",
        summary: "Picks the keys out of a command and says what it does to them.",
        complexity: "O(N) in the arguments",
        syntax: "command [arg [arg ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "server",
        since: "5.0.0",
        summary: "Lists the subcommands.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|info",
        arity: -2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output_order"],
        group: "server",
        since: "2.8.13",
        summary: "Answers the table's entries of some commands.",
        complexity: "O(N) in the commands",
        syntax: "[command-name [command-name ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "command|list",
        arity: -2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output_order"],
        group: "server",
        since: "7.0.0",
        summary: "Answers the names of commands.",
        complexity: "O(N) in the commands",
        syntax: "[FILTERBY filterby]",
        ..Spec::EMPTY
    },
];

const CONFIG: &[Spec] = &[
    Spec {
        name: "config|get",
        arity: -3,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        group: "server",
        since: "2.0.0",
        summary: "Answers settings whose names match.",
        complexity: "O(N) in the settings",
        syntax: "parameter [parameter ...]",
        ..Spec::EMPTY
    },
    Spec {
        name: "config|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        group: "server",
        since: "5.0.0",
        summary: "Lists the subcommands.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "config|resetstat",
        arity: 2,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        group: "server",
        since: "2.0.0",
        summary: "Sets the counters of INFO to zero.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "config|rewrite",
        arity: 2,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        group: "server",
        since: "2.8.0",
        summary: "Writes the settings to the file they came from.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "config|set",
        arity: -4,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        group: "server",
        since: "2.0.0",
        summary: "Changes settings of this node until it stops.",
        complexity: "O(N) in the settings",
        syntax: "parameter value [parameter value ...]",
        ..Spec::EMPTY
    },
];
