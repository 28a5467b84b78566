//! Owns what the system says of the processes that descend from this one: which of them live, and which have
//! ended and wait for somebody to take note of it. It must never end one that does not descend from here.

use std::collections::HashSet;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

/// What every command of a step gets of the environment around it; keys are in none of these.
pub(crate) const ALWAYS_PASSED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Makes processes that outlive their parent children of this one, wherever in its offspring they are. Where
/// the system knows no such thing they become children of its first process, and are not found.
pub(crate) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    {
        // If it is refused, the group of a command is still ended, only not what has left it.
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
    }
}

/// A process of this one's offspring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Relative {
    id: Pid,
    has_ended: bool,
}

/// Every living process that descends from this one, except these children and what descends from them; none
/// when the system does not tell.
pub(crate) fn offspring(except: &HashSet<Pid>) -> Option<Vec<Pid>> {
    let mut found = children_of(getpid())?;
    found.retain(|child| !except.contains(&child.id));
    let mut looked_at = 0;
    while let Some(relative) = found.get(looked_at).copied() {
        looked_at += 1;
        // One that ended meanwhile has handed its children on, to be found at the next look.
        found.extend(children_of(relative.id).unwrap_or_default());
    }
    found.retain(|relative| !relative.has_ended);
    Some(found.into_iter().map(|relative| relative.id).collect())
}

/// Takes note of every child that has ended, except these, whose end somebody else waits for.
pub(crate) fn bury(except: &HashSet<Pid>) {
    let children = children_of(getpid()).unwrap_or_default();
    for child in children.iter().filter(|child| child.has_ended && !except.contains(&child.id)) {
        let _ = waitpid(Some(child.id), WaitOptions::NOHANG);
    }
}

/// Whether this is the first process of a system or of a container, which gets every orphan.
pub(crate) fn is_first() -> bool {
    getpid() == Pid::INIT
}

/// Sends a signal to each of them; one that has ended meanwhile hears nothing.
pub(crate) fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        let _ = kill_process(*process, signal);
    }
}

#[cfg(target_os = "linux")]
fn children_of(parent: Pid) -> Option<Vec<Relative>> {
    // In a namespace of its own, /proc may be that of another one, whose numbers mean other processes.
    let of_this = std::fs::read_link("/proc/self").ok()?;
    if of_this.to_str()?.parse() != Ok(getpid().as_raw_nonzero().get()) {
        return None;
    }
    let mut children = Vec::new();
    let mut is_told = false;
    for thread in std::fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten() {
        // A thread may end between two looks; a kernel without such lists has none for any.
        let Ok(listed) = std::fs::read_to_string(thread.path().join("children")) else { continue };
        let ids = listed.split_ascii_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?));
        children.extend(ids.map(|id| Relative { id, has_ended: has_ended(id) }));
        is_told = true;
    }
    is_told.then_some(children)
}

#[cfg(not(target_os = "linux"))]
fn children_of(_parent: Pid) -> Option<Vec<Relative>> {
    None
}

#[cfg(target_os = "linux")]
fn has_ended(id: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name may hold brackets; the state follows the last of them.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn offspring_is_found_and_its_end_is_noted() {
        let mut child = Command::new("sh").args(["-c", "sleep 300 & wait"]).spawn().unwrap();
        let id = Pid::from_child(&child);
        let mut below = Vec::new();
        while below.is_empty() {
            below = children_of(id).unwrap();
        }
        let sleep = below[0].id;
        let found = offspring(&HashSet::new()).unwrap();
        assert!(found.contains(&id) && found.contains(&sleep));
        let others = offspring(&HashSet::from([id])).unwrap();
        assert!(!others.contains(&id) && !others.contains(&sleep));
        signal(&[id, sleep], Signal::KILL);
        while offspring(&HashSet::new()).unwrap().contains(&id) {
            std::thread::yield_now();
        }
        let is_child = || children_of(getpid()).unwrap().contains(&Relative { id, has_ended: true });
        bury(&HashSet::from([id]));
        assert!(is_child());
        let others = children_of(getpid()).unwrap().into_iter().map(|child| child.id);
        bury(&others.filter(|other| *other != id).collect());
        assert!(!is_child());
        assert!(child.try_wait().is_err(), "its end has been noted already");
    }
}
