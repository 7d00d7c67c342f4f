//! Short runs of the torture test: processes and disks are struck on loopback, and a planted fault must be found.
//! `cargo xtask torture` runs the long form, with cuts of the network and jumps of the clock.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

use std::process::{Command, Output};

fn torture(arguments: &[&str], planted: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tholos-torture"));
    command.arg("run").args(arguments).env_remove("THOLOS_TORTURE_PLANTED");
    if let Some(planted) = planted {
        command.env("THOLOS_TORTURE_PLANTED", planted);
    }
    command.args(["--dir", env!("CARGO_TARGET_TMPDIR")]).output().expect("the program can be run")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn survives(arguments: &[&str]) {
    let output = torture(arguments, None);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" acknowledged writes lost, 0 illegal histories"), "{said}");
}

#[test]
fn power_cuts_pauses_and_bad_disks_lose_nothing() {
    let acts = "kill-one,kill-two,kill-all,pause-one,sync-fails,write-fails,full-disk,slow-disk,several";
    survives(&["--loopback", "--rounds", "5", "--seed", "3", "--acts", acts]);
}

/// The disk of `tholos serve` itself: its direct writes are in the page cache or beyond when the process dies.
#[test]
fn killed_and_stopped_nodes_on_real_files_lose_nothing() {
    survives(&[
        "--loopback",
        "--rounds",
        "4",
        "--real-files",
        "--acts",
        "kill-one,kill-two,kill-all,pause-one",
    ]);
}

/// A harness that finds nothing proves nothing: a disk that says synced and is not.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let output = torture(&["--loopback", "--rounds", "4", "--acts", "kill-all"], Some("sync-lies"));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED: "), "{said}");
}

/// In namespaces if this machine and user may make them; a refusal says what is missing, and is none of success.
#[test]
fn cuts_of_the_network_lose_nothing_or_are_refused_in_words() {
    let output = torture(&["--rounds", "3", "--no-scene", "--acts", "cut-one,cut-out,cut-in,cut-pair"], None);
    let said = said(&output);
    if !output.status.success() {
        assert!(said.contains("network namespaces cannot be made here"), "{said}");
    }
}

#[test]
fn a_seed_reproduces_its_plan() {
    let plan = |seed: &str| said(&torture(&["--loopback", "--list", "50", "--seed", seed], None));
    assert_eq!(plan("7"), plan("7"));
    assert_ne!(plan("7"), plan("8"));
    let refused = torture(&["--loopback", "--list", "1", "--acts", "cut-one"], None);
    assert!(!refused.status.success() && said(&refused).contains("loopback cannot be cut"));
}
