#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tholos_fuzz::node::node_snapshot(bytes));
