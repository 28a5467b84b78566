//! Owns whether a command could start at all. It must never start it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where a command is looked for when the environment does not say it, as the system does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// How much of a file tells what kind of program it is; the system looks at no more.
const HEAD_BYTES: u64 = 256;

/// Says why a command cannot start, if that can be seen from outside.
pub(super) fn check(program: &Path, path: Option<&OsStr>) -> Result<(), String> {
    let file = find(program, path).ok_or_else(|| format!("There is no command '{}'.", program.display()))?;
    if access(&file, Access::EXEC_OK).is_err() {
        return Err(format!("'{0}' is not executable: run 'chmod +x {0}'.", file.display()));
    }
    let mut head = Vec::new();
    // One that may be executed but not read is left to the system.
    let _ = File::open(&file).map(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    match interpreter(&head) {
        Some(interpreter) if access(&interpreter, Access::EXEC_OK).is_err() => Err(format!(
            "'{}' is a script for '{}', which is not there or not executable.",
            file.display(),
            interpreter.display()
        )),
        None if is_plain_text(&head) => Err(format!(
            "'{}' is a text without a first line that says how to run it, such as '#!/bin/sh'.",
            file.display()
        )),
        _ => Ok(()),
    }
}

/// The file that the system would run, or the one that it would refuse to.
fn find(program: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.components().count() > 1 || program.is_absolute() {
        return program.is_file().then(|| program.to_owned());
    }
    let folders = path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
    let files =
        || std::env::split_paths(folders).map(|folder| folder.join(program)).filter(|it| it.is_file());
    files().find(|file| access(file, Access::EXEC_OK).is_ok()).or_else(|| files().next())
}

fn interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.split_whitespace().next().map(PathBuf::from)
}

/// Programs of any kind hold other bytes than these, near their beginning.
fn is_plain_text(head: &[u8]) -> bool {
    !head.is_empty()
        && !head.starts_with(b"#!")
        && head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn file(folder: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_command_is_found_as_the_system_finds_it() {
        let path = std::env::var_os("PATH");
        for there in ["sh", "/bin/sh"] {
            assert_eq!(check(Path::new(there), path.as_deref()), Ok(()));
        }
        assert_eq!(check(Path::new("sh"), None), Ok(()));
        for missing in ["no-such-command", "./no/such", "", "/bin"] {
            assert!(check(Path::new(missing), path.as_deref()).unwrap_err().contains("no command"));
        }
    }

    #[test]
    fn what_the_system_would_refuse_to_run_is_refused_with_the_reason() {
        let folder = TempDir::new().unwrap();
        let refused = |path: &Path| check(path, None).unwrap_err();
        assert!(refused(&file(&folder, "closed", "#!/bin/sh\n", 0o644)).contains("chmod +x"));
        assert!(refused(&file(&folder, "nowhere", "#! /no/such -x\n", 0o755)).contains("'/no/such'"));
        assert!(refused(&file(&folder, "bare", "echo ok\n", 0o755)).contains("#!/bin/sh"));
        assert_eq!(check(&file(&folder, "script", "#!/bin/sh -e\n", 0o755), None), Ok(()));
    }

    #[test]
    fn a_file_that_may_be_run_wins_over_an_earlier_one_that_may_not() {
        let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        file(&first, "agent", "#!/bin/sh\n", 0o644);
        let open = file(&second, "agent", "#!/bin/sh\n", 0o755);
        let path = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert_eq!(find(Path::new("agent"), Some(&path)), Some(open));
    }
}
