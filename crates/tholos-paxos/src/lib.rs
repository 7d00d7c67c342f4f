//! One Multi-Paxos group as a sans-I/O core.
