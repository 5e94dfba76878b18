//! Which executable an upgrade starts, and whether it would take the configuration.
use std::{
    io::{self, Read},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

use super::Failure;

/// What is kept of what a checking process says.
const SAID: u64 = 64 * 1024;
const LOOK: Duration = Duration::from_millis(10);

/// As this process was called: where a link stands there, an upgrade follows it anew. A name that was
/// looked up in `PATH` is the file that was found.
pub fn of_this_process() -> Option<PathBuf> {
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.filter(|it| it.components().count() > 1);
    let called = called.and_then(|it| std::path::absolute(it).ok()).filter(|it| it.is_file());
    called.or_else(|| std::env::current_exe().ok())
}

/// A file that was named over the admin API, if nobody but root and this user can have put it there:
/// whoever reaches the API must not be able to have code of his own run.
pub fn trusted(named: &Path) -> Result<PathBuf, Failure> {
    let refuse = |why: &str| Failure::Program(format!("{}: {why}", named.display()));
    if !named.is_absolute() {
        return Err(refuse("the path is not absolute"));
    }
    let real = named.canonicalize().map_err(|why| refuse(&why.to_string()))?;
    let us = geteuid().as_raw();
    for (depth, path) in real.ancestors().enumerate() {
        let metadata = path.symlink_metadata().map_err(|why| refuse(&why.to_string()))?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if depth == 0 && !metadata.is_file() {
            return Err(refuse("it is no file"));
        }
        // In a sticky folder, such as /tmp, only the owner of a file can replace it.
        let is_sticky = depth > 0 && mode & 0o1000 != 0;
        let is_writable = mode & 0o022 != 0 && !is_sticky;
        if (owner != 0 && owner != us) || is_writable {
            let path = path.display();
            return Err(refuse(&format!("others than root and this user can change {path}")));
        }
    }
    // Not as it was named: a link in that path may be somebody else's, and be moved before it is run.
    Ok(real)
}

/// Its own process group, so that what it has started ends with it.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Of this process, not of the next.
    command.process_group(0).env_remove("WATCHDOG_PID");
    command
}

/// Ends a process that has not been waited for, and all that it has started.
pub fn kill(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}

pub fn start(mut command: Command, program: &Path) -> Result<Child, Failure> {
    let failed = |why: io::Error| Failure::Program(format!("{}: {why}", program.display()));
    command.spawn().map_err(failed)
}

/// Asks the executable whether it would run with this configuration.
pub fn check(
    program: &Path,
    config: &Path,
    patience: Duration,
    is_called_off: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let (said, saying) = io::pipe().map_err(Failure::Io)?;
    let mut command = command(program);
    command.args(["check", "-c"]).arg(config).stdin(Stdio::null());
    command.stdout(saying.try_clone().map_err(Failure::Io)?).stderr(saying);
    let mut child = start(command, program)?;
    // `command` is gone, and with it our copies of the writing end: the reader ends with the process.
    let (tell, told) = mpsc::channel();
    let reading = thread::Builder::new().name("check".to_owned()).spawn(move || {
        let mut text = Vec::new();
        let _ = said.take(SAID).read_to_end(&mut text);
        let _ = tell.send(String::from_utf8_lossy(&text).trim().to_owned());
    });
    let status = wait(&mut child, patience, is_called_off).and_then(|status| {
        reading.map_err(Failure::Io)?;
        Ok(status)
    });
    let status = match status {
        Ok(status) => status,
        Err(why) => {
            kill(&mut child);
            return Err(why);
        }
    };
    if status.success() {
        return Ok(());
    }
    // What the process may have started can hold the pipe open.
    let said = told.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Err(Failure::Check { program: program.to_owned(), status, said })
}

fn wait(
    child: &mut Child,
    patience: Duration,
    is_called_off: &dyn Fn() -> bool,
) -> Result<ExitStatus, Failure> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::Io)? {
            return Ok(status);
        }
        if is_called_off() {
            return Err(Failure::Stopping);
        }
        if Instant::now() >= until {
            return Err(Failure::Late { what: "the check of the configuration", patience });
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    /// A shell script, and what came of the check with it.
    fn check_with(script: &str, mode: u32, patience: Duration) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        let result = check(&program, Path::new("/a/b.yaml"), patience, &|| false);
        result.map_err(|why| why.to_string().replace(&*program.to_string_lossy(), "PROGRAM"))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_check_is_asked_for_and_believed() {
        let expected = r#"test "$*" = "check -c /a/b.yaml""#;
        assert_eq!(check_with(expected, 0o755, LONG), Ok(()));
        let said = check_with("echo one; echo two >&2; exit 2", 0o755, LONG).unwrap_err();
        assert_eq!(said, "PROGRAM does not take the configuration (exit status: 2):\none\ntwo");
        let said = check_with("sleep 5 & exit 1", 0o755, LONG).unwrap_err();
        assert!(said.starts_with("PROGRAM does not take the configuration"), "{said}");
    }

    #[test]
    fn a_check_that_never_ends_is_ended() {
        let said = check_with("sleep 600", 0o755, Duration::from_millis(50)).unwrap_err();
        assert_eq!(said, "the check of the configuration took longer than 50ms");
    }

    #[test]
    fn what_cannot_be_started_is_said() {
        let said = check_with("true", 0o644, LONG).unwrap_err();
        assert_eq!(said, "PROGRAM: Permission denied (os error 13)");
    }

    #[test]
    fn only_what_nobody_else_can_change_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        fs::write(&file, "").unwrap();
        let check = |folder_mode, mode, expected: bool| {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
            assert_eq!(trusted(&file).is_ok(), expected, "{folder_mode:o} {mode:o}");
        };
        check(0o755, 0o755, true);
        check(0o755, 0o757, false);
        check(0o755, 0o775, false);
        check(0o777, 0o755, false);
        check(0o1777, 0o755, true);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(trusted(Path::new("program")).is_err(), "relative");
        assert!(trusted(folder.path()).is_err(), "a folder");
        assert!(trusted(&folder.path().join("none")).is_err(), "nothing");
    }
}
