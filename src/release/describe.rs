//! Asks a program what it runs: `PROGRAM release describe --json`. It is new code that nobody has proved, so it gets no
//! environment, no store, little time and little room.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::description::Description;
use super::error::ShelfError;
use crate::child::{Group, how, last_line, tail, telling_line};
use crate::clock::human;
use crate::config::variable;
use crate::names::{escaped, shown_long};

/// It must have answered, and ended, within this.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 256 * 1024;
/// A file that was just written may still be open in a process that another thread is about to start; it is for moments.
const BUSY_AGAIN: Duration = Duration::from_millis(5);

/// Asks the program at `folder/program`, with this part of the configuration.
///
/// # Errors
/// When it does not answer in time, or not as it should.
pub(super) async fn ask(
    folder: &Path,
    program: &str,
    config: Option<&str>,
) -> Result<Description, ShelfError> {
    let answer = tokio::time::timeout(DEADLINE, answer(folder, program, config)).await;
    let why = match answer {
        Ok(Ok(description)) => return Ok(description),
        Ok(Err(why)) => why,
        Err(_) => format!("it did not end within {}, and was killed", human(DEADLINE)),
    };
    Err(ShelfError::refused(format!("`{program} release describe --json` does not tell what it runs: {why}")).hint(
        "a program built on this library answers by itself; for any other, declare its kinds in release.toml: `[[kinds]]` with `name`, `version` and `queue`",
    ))
}

async fn answer(folder: &Path, program: &str, config: Option<&str>) -> Result<Description, String> {
    let mut command = Command::new(folder.join(program));
    command.args(["release", "describe", "--json"]);
    if let Some(config) = config {
        command.arg("--config").arg(folder.join(config));
    }
    command
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // An interpreter has to be found.
    if let Some(path) = variable("PATH") {
        command.env("PATH", path);
    }
    let mut child = spawn(&mut command).await?;
    let _group = Group(child.id());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let (ended, (), ()) = tokio::try_join!(
        async { child.wait().await.map_err(|error| error.to_string()) },
        limited(out, &mut said),
        async {
            tail(err, &mut complained).await;
            Ok(())
        },
    )?;
    if !ended.success() {
        let last = telling_line(&complained).or_else(|| last_line(&said));
        return Err(match last {
            Some(last) => format!("{}: {last}", how(ended)),
            None => how(ended),
        });
    }
    let read: Description = serde_json::from_slice(&said).map_err(|error| {
        let begins = last_line(said.get(..said.len().min(200)).unwrap_or_default());
        let begins = begins.map_or_else(|| "nothing".to_owned(), |text| format!("`{}`", shown_long(&text)));
        format!("its answer cannot be read ({}): {begins}", escaped(&error.to_string()))
    })?;
    read.checked()
}

async fn spawn(command: &mut Command) -> Result<Child, String> {
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_AGAIN).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn limited(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> Result<(), String> {
    let Some(from) = from else { return Ok(()) };
    let mut from = from.take(MAX_ANSWER as u64 + 1);
    from.read_to_end(kept).await.map_err(|error| error.to_string())?;
    if kept.len() > MAX_ANSWER {
        return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let pipe = path.join("pipe");
        // Both hold the pipe open as long as they live.
        let hangs = "#!/bin/sh\nexec 3>pipe\necho up >&3\nsh -c 'kill -STOP $$' &\nkill -STOP $$\n";
        std::fs::write(path.join("app"), hangs).unwrap();
        std::fs::set_permissions(path.join("app"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let asking = tokio::spawn(async move { ask(&path, "app", None).await });
        let up = tokio::task::spawn_blocking(move || {
            let mut file = File::open(pipe).unwrap();
            file.read_exact(&mut [0; 3]).unwrap();
            file
        });
        let mut file = up.await.unwrap();
        tokio::time::pause();
        tokio::time::advance(DEADLINE).await;
        let error = asking.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("did not end within 10"), "{error}");
        let ended = tokio::task::spawn_blocking(move || file.read_to_end(&mut Vec::new()));
        assert_eq!(ended.await.unwrap().unwrap(), 0);
    }
}
