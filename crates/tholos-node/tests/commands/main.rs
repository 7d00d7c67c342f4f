//! Commands as clients send them, against the node core: replies byte for byte, as redis-server 7.0.15 gives them
//! unless a test says otherwise.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

mod automatic;
mod cluster;
mod digests;
mod faults;
mod gateway_reads;
mod handshakes;
mod jobs;
mod keyspace;
mod leases;
mod moves;
mod recover;
mod relays;
mod replica_reads;
mod replicas;
mod roll;
mod snapshots;
mod steering;

mod support;
mod transactions;
