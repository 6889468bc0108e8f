//! A disk without room, for real: a file system of 700 KiB.

use super::sandbox::Sandbox;

#[test]
fn t28_a_full_disk_refuses_with_its_cause_and_goes_on_when_there_is_room() {
    let sandbox = Sandbox::new();
    let mount = sandbox.path("small");
    std::fs::create_dir(&mount).expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=700k", "tmpfs"])
        .arg(&mount)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
        println!("SKIPPED (needs root, to mount a small file system)");
        return;
    }
    let url = format!("sqlite:{}", mount.join("jobs.db").display());
    let line = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", "x".repeat(4_000)).repeat(500);
    let full = sandbox.run_with(&["--store", &url, "job", "enqueue", "--from-file", "-"], &[], &line);
    let grown = std::process::Command::new("mount")
        .args(["-o", "remount,size=20m"])
        .arg(&mount)
        .status()
        .expect("mount runs");
    let after = sandbox.run(&["--store", &url, "job", "enqueue", "echo"]);
    let queues = sandbox.run(&["--store", &url, "queue", "list", "--json"]);
    let unmounted = std::process::Command::new("umount").arg(&mount).status().expect("umount runs");
    assert!(grown.success() && unmounted.success());
    let full = full.exits(1).says("full");
    assert!(full.err.contains("free space"), "{full:?}");
    after.exits(0);
    assert_eq!(
        queues.json()["queues"][0]["inserted_total"],
        1,
        "a batch that did not fit left nothing behind"
    );
}
