//! Every command of the README works as it is printed there, on every store.

use super::sandbox::{Sandbox, binary};
use crate::both::Engine;

/// The commands in the README's console blocks, without those that build.
fn commands() -> Vec<String> {
    let text = include_str!("../../README.md");
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push(command.to_owned());
        }
    }
    found
}

fn every_command_of_the_readme_works(engine: Engine) {
    let commands = commands();
    assert!(
        commands.iter().any(|command| command == "cargo run --release -- dev")
            && commands.iter().any(|command| command == "scripts/test"),
        "{commands:?}"
    );
    let sandbox = Sandbox::on(engine);
    let mut dev = sandbox.dev();
    let api = dev.address("API");
    let health = dev.address("health");
    for command in commands {
        if command.starts_with("cargo ") || command.starts_with("scripts/") {
            continue; // these build, and take minutes
        }
        let typed = command
            .replace(
                "target/release/examples/app",
                binary().with_file_name("examples").join("app").to_str().expect("a path"),
            )
            .replace("target/release/sluicegate", binary().to_str().expect("a path"))
            .replace("redis://127.0.0.1:6379/0", &sandbox.url())
            .replace("127.0.0.1:7434", &api)
            .replace("127.0.0.1:7433", &health);
        let output =
            sandbox.command(std::path::Path::new("sh")).args(["-c", &typed]).output().expect("sh runs");
        assert!(output.status.success(), "{command}: {output:?}");
    }
    // All of them met in the same store, and it is the one that was meant.
    let tagged = ["job", "list", "--state", "completed", "-o", "name", "--store", &sandbox.url()];
    assert!(sandbox.run(&tagged).exits(0).out.lines().count() >= 4);
    assert_eq!(sandbox.path("data/sluicegate/jobs.db").exists(), engine == Engine::Sqlite);
}

on_both! {
    #[test] fn:
        every_command_of_the_readme_works;
}
