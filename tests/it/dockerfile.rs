//! The meaning of Dockerfiles: Docker's classic builder and `oci::dockerfile` must give equal
//! configs and trees.
//!
//! Most cases use a small base image with difficult paths, so that comparing whole trees is fast.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::dockerfile::{BuildContext, Error, read};
use oci::{BaseTree, FileOwner, FolderAttributes, TreeContent, TreeEntry};
use serde_json::{Value, json};

use crate::support::{Node, Thing, Tree, docker, registry, tree_of};

/// The fields of a config that instructions change.
const KEYS: [&str; 11] = [
    "Env",
    "Entrypoint",
    "Cmd",
    "WorkingDir",
    "User",
    "Labels",
    "ExposedPorts",
    "StopSignal",
    "Healthcheck",
    "Volumes",
    "Shell",
];

/// A label of the small image, which all derived images inherit.
const MARK: &str = "com.alokai.test";

/// An image in the engine, which is removed when this value is dropped.
struct Image {
    id: String,
    is_ours: bool,
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.is_ours {
            remove(&[&self.id]);
            // The images that failed builds leave have the same label.
            let mark = format!("label={MARK}={}", self.id);
            let left = docker(&["images", "--all", "--quiet", "--filter", &mark]);
            remove(&left.lines().collect::<Vec<_>>());
        }
    }
}

fn remove(images: &[&str]) {
    let _ = Command::new("docker")
        .args(["rmi", "--force"])
        .args(images)
        .output();
}

impl Image {
    fn config(&self) -> Value {
        let text = docker(&["image", "inspect", "--format", "{{json .}}", &self.id]);
        let inspected: Value = serde_json::from_str(&text).unwrap();
        json!({ "config": inspected["Config"], "author": inspected["Author"] })
    }
}

