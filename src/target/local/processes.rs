//! The processes of apps, written to a file: after a crash of the background process, the next one ends
//! the apps that are left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

use super::folder;
use crate::pipeline::signal;

/// The leaders of process groups, each with the time of its start, so that a process that has got the
/// same id later is not taken for it.
type Leaders = BTreeMap<u32, String>;

/// The processes of all running apps.
pub struct Processes {
    path: PathBuf,
    leaders: Mutex<Leaders>,
}

impl Processes {
    /// Kills the process groups that the file names, which nothing supervises any more.
    pub fn end_left(path: &Path) -> Self {
        let left: Leaders = folder::read(path).ok().flatten().unwrap_or_default();
        for (process, began) in left {
            if start_of(process).is_some_and(|it| it == began) {
                let group = i32::try_from(process).ok().and_then(Pid::from_raw);
                signal(group, Signal::KILL);
            }
        }
        let processes = Self {
            path: path.to_owned(),
            leaders: Mutex::default(),
        };
        processes.write(&Leaders::new());
        processes
    }

    /// Adds the leader of a group.
    pub fn add(&self, process: Option<u32>) {
        let Some((process, began)) = process.and_then(|it| Some((it, start_of(it)?))) else {
            return;
        };
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.insert(process, began);
        self.write(&leaders);
    }

    /// Removes the leader of a group that has ended.
    pub fn remove(&self, process: Option<u32>) {
        let Some(process) = process else {
            return;
        };
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.remove(&process);
        self.write(&leaders);
    }

    fn write(&self, leaders: &Leaders) {
        // Without the file an app may be left after a crash, and its port stays in use.
        let _ = folder::write(&self.path, leaders);
    }
}

/// When a process started, as the system writes it. `None` if it does not run.
fn start_of(process: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // `pid (name) state …`; the name may contain anything, also brackets.
        let fields = stat.rsplit(") ").next()?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        return (state != "Z").then(|| fields.nth(18).map(str::to_owned))?;
    }
    let id = process.to_string();
    let ps = std::process::Command::new("ps")
        .args(["-o", "lstart=", "-p", &id])
        .output();
    let text = String::from_utf8(ps.ok()?.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::{Processes, start_of};

    fn sleeping() -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn only_the_same_process_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("processes.json");
        let (mut left, mut other) = (sleeping(), sleeping());
        let processes = Processes::end_left(&path);
        processes.add(Some(left.id()));
        processes.add(Some(other.id()));
        let began = start_of(other.id()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let forged = text.replace(
            &format!("\"{}\":\"{began}\"", other.id()),
            &format!("\"{}\":\"1\"", other.id()),
        );
        assert_ne!(forged, text);
        std::fs::write(&path, forged).unwrap();
        Processes::end_left(&path);
        assert!(!left.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
