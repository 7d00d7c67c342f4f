//! The subcommands of CLIENT and CLUSTER.

use crate::table::{Categories, Flags, Spec};

/// CLIENT's, in order of their names.
pub(super) const CLIENT: &[Spec] = &[
    Spec {
        name: "client|getname",
        arity: 2,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "2.6.9",
        summary: "Answers the connection's name.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "5.0.0",
        summary: "Lists the subcommands.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|id",
        arity: 2,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "5.0.0",
        summary: "Answers the connection's number.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|info",
        arity: 2,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output"],
        group: "connection",
        since: "6.2.0",
        summary: "Answers what is known of this connection.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|kill",
        arity: -3,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "2.4.0",
        summary: "Closes connections.",
        complexity: "O(N) in the connections",
        syntax: "[ip:port] [ID client-id] [TYPE NORMAL | TYPE MASTER | TYPE REPLICA | TYPE PUBSUB] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME yes/no]",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|list",
        arity: -2,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        categories: Categories::CONNECTION,
        tips: &["nondeterministic_output"],
        group: "connection",
        since: "2.4.0",
        summary: "Answers what is known of all connections.",
        complexity: "O(N) in the connections",
        syntax: "[TYPE NORMAL | TYPE MASTER | TYPE REPLICA | TYPE PUBSUB] [ID client-id [client-id ...]]",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|no-evict",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.0.0",
        summary: "Keeps this connection when memory for connections is short.",
        complexity: "O(1)",
        syntax: "ON | OFF",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|no-touch",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.2.0",
        summary: "Keeps commands of this connection from counting as use of a key.",
        complexity: "O(1)",
        syntax: "ON | OFF",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|reply",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "3.2.0",
        summary: "Says whether this connection wants replies.",
        complexity: "O(1)",
        syntax: "ON | OFF | SKIP",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|setinfo",
        arity: 4,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.2.0",
        summary: "Tells the library's name or version.",
        complexity: "O(1)",
        syntax: "LIB-NAME libname | LIB-VER libver",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|setname",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "2.6.9",
        summary: "Names the connection.",
        complexity: "O(1)",
        syntax: "connection-name",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|tracking",
        arity: -3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "6.0.0",
        summary: "Help for caches of clients; refused here.",
        complexity: "O(1)",
        syntax: "ON | OFF",
        ..Spec::EMPTY
    },
];

/// CLUSTER's, in order of their names.
pub(super) const CLUSTER: &[Spec] = &[
    Spec {
        name: "cluster|countkeysinslot",
        arity: 3,
        flags: Flags::STALE,
        group: "cluster",
        since: "3.0.0",
        summary: "Counts the keys of a slot.",
        complexity: "O(1)",
        syntax: "slot",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|getkeysinslot",
        arity: 4,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "Answers keys of a slot.",
        complexity: "O(N) in the keys answered",
        syntax: "slot count",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        group: "cluster",
        since: "5.0.0",
        summary: "Lists the subcommands.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|info",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "Answers the state of the cluster.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|keyslot",
        arity: 3,
        flags: Flags::STALE,
        group: "cluster",
        since: "3.0.0",
        summary: "Answers the slot of a key.",
        complexity: "O(N) in the bytes of the key",
        syntax: "key",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|links",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "7.0.0",
        summary: "Answers the connections between nodes.",
        complexity: "O(N) in the nodes",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|myid",
        arity: 2,
        flags: Flags::STALE,
        group: "cluster",
        since: "3.0.0",
        summary: "Answers this node's id.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|myshardid",
        arity: 2,
        flags: Flags::STALE,
        group: "cluster",
        since: "7.2.0",
        summary: "Answers this node's shard id.",
        complexity: "O(1)",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|nodes",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "Answers the nodes, one a line.",
        complexity: "O(N) in the nodes",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|replicas",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "5.0.0",
        summary: "Answers the replicas of a node.",
        complexity: "O(1)",
        syntax: "node-id",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|shards",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "7.0.0",
        summary: "Answers which nodes serve which slots.",
        complexity: "O(N) in the nodes",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|slaves",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "The old name of CLUSTER REPLICAS.",
        complexity: "O(1)",
        syntax: "node-id",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|slots",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "Answers which nodes serve which slots, the older way.",
        complexity: "O(N) in the nodes",
        ..Spec::EMPTY
    },
];
