//! The meta group's state machine: what each command does and refuses, and what holds whatever comes.

mod jobs;
mod moves;
mod nodes;
mod random;
mod support;
mod versions;
