//! Finds out which optional files a script opens.
//!
//! The kernel reports it (inotify): each file is watched for its first opening, so there are never more
//! events than files. If the kernel cannot report it, every file counts as opened.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::disk::Stamp;
use crate::plan::OptionalFile;

/// Watches files while a script runs.
pub struct OpenWatcher {
    files: Vec<WatchedFile>,
    kernel: Option<KernelWatches>,
}

struct WatchedFile {
    file: OptionalFile,
    /// Its stamp before the script runs.
    stamp: Option<Stamp>,
    /// Its inode before the script runs.
    inode: Option<u64>,
}

/// The files that a script has opened.
#[derive(Debug, Default)]
pub struct OpenedFiles {
    /// The names of the files in keys.
    pub names: BTreeSet<String>,
    /// A file that changed meanwhile, so it is not known which content was read.
    pub changed: Option<String>,
}

impl OpenWatcher {
    /// Starts watching these files.
    pub fn begin(files: Vec<OptionalFile>) -> Self {
        let files: Vec<_> = files
            .into_iter()
            .map(|file| WatchedFile {
                stamp: Stamp::of(&file.place),
                inode: inode(&file.place),
                file,
            })
            .collect();
        let places = files.iter().map(|watched| &*watched.file.place);
        Self {
            kernel: KernelWatches::new(places),
            files,
        }
    }

    /// The files that were opened since.
    pub fn end(self) -> OpenedFiles {
        let mut opened = OpenedFiles::default();
        let reported = self.kernel.and_then(KernelWatches::opened);
        for (index, watched) in self.files.into_iter().enumerate() {
            let was_there = watched.stamp.is_some();
            let is_opened = reported
                .as_ref()
                .map_or(was_there, |reported| reported.contains(&index));
            let place = &watched.file.place;
            // A file that was replaced is not watched any more.
            let is_other = inode(place) != watched.inode;
            if is_other || is_opened && Stamp::of(place) != watched.stamp {
                opened.changed = Some(place.display().to_string());
            }
            if is_opened {
                opened.names.insert(watched.file.name);
            }
        }
        opened
    }
}

fn inode(place: &Path) -> Option<u64> {
    place.symlink_metadata().ok().map(|it| it.ino())
}

/// The positions of files by the kernel's watch descriptors.
type WatchNumbers = BTreeMap<i32, Vec<usize>>;

#[cfg(target_os = "linux")]
use inotify::InotifyWatches as KernelWatches;
#[cfg(not(target_os = "linux"))]
use unsupported::NoWatches as KernelWatches;

#[cfg(target_os = "linux")]
mod inotify {
    use std::collections::BTreeSet;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    use rustix::io::Errno;

    use super::WatchNumbers;

    /// Watches of an inotify instance.
    pub struct InotifyWatches {
        inotify: OwnedFd,
        numbers: WatchNumbers,
    }

    impl InotifyWatches {
        /// Watches these files, of which some may be missing; `None` if a watch cannot be added.
        pub fn new<'a>(files: impl Iterator<Item = &'a Path>) -> Option<Self> {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
            let mut numbers = WatchNumbers::new();
            for (index, file) in files.enumerate() {
                match add_watch(&inotify, file, WatchFlags::OPEN | WatchFlags::ONESHOT) {
                    Ok(number) => numbers.entry(number).or_default().push(index),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                    Err(_) => return None,
                }
            }
            Some(Self { inotify, numbers })
        }

        /// The positions of the opened files; `None` if events were lost.
        pub fn opened(self) -> Option<BTreeSet<usize>> {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            let mut opened = BTreeSet::new();
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => return None,
                    Ok(event) if event.events().contains(ReadFlags::OPEN) => {
                        opened.extend(self.numbers.get(&event.wd()).into_iter().flatten());
                    }
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Some(opened),
                    Err(_) => return None,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod unsupported {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A system that does not report opened files.
    pub struct NoWatches;

    impl NoWatches {
        /// Watches nothing.
        pub fn new<'a>(_: impl Iterator<Item = &'a Path>) -> Option<Self> {
            None
        }

        /// Nothing is known.
        pub fn opened(self) -> Option<BTreeSet<usize>> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OpenWatcher, OptionalFile};

    #[test]
    fn opened_and_changed_files_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["read", "linked", "untouched", "written"];
        for name in names {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::hard_link(folder.path().join("linked"), folder.path().join("other")).unwrap();
        let files = names.iter().chain(&["missing"]).map(|name| OptionalFile {
            name: format!("//{name}"),
            place: folder.path().join(name),
        });
        let watch = OpenWatcher::begin(files.collect());
        for _ in 0..3 {
            std::fs::read(folder.path().join("read")).unwrap();
        }
        std::fs::read(folder.path().join("other")).unwrap();
        std::fs::metadata(folder.path().join("untouched")).unwrap();
        let before = watch.end();
        if cfg!(target_os = "linux") {
            let opened: Vec<_> = before.names.iter().map(String::as_str).collect();
            assert_eq!(opened, ["//linked", "//read"]);
            assert_eq!(before.changed, None);
        }
        let files = names.iter().map(|name| OptionalFile {
            name: format!("//{name}"),
            place: folder.path().join(name),
        });
        let watch = OpenWatcher::begin(files.collect());
        std::fs::write(folder.path().join("written"), "other").unwrap();
        let after = watch.end();
        assert!(after.names.contains("//written"));
        assert!(after.changed.unwrap().ends_with("written"));
        // Another file in the same place, never opened under its name.
        let files = names.iter().map(|name| OptionalFile {
            name: format!("//{name}"),
            place: folder.path().join(name),
        });
        let watch = OpenWatcher::begin(files.collect());
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("read")).unwrap();
        assert!(watch.end().changed.unwrap().ends_with("read"));
    }
}
