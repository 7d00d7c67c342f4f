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
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "5.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|id",
        arity: 2,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "5.0.0",
        summary: "",
        complexity: "",
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
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|kill",
        arity: -3,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "2.4.0",
        summary: "",
        complexity: "",
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
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|no-evict",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE))),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|no-touch",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.2.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|reply",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "3.2.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|setinfo",
        arity: 4,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "7.2.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|setname",
        arity: 3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "2.6.9",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "client|tracking",
        arity: -3,
        flags: Flags::NOSCRIPT.or(Flags::LOADING.or(Flags::STALE)),
        categories: Categories::CONNECTION,
        group: "connection",
        since: "6.0.0",
        summary: "",
        complexity: "",
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
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|getkeysinslot",
        arity: 4,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        group: "cluster",
        since: "5.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|info",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|keyslot",
        arity: 3,
        flags: Flags::STALE,
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|links",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "7.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|myid",
        arity: 2,
        flags: Flags::STALE,
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|myshardid",
        arity: 2,
        flags: Flags::STALE,
        group: "cluster",
        since: "7.2.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|nodes",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|replicas",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "5.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|shards",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "7.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|slaves",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
    Spec {
        name: "cluster|slots",
        arity: 2,
        flags: Flags::STALE,
        tips: &["nondeterministic_output"],
        group: "cluster",
        since: "3.0.0",
        summary: "",
        complexity: "",
        ..Spec::EMPTY
    },
];
