//! A Docker engine that goes away: a relay between a socket of its own and that of the real engine.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The socket of the engine, if it is an engine of this machine.
pub fn engine_socket() -> Option<String> {
    match std::env::var("DOCKER_HOST") {
        Err(_) => Some("/var/run/docker.sock".into()),
        Ok(host) => host.strip_prefix("unix://").map(str::to_owned),
    }
}

/// A relay to the engine, which can be closed and opened again.
pub struct EngineRelay {
    folder: tempfile::TempDir,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl EngineRelay {
    /// Starts a relay to this socket.
    pub fn new(engine: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let (engine, streams) = (engine.to_owned(), Arc::clone(&open));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = UnixStream::connect(&engine).unwrap();
                streams.lock().unwrap().push(near.try_clone().unwrap());
                let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || copy(near, far));
                std::thread::spawn(move || copy(far_again, near_again));
            }
        });
        Self { folder, open }
    }

    /// Its address, as `DOCKER_HOST` has it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.path("engine.sock").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends all connections. There is no socket until the relay is opened again.
    pub fn close(&self) {
        std::fs::rename(self.path("engine.sock"), self.path("away")).unwrap();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        std::fs::rename(self.path("away"), self.path("engine.sock")).unwrap();
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
