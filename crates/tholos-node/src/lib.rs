//! All Paxos groups and keyspaces of one node, and the gateway, as one sans-I/O core.
