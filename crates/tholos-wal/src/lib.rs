//! A group-commit log for all groups of a node.
