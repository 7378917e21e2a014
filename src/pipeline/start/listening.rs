//! The ports on which processes listen, from `/proc`.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::Pid;

use crate::pipeline::process::members;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The TCP ports on which the group listens, in ascending order; `None` on a system without `/proc`.
pub fn listening_ports(group: Pid) -> Option<Vec<u16>> {
    let processes = members(group)?;
    let mut inodes = BTreeSet::new();
    for process in &processes {
        inodes.extend(sockets(process));
    }
    // All processes of the group see the same network, unless one of them has made its own.
    let process = processes.first()?;
    let mut ports = BTreeSet::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = std::fs::read_to_string(process.join(table)).unwrap_or_default();
        let rows = text.lines().filter_map(listening);
        let own = rows.filter(|(inode, _)| inodes.contains(inode));
        ports.extend(own.map(|(_, port)| port));
    }
    Some(ports.into_iter().collect())
}

/// The process that listens on a port: its name and its id. `None` if it cannot be found, for example
/// because it belongs to another user.
pub fn listener(port: u16) -> Option<String> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        let rows = text.lines().filter_map(listening);
        let on_port = rows.filter(|(_, its_port)| *its_port == port);
        inodes.extend(on_port.map(|(inode, _)| inode));
    }
    if inodes.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.map(|process| process.path()).filter(|process| {
        let name = process.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u32>().is_ok())
    });
    let found = processes.find(|process| sockets(process).any(|it| inodes.contains(&it)))?;
    let name = std::fs::read_to_string(found.join("comm")).ok()?;
    let id = found.file_name()?.to_str()?;
    Some(format!("`{}` (pid {id})", name.trim().escape_debug()))
}

/// The inodes of a process's sockets.
fn sockets(process: &Path) -> impl Iterator<Item = String> {
    let files = std::fs::read_dir(process.join("fd"));
    let links = files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter_map(|link| {
        let name = link.to_str()?.strip_prefix("socket:[")?;
        Some(name.strip_suffix(']')?.to_owned())
    })
}

/// Inode and port of a row, if its socket listens.
fn listening(row: &str) -> Option<(String, u16)> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTEN {
        return None;
    }
    let (_, port) = address.rsplit_once(':')?;
    Some(((*inode).to_owned(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn only_listening_sockets_count() {
        let row = |state: &str| {
            format!(
                "   0: 00000000000000000000000000000000:0FA0 00000000000000000000000000000000:0000 \
                 {state} 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000 100"
            )
        };
        assert_eq!(listening(&row("0A")), Some(("12345".into(), 4000)));
        assert_eq!(listening(&row("01")), None);
        assert_eq!(listening("  sl  local_address rem_address   st"), None);
    }
}
