//! The ports on which apps are published.

use std::collections::BTreeSet;

use ring::rand::{SecureRandom, SystemRandom};

/// The ports that are published. They are fixed, because an app would get another free port whenever it
/// is started again. The system gives none of them to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried for an app.
pub const ATTEMPTS: usize = 20;

/// Chooses free ports.
#[derive(Debug, Default)]
pub struct PortChooser {
    taken: BTreeSet<u16>,
}

impl PortChooser {
    /// A chooser that avoids these ports.
    pub fn new(taken: impl IntoIterator<Item = u16>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
        }
    }

    /// A port that no app of this program has. The engine refuses a port of another program.
    pub fn choose(&mut self) -> u16 {
        let mut bytes = [0; 2];
        // Without a source of randomness, the search begins with the first port.
        let _ = SystemRandom::new().fill(&mut bytes);
        let count = PORTS.end - PORTS.start;
        let first = PORTS.start + u16::from_le_bytes(bytes) % count;
        let mut all = (first..PORTS.end).chain(PORTS.start..first);
        let port = all.find(|port| !self.taken.contains(port)).unwrap_or(first);
        self.taken.insert(port);
        port
    }
}

/// A host and a port as one address. An IPv6 address needs brackets for that.
pub fn socket_address(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Whether an engine's message says that another program has the port.
pub fn is_port_taken(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "already allocated",
        "already in use",
        "ports are not available",
    ]
    .iter()
    .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::socket_address;

    #[test]
    fn an_ipv6_address_with_a_port_has_brackets() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1:80"),
            ("::1", "[::1]:80"),
            ("[fd00::1]", "[fd00::1]:80"),
            ("node.example", "node.example:80"),
        ] {
            assert_eq!(socket_address(host, 80), address);
        }
    }
}
