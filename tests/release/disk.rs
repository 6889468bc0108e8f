//! A disk without room, for real: a file system of 700 KiB for the shelf.

use std::process::Command;

use super::kit::{names, source, write};
use crate::cli::sandbox::Sandbox;

#[test]
fn a_full_disk_refuses_with_its_cause_leaves_nothing_and_goes_on_when_there_is_room() {
    let sandbox = Sandbox::new();
    let mount = sandbox.path("small");
    std::fs::create_dir(&mount).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=700k,mode=755", "tmpfs"];
    if !Command::new("mount").args(options).arg(&mount).status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
        println!("SKIPPED (needs root, to mount a small file system)");
        return;
    }
    let folder = source(&sandbox, "app", "one");
    write(&folder.join("large"), vec![7; 1 << 20], 0o644);
    let args = ["release", "register", folder.to_str().unwrap(), "--id", "r1"];
    let there = [("SLUICEGATE__RELEASES__ROOT", mount.to_str().unwrap())];
    let full = sandbox.run_with(&args, &there, "");
    let left = names(&mount.join("default"));
    let grown = Command::new("mount").args(["-o", "remount,size=20m"]).arg(&mount).status().unwrap();
    let after = sandbox.run_with(&args, &there, "");
    let verified = sandbox.run_with(&["release", "verify", "r1"], &there, "");
    let unmounted = Command::new("umount").arg(&mount).status().unwrap();
    assert!(grown.success() && unmounted.success());
    let full = full.exits(1).says("No space left on device");
    assert!(full.err.contains("large") && full.err.contains("releases.root"), "{full:?}");
    assert!(left.is_empty(), "{left:?}");
    after.exits(0);
    verified.exits(0);
}