/// A small image with difficult paths. Without a name it is removed together with the first image
/// that is derived from it.
fn small_base() -> Image {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("alokai-test-{}:{number}", std::process::id());
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, mode: u32, owner: u64, kind: tar::EntryType, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(0);
        if kind == tar::EntryType::Symlink {
            tar.append_link(&mut header, path, text).unwrap();
        } else {
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    };
    let (folder, file, link) = (
        tar::EntryType::Directory,
        tar::EntryType::Regular,
        tar::EntryType::Symlink,
    );
    put("etc/", 0o755, 0, folder, "");
    let users = "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n\
                 guest:x:405:100::/:/bin/sh\nlost:x:406:100::/:/bin/sh\n";
    put("etc/passwd", 0o644, 0, file, users);
    put(
        "etc/group",
        0o644,
        0,
        file,
        "root:x:0:\nnode:x:1000:\nusers:x:100:\nguest:x:500:\n",
    );
    put("home/", 0o755, 0, folder, "");
    put("home/node/", 0o750, 1000, folder, "");
    put("home/node/kept", 0o600, 1000, file, "kept");
    put("tmp/", 0o1777, 0, folder, "");
    put("usr/", 0o755, 0, folder, "");
    put("usr/bin/", 0o755, 0, folder, "");
    put("usr/bin/tool", 0o755, 0, file, "tool");
    put("bin", 0o777, 0, link, "usr/bin");
    put("var/", 0o711, 7, folder, "");
    put("var/run", 0o777, 0, link, "/run/here");
    put("run/", 0o755, 0, folder, "");
    put("run/here/", 0o700, 7, folder, "");
    put("out", 0o777, 0, link, "../../../home/node/../node");
    put("nowhere", 0o777, 0, link, "/made/by/link");
    put("round", 0o777, 0, link, "round");
    put("full/", 0o755, 0, folder, "");
    put("full/d/", 0o755, 7, folder, "");
    put("full/d/x", 0o644, 7, file, "x");
    put("full/f", 0o644, 7, file, "f");
    put("full/l", 0o777, 7, link, "d");
    let bytes = tar.into_inner().unwrap();
    let mut import = Command::new("docker")
        .args([
            "import",
            "--change",
            "ENV PATH=/usr/bin OLD=old QUOTED=\"a b\"",
        ])
        .args([
            "--change",
            "CMD [\"node\"]",
            "--change",
            "ENTRYPOINT [\"enter\"]",
        ])
        .args([
            "--change",
            &format!("LABEL base=yes {MARK}={name}"),
            "--change",
            "EXPOSE 1/tcp",
            "-",
            &name,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &bytes).unwrap();
    assert!(import.wait_with_output().unwrap().status.success());
    Image {
        id: name,
        is_ours: true,
    }
}

/// A build context on disk. A name that ends in `*` is executable, `a -> b` is a link, and every
/// other name is a file that contains its name.
fn context(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let (name, target) = match file.split_once(" -> ") {
            Some((name, target)) => (name, Some(target)),
            None => (*file, None),
        };
        let path = folder.path().join(name.trim_end_matches('*'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = if name.ends_with('*') { 0o755 } else { 0o644 };
        if let Some(target) = target {
            std::os::unix::fs::symlink(target, &path).unwrap();
        } else {
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    folder
}

fn listed(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    let paths = files.map(walkdir::DirEntry::into_path);
    paths
        .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), path))
        .collect()
}

/// Builds with the engine's classic builder.
fn engine(folder: &Path) -> Result<Image, String> {
    let output = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        // With the cache, a build may share steps with an image that is being removed.
        .args(["build", "--quiet", "--force-rm", "--no-cache"])
        .arg(folder)
        .output()
        .unwrap();
    if output.status.success() {
        Ok(Image {
            id: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            is_ours: true,
        })
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The tree in the form in which layers are read.
fn base_tree(tree: &Tree) -> BaseTree {
    let mut base = BaseTree::default();
    for (path, node) in tree {
        let owner = FileOwner {
            user: u32::try_from(node.owner.0).unwrap(),
            group: u32::try_from(node.owner.1).unwrap(),
        };
        match &node.content {
            Thing::Folder => {
                let folder = FolderAttributes {
                    owner,
                    mode: node.mode,
                };
                base.folders.insert(path.clone(), folder);
            }
            Thing::Link(target) => {
                base.links.insert(path.clone(), target.clone());
            }
            _ => {}
        }
    }
    let lines = |path: &str| match tree.get(path).map(|node| &node.content) {
        Some(Thing::File(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
        _ => String::new(),
    };
    for line in lines("etc/passwd").lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let owner = FileOwner {
            user: fields[2].parse().unwrap(),
            group: fields[3].parse().unwrap(),
        };
        base.users.insert(fields[0].into(), owner);
    }
    for line in lines("etc/group").lines() {
        let fields: Vec<&str> = line.split(':').collect();
        base.groups
            .insert(fields[0].into(), fields[2].parse().unwrap());
    }
    base
}

/// Applies entries to a tree, as an engine unpacks a layer.
fn lay(tree: &mut Tree, entries: &[TreeEntry]) {
    for entry in entries {
        let content = match &entry.content {
            TreeContent::Folder => Thing::Folder,
            TreeContent::Link { target } => Thing::Link(target.clone()),
            TreeContent::File { from, bytes } => {
                let content = std::fs::read(from).unwrap();
                assert_eq!(content.len() as u64, *bytes);
                Thing::File(content)
            }
        };
        if content != Thing::Folder {
            let below = format!("{}/", entry.path);
            tree.retain(|path, _| !path.starts_with(&below));
        }
        if let Some((parent, _)) = entry.path.rsplit_once('/') {
            let parent = tree
                .get(parent)
                .unwrap_or_else(|| panic!("no parent: {}", entry.path));
            assert_eq!(parent.content, Thing::Folder, "parent of {}", entry.path);
        }
        let node = Node {
            content,
            mode: entry.mode,
            owner: (entry.owner.user.into(), entry.owner.group.into()),
        };
        tree.insert(entry.path.clone(), node);
    }
}

/// The fields that instructions change, without empty ones.
fn comparable(config: &Value) -> BTreeMap<String, Value> {
    let is_something = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    let keys = KEYS
        .iter()
        .map(|key| ((*key).to_owned(), config["config"][key].clone()));
    let author = ("author".to_owned(), config["author"].clone());
    keys.chain([author])
        .filter(|(_, value)| is_something(value))
        .collect()
}

/// A base image and its scan.
struct Base {
    image: Image,
    config: Value,
    tree: Tree,
    known: BaseTree,
}

impl Base {
    fn new(image: Image) -> Self {
        let tree = tree_of(&image.id);
        Self {
            config: image.config(),
            known: base_tree(&tree),
            tree,
            image,
        }
    }

    /// Builds with both and compares the images. Returns why both refuse, or the difference.
    fn compare(
        &self,
        dockerfile: &str,
        files: &[&str],
        dockerignore: &str,
    ) -> Result<Option<String>, String> {
        let folder = context(files);
        let text = dockerfile.replace("BASE", &self.image.id);
        std::fs::write(folder.path().join("Dockerfile"), &text).unwrap();
        if !dockerignore.is_empty() {
            std::fs::write(folder.path().join(".dockerignore"), dockerignore).unwrap();
        }
        let own = read(&text).map_err(Error::from).and_then(|recipe| {
            assert_eq!(recipe.base(), Some(self.image.id.as_str()));
            let context =
                BuildContext::new(folder.path(), listed(folder.path()), Some(dockerignore))?;
            recipe.apply(&self.config, &self.known, &context)
        });
        match (engine(folder.path()), own) {
            (Err(_), Err(error)) => {
                let place = folder.path().to_str().unwrap();
                Ok(Some(error.to_string().replace(place, "(context)")))
            }
            (Ok(_), Err(error)) => Err(format!("only the engine does it: {error}")),
            (Err(error), Ok(_)) => Err(format!("only we do it: {error}")),
            (Ok(image), Ok(applied)) => {
                let (theirs, ours) = (comparable(&image.config()), comparable(&applied.config));
                let mut wrong = Vec::new();
                for key in theirs.keys().chain(ours.keys()) {
                    if theirs.get(key) != ours.get(key) {
                        wrong.push(format!(
                            "{key}: {:?}, not {:?}",
                            ours.get(key),
                            theirs.get(key)
                        ));
                    }
                }
                let theirs = tree_of(&image.id);
                let mut ours = self.tree.clone();
                lay(&mut ours, &applied.entries);
                for path in theirs.keys().chain(ours.keys()) {
                    let below = format!("{path}/");
                    // Docker's client sends folders that are empty because of `.dockerignore`.
                    let is_below = |(other, node): (&String, &Node)| {
                        other.starts_with(&below) && node.content != Thing::Folder
                    };
                    let is_folder = |node: &Node| node.content == Thing::Folder;
                    if !dockerignore.is_empty()
                        && theirs.get(path).is_some_and(is_folder)
                        && !theirs.iter().any(is_below)
                    {
                        continue;
                    }
                    if theirs.get(path) != ours.get(path) {
                        wrong.push(format!(
                            "{path}: {:?}, not {:?}",
                            ours.get(path),
                            theirs.get(path)
                        ));
                    }
                }
                if wrong.is_empty() {
                    Ok(None)
                } else {
                    wrong.dedup();
                    Err(wrong.join("\n  "))
                }
            }
        }
    }

    /// Compares many cases in parallel, since the engine mostly waits. Returns the errors of the
    /// cases that both refuse.
    fn compare_all(&self, cases: &[(&str, &[&str], &str)]) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let (wrong, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((text, files, ignore)) =
                        cases.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        match self.compare(text, files, ignore) {
                            Ok(None) => {}
                            Ok(Some(why)) => failed.lock().unwrap().push(why),
                            Err(why) => wrong.lock().unwrap().push(format!("{text}\n  {why}")),
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        let mut failed = failed.into_inner().unwrap();
        failed.sort();
        failed
    }
}

/// The files that most cases copy.
const FILES: &[&str] = &[
    "f",
    "run*",
    "d/a",
    "d/sub/b*",
    "d/sub/l -> ../a",
    "d/out -> /f",
    "e/a",
    "e/sub/c",
    "link -> d/a",
    "folder-link -> d",
    "root-link -> /e/sub",
    "broken -> nothing",
    "glob/x1.js",
    "glob/x2.js",
    "glob/y.ts",
    "glob/z/x1.js",
    "odd/[x]",
    "odd/a b",
    "bin/new",
    "full/d",
    "full/f/inside",
    "full/l/inside",
    "tmp/g",
];

#[test]
fn copies_as_the_engine_does() {
    if registry().is_none() {
        return;
    }
    let base = Base::new(small_base());
    let case = |text| (text, FILES, "");
    let failed = base.compare_all(&[
        // Files and folders, new and old.
        case("FROM BASE\nCOPY f /n1/n2/f\nCOPY f /n3/\nCOPY f /tmp\nCOPY f /tmp/\nCOPY run d/a /m/"),
        case("FROM BASE\nCOPY --chown=node f /n1/n2/f\nCOPY --chown=node d /m1/m2/m3\nCOPY --chown=guest d /home/node"),
        case("FROM BASE\nCOPY --chown=7:8 d e /x/\nCOPY d/ /x/deep/er\nCOPY d/sub/ /x/"),
        case("FROM BASE\nWORKDIR /w1/w2\nCOPY --chown=node d ./\nCOPY --chown=node f .\nCOPY --chown=node e sub\nCOPY f ../up"),
        case("FROM BASE\nWORKDIR /w\nWORKDIR a/../b\nWORKDIR ./c/\nCOPY f .\nWORKDIR /x/../y/.//\nCOPY f z/\nWORKDIR /home/node"),
        case("FROM BASE\nCOPY . /all/\nCOPY ./ /all2\nCOPY / /all3\nCOPY d /"),
        case("FROM BASE\nCOPY --chown=guest:users f /a\nCOPY --chown=guest f /b\nCOPY --chown=0:node f /c\nCOPY --chown=5 f /d"),
        case("FROM BASE\nCOPY [\"odd/a b\", \"/s p/\"]\nCOPY [\"f\", \"/exec\"]"),
        case("FROM BASE\nADD d /d/\nADD f run /x/"),
        // Destinations to which nothing can be copied.
        case("FROM BASE\nCOPY nope /x/"),
        case("FROM BASE\nCOPY f nope /x/"),
        case("FROM BASE\nCOPY no* /x/"),
        case("FROM BASE\nCOPY f run /x"),
        case("FROM BASE\nCOPY glob/*.js /x"),
        case("FROM BASE\nCOPY ../f /x"),
        case("FROM BASE\nCOPY f /../x"),
        case("FROM BASE\nCOPY broken /x"),
        case("FROM BASE\nCOPY f/x /x"),
        case("FROM BASE\nCOPY f /f\nCOPY d /f"),
        case("FROM BASE\nCOPY f /f\nCOPY d /f/x"),
        case("FROM BASE\nCOPY f /f\nCOPY f /f/x"),
        case("FROM BASE\nCOPY f /round"),
        case("FROM BASE\nCOPY --chown=nobody f /x"),
        case("FROM BASE\nCOPY --chown=lost f /x"),
        case("FROM BASE\nCOPY --chown=:node f /x"),
        case("FROM BASE\nCOPY --chown=node: f /x"),
        case("FROM BASE\nCOPY --chown=node:node:node f /x"),
        case("FROM BASE\nCOPY f /f\nWORKDIR /f/x"),
        case("FROM BASE\nCOPY f /f\nWORKDIR /f"),
        // Patterns.
        case("FROM BASE\nCOPY glob/*.js glob/y* /x/\nCOPY */x?.js /y/\nCOPY no* f /z/"),
        case("FROM BASE\nCOPY glob/[xz]* /x/\nCOPY glob/[^x]* /y/\nCOPY odd/[[]x] /z\nCOPY glob/x[0-1].js /w"),
        case("FROM BASE\nCOPY d* /x/\nCOPY */a /y/\nCOPY */*/x1.js /z/"),
        case("FROM BASE\nCOPY ./glob/*.js /x/\nCOPY /glob/*.ts /y"),
        case("FROM BASE\nCOPY d*/ /x/"),
        case("FROM BASE\nCOPY glob/[x /x/"),
        // Links on both sides.
        case("FROM BASE\nCOPY link /x/\nCOPY link /y\nCOPY folder-link /z/\nCOPY root-link /r\nCOPY folder-link/sub/b /s"),
        case("FROM BASE\nCOPY f /bin/\nCOPY f /bin/g\nCOPY f /var/run/x\nCOPY f /out\nCOPY f /nowhere/"),
        case("FROM BASE\nCOPY f /nowhere\nCOPY f /bin/tool\nCOPY d /out/new"),
        case("FROM BASE\nCOPY d /d\nCOPY f /d/out\nCOPY f /d/sub/l\nCOPY f /d/sub"),
        case("FROM BASE\nCOPY d/out /full/l\nWORKDIR /bin/x\nWORKDIR /nowhere\nCOPY f ."),
        // Which entry replaces which.
        case("FROM BASE\nCOPY bin /bin\nCOPY . /"),
        case("FROM BASE\nCOPY --chown=3 full /full\nCOPY f /full/d"),
        case("FROM BASE\nCOPY tmp /tmp\nCOPY --chown=9 . /\nCOPY f /bin/x"),
        case("FROM BASE\nCOPY e /d\nCOPY d /d\nCOPY --chown=node e /d"),
    ]);
    insta::assert_snapshot!(failed.join("\n"));
}

#[test]
fn configs_are_what_the_engine_makes_of_them() {
    if registry().is_none() {
        return;
    }
    let base = Base::new(small_base());
    let case = |text| (text, ["f"].as_slice(), "");
    let failed = base.compare_all(&[
        case("FROM BASE\nENV A=1 B=$A C=\"x $OLD\" D='$OLD' E=a\\ b F=${OLD}er\nENV A=2 B=$A\nENV G $A  b  \"c d\"  \nENV PATH=/x:$PATH"),
        case("FROM BASE\nENV A=\nLABEL a=${A:-d} b=${A:+p} c=${OLD:-d} d=${OLD:+p} e=${NO:-${OLD}} f=${NO:-\"q r\"} g=\"${NO:-'q'}\" h=${OLD:?why} i=${A:-a:b}"),
        case("FROM BASE\nLABEL a=$$ b=$1x c=$ d=\"$\" e=$- f=\\$OLD g='\\$OLD' h=\"\\$OLD \\x \\\\ \\\"\" i=a\"b\"'c'd j=$OLD$OLD k=${OLD}x$OLDx l=$OLD.x m=\"'$OLD'\""),
        case("FROM BASE\nLABEL \"a b\"=c \\\n  multi=\"x\\\ny\" \\\n  # a comment\n\n  last=z\nLABEL old style  value\nLABEL $OLD=k base=no"),
        case("# escape=`\nFROM BASE\nLABEL a=`$OLD b=\"x`\"y\" c=\\$OLD `\n d=e\nWORKDIR c:\\x\nCMD echo `\n  more"),
        case("ARG G=1\nARG H=${G}2\nFROM BASE\nARG A=a B C=$A\nARG G\nARG OLD=arg\nLABEL a=$A b=$B c=$C g=$G h=$H old=$OLD\nENV A=env\nARG A=later\nLABEL a2=$A\nARG D=$A\nLABEL d=$D\nARG HTTP_PROXY\nLABEL p=x$HTTP_PROXY"),
        case("FROM BASE\nEXPOSE 80 90-92/UDP 80/tcp 7/sctp\nENV P=\"1000 1001/udp\" Q=5\nEXPOSE $P ${Q}0 \"$Q\" 8\\0"),
        case("FROM BASE\nENTRYPOINT [\"a\", \"$OLD\", \"\\u00e9\\n\"]"),
        case("FROM BASE\nCMD [\"a\"]\nENTRYPOINT [\"b\"]"),
        case("FROM BASE\nENTRYPOINT exec $OLD \"a  b\"  c # no comment\nCMD [ \"x\" , \"y\" ]  "),
        case("FROM BASE\nCMD [\"a\", b]\nENTRYPOINT ['a']"),
        case("FROM BASE\nCMD []"),
        case("FROM BASE\nCMD echo a \\\n   b \\  \n  # comment\n\n\tc"),
        case("FROM BASE\nCMD [\"a\", \\\n  \"b\"]"),
        case("from BASE as Name\nuser node\nWorkDir x\nStopSignal SIGQUIT\nmaintainer some one <a@b>"),
        case("FROM BASE\nUSER $OLD:users\nUSER 7:8 \nSTOPSIGNAL 9\nVOLUME /a /b/ $OLD\nVOLUME [\"/c d\", \"/$OLD\"]\nCOPY f /a/"),
        case("FROM BASE\nVOLUME [\"/home/node\"]\nCOPY --chown=node f /home/node/x"),
        case("FROM BASE\nHEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=500ms --retries=4 CMD curl  $OLD || exit 1"),
        case("FROM BASE\nHEALTHCHECK --interval=1h0.5m CMD [\"a\", \"b\"]"),
        case("FROM BASE\nHEALTHCHECK --interval= --retries= CMD a\nHEALTHCHECK NONE"),
        case("FROM BASE\nWORKDIR \"/a b\"\nWORKDIR $OLD\nWORKDIR ${NO:-x}/../y\nENV Z=$NO"),
        case("FROM --platform=linux/amd64 BASE\nENV A=1"),
        case("\u{feff}FROM BASE\r\nENV A=1\r\nCMD a \\\r\n b\r\nCOPY f /x\r\n"),
        case("FROM BASE\nENV a=b c"),
        case("FROM BASE\nWORKDIR $NO"),
        case("FROM BASE\nLABEL $NO=x"),
        case("FROM BASE\nENV $NO=x"),
        case("FROM BASE\nLABEL a=${NO:?give it} "),
        case("FROM BASE\nCOPY $NO /x"),
        case("FROM BASE\nCOPY f $NO"),
        case("FROM BASE\nENV F=f T=/t\nCOPY --chown=${NO:-node} ${F} $T/"),
    ]);
    insta::assert_snapshot!(failed.join("\n"));
}

/// Files for the cases of `.dockerignore`.
const TREE: &[&str] = &[
    "a",
    "b.log",
    "keep",
    "x/a",
    "x/b.log",
    "x/keep",
    "x/y/a",
    "x/y/b.log",
    "x/y/keep",
    "node_modules/p/a",
    "node_modules/p/keep",
    "z/node_modules/q",
    "z/#odd",
    "#odd",
    "!odd",
    "w/one/two/three",
    "w/one/two.js",
    "w/four.js",
    ".env",
    "x/.env",
];

#[test]
fn dockerignore_hides_what_it_hides_from_the_engine() {
    if registry().is_none() {
        return;
    }
    let base = Base::new(small_base());
    let text = "FROM BASE\nCOPY . /all/";
    let ignores = [
        "a\n*.log",
        "**/a\n**/*.log\n!x/y/b.log",
        "x\n!x/keep",
        "x\n!x/y/keep\n!**/a",
        "*\n!x\nx/y",
        "*\n!**/keep",
        "/a\n/x/y/\n./x/keep\n  keep  ",
        "node_modules\n!**/keep",
        "**/node_modules",
        "# comment\n #odd\nz/#odd\n\\!odd",
        "**\n!x/y/a",
        "**/one\n!w/one/two/three",
        "w/**/three\nx/**\n!x/y",
        "**/*.js\nw/*/two\n**/.env*",
        "x/?\n[ab]\nx/[^a]*/keep",
        "Dockerfile\n.dockerignore\na",
        "*\n!a\n!Dockerfile",
        "x/../a\n\n/\n",
        "w**\n!w/four.js",
        "**a\n**og\n**k?ep\n**/*ee**",
        "**lo[g]\n**\\*",
        "**",
        "x/y/**\n!x/**/keep",
        "w/**o/*\n**/y/**",
        "x*/**/k*p\nw/**/**/two*",
        "!keep\n*eep\n!x/keep",
        ".",
        "x/\n!x/y/\nx/y/a",
        "\u{feff}a\r\nb.log\r\n",
    ];
    let cases: Vec<_> = ignores.iter().map(|ignore| (text, TREE, *ignore)).collect();
    let failed = base.compare_all(&cases);
    assert_eq!(failed, [""; 0]);
    let hidden = ("FROM BASE\nCOPY a /x", TREE, "a");
    let hidden_below = ("FROM BASE\nCOPY x/y /x", TREE, "x/*");
    let failed = base.compare_all(&[hidden, hidden_below]);
    assert_eq!(failed.len(), 2);
}

#[test]
fn the_default_dockerfile_on_the_real_base_image() {
    let Some(registry) = registry() else {
        return;
    };
    let base = Base::new(Image {
        id: registry.base,
        is_ours: false,
    });
    let text = "FROM BASE\n\
         ENV NODE_ENV=production PORT=3000 HOSTNAME=0.0.0.0\n\
         WORKDIR /var/www\n\
         COPY --chown=node:node ./.deploy/ ./\n\
         USER node\n\
         EXPOSE 3000\n\
         ENTRYPOINT [\"node\", \"server.js\"]\n";
    let files = [
        ".deploy/server.js",
        ".deploy/bin/run*",
        ".deploy/now -> bin/run",
    ];
    assert_eq!(base.compare(text, &files, ""), Ok(None));
}
