//! The image stage: one image a unit, built by the Docker engine from a streamed context.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use globset::{GlobBuilder, GlobMatcher};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::context::Context;
use super::docker::{self, Error};
use super::failure::{Io, Settled};
use super::halt::Halt;
use super::prune::{Artifact, FOLDER, files};
use crate::event::{Stage, Unit, bytes};
use crate::plan::{Dockerfile, ImagePlan, Plan, Reference};
use crate::store::UnitId;

/// Images that are built or pushed at the same time; the engine's disk is the bottleneck.
pub const AT_ONCE: usize = 4;

/// Lines of the engine's output that a failure shows.
const TAIL: usize = 20;

/// An image in the engine.
#[derive(Debug, Clone)]
pub struct Image {
    /// Store and app.
    pub unit: UnitId,
    /// Its full name.
    pub reference: Reference,
    /// Bytes, as the engine counts them, base included.
    pub size: u64,
}

impl Image {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}

/// Builds an image of every artifact.
pub async fn run(
    plan: &Plan,
    docker: &Docker,
    artifacts: Vec<Artifact>,
    context: &Arc<Context>,
) -> Settled<Image> {
    let work = artifacts.iter().filter_map(|artifact| {
        let image = plan
            .images
            .iter()
            .find(|image| image.unit == artifact.unit)?;
        Some((artifact, image, image.reference.as_ref()?))
    });
    let halt = Halt::new(context);
    let results: Vec<_> = futures_util::stream::iter(work)
        .map(async |(artifact, image, reference)| {
            let unit = Unit::app(Stage::Image, &artifact.unit);
            let note = |image: &Image| bytes(image.size);
            let work = one(docker, &unit, artifact, image, reference, context);
            let work = context.interrupt.unless_stopped(Error::Interrupted, work);
            halt.unless_halted(unit.clone(), note, work).await
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    results.into_iter().flatten().collect()
}

async fn one(
    docker: &Docker,
    unit: &Unit,
    artifact: &Artifact,
    image: &ImagePlan,
    reference: &Reference,
    context: &Context,
) -> Result<Image, Error> {
    let name = reference.to_string();
    let labels: HashMap<&str, &str> = image
        .labels
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let options = BuildImageOptionsBuilder::default()
        .dockerfile("Dockerfile")
        .t(&name)
        .labels(&labels)
        .rm(true)
        .forcerm(true)
        .build();

    // The context is written while the engine reads it; it is never whole in memory.
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let pack = Pack {
        workdir: artifact.workdir.clone(),
        dockerfile: image.dockerfile.clone(),
        modified: u64::try_from(image.modified).unwrap_or(0),
    };
    // Packing is this program's own time; once it is done, the engine works alone.
    let events = context.events.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack.write(SyncIoBridge::new(writer));
        packed.map(|()| events.outside())
    });
    let body = bollard::body_try_stream(ReaderStream::new(reader));

    let mut output = VecDeque::new();
    let mut failed = None;
    // For a base image that an app's own Dockerfile takes from the same registry.
    let login = context
        .access
        .login(&name)
        .map(|login| HashMap::from([(reference.registry.clone(), login)]));
    let mut stream = docker.build_image(options, login, Some(body));
    while let Some(info) = stream.next().await {
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                failed = Some(docker::message(&error));
                break;
            }
        };
        if let Some(detail) = info.error_detail {
            failed = Some(
                detail
                    .message
                    .unwrap_or_else(|| "no reason was given".into()),
            );
            break;
        }
        for line in info
            .stream
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim().is_empty())
        {
            let line = context.redact(line);
            if output.len() == TAIL {
                output.pop_front();
            }
            output.push_back(line.clone());
            context.events.output(unit, line).await;
        }
    }
    drop(stream);
    // An unreadable file is the cause, the engine's complaint of a short context its effect.
    match packing.await {
        Ok(Err(error))
            if failed.is_none() || error.source.kind() != std::io::ErrorKind::BrokenPipe =>
        {
            return Err(error.into());
        }
        Ok(_) => {}
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    }
    if let Some(message) = failed {
        return Err(classify(
            name,
            context.redact(&message),
            output,
            &artifact.workdir,
        ));
    }
    let inspected = docker
        .inspect_image(&name)
        .await
        .map_err(|error| Error::Request {
            doing: format!("inspect the image `{name}`"),
            message: docker::message(&error),
        })?;
    Ok(Image {
        unit: artifact.unit.clone(),
        reference: reference.clone(),
        size: inspected
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0),
    })
}

fn classify(reference: String, message: String, output: VecDeque<String>, workdir: &Path) -> Error {
    let pull = [
        "pull access denied",
        "manifest unknown",
        "manifest for",
        "lookup ",
        "dial tcp",
        "TLS handshake",
        "failed to resolve",
    ];
    if docker::is_disk_full(&message) {
        Error::DiskFull { message }
    } else if pull.iter().any(|sign| message.contains(sign)) {
        // Only of an app's own Dockerfile: the default's base has been provided before.
        let image = base_of(workdir).unwrap_or_else(|| "(in its Dockerfile)".into());
        Error::Base { image, message }
    } else {
        Error::Build {
            reference,
            message,
            output: output.into(),
            context: workdir.display().to_string(),
        }
    }
}

/// The image after the first `FROM` of an app's own Dockerfile.
fn base_of(workdir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(workdir.join("Dockerfile")).ok()?;
    let mut words = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("FROM "))?
        .split_whitespace();
    words
        .find(|word| !word.starts_with("--"))
        .map(str::to_owned)
}

/// A build context.
struct Pack {
    workdir: PathBuf,
    dockerfile: Dockerfile,
    modified: u64,
}

impl Pack {
    /// Writes it as a tar. Owners, times and modes are the same on every machine, so that the
    /// engine's cache knows files again.
    fn write(self, to: impl std::io::Write) -> Result<(), Io> {
        let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(256 * 1024, to));
        let context = &self.workdir;
        match &self.dockerfile {
            Dockerfile::Default(text) | Dockerfile::Project(_, text) => {
                let mut header = self.header(tar::EntryType::Regular, false);
                header.set_size(text.len() as u64);
                tar.append_data(&mut header, "Dockerfile", text.as_bytes())
                    .map_err(Io::at("send", context))?;
                let folder = context.join(FOLDER);
                for (path, file) in files(&folder, |_| true)? {
                    self.append(&mut tar, &Path::new(FOLDER).join(path), &file)?;
                }
            }
            Dockerfile::App => {
                let ignored = Ignored::read(context);
                for (path, file) in files(context, |_| true)? {
                    let is_needed =
                        path == Path::new("Dockerfile") || path == Path::new(".dockerignore");
                    if is_needed || !ignored.ignores(&path) {
                        self.append(&mut tar, &path, &file)?;
                    }
                }
            }
        }
        let finished = tar
            .into_inner()
            .and_then(|mut writer| std::io::Write::flush(&mut writer));
        finished.map_err(Io::at("send", context))
    }

    fn append(
        &self,
        tar: &mut tar::Builder<impl std::io::Write>,
        path: &Path,
        file: &Path,
    ) -> Result<(), Io> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.symlink_metadata().map_err(Io::at("read", file))?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(file).map_err(Io::at("read", file))?;
            let mut header = self.header(tar::EntryType::Symlink, true);
            return tar
                .append_link(&mut header, path, target)
                .map_err(Io::at("send", file));
        }
        let content = std::fs::File::open(file).map_err(Io::at("read", file))?;
        let mut header = self.header(
            tar::EntryType::Regular,
            metadata.permissions().mode() & 0o100 != 0,
        );
        header.set_size(metadata.len());
        tar.append_data(&mut header, path, content)
            .map_err(Io::at("send", file))
    }

    fn header(&self, kind: tar::EntryType, executable: bool) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(self.modified);
        header.set_size(0);
        header
    }
}

/// `.dockerignore`: globs that count from the context's root. Unlike git's, the last one that
/// matches the path or a folder above it decides, so a file below an ignored folder can be
/// brought back.
struct Ignored(Vec<(bool, GlobMatcher)>);

impl Ignored {
    fn read(context: &Path) -> Self {
        let text = std::fs::read_to_string(context.join(".dockerignore")).unwrap_or_default();
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rules = lines.filter_map(|line| {
            let (ignores, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (false, pattern),
                None => (true, line),
            };
            let pattern = pattern.trim().trim_start_matches("./").trim_matches('/');
            // A pattern that is none is Docker's to complain of; it hides no files here.
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .ok()?;
            Some((ignores, glob.compile_matcher()))
        });
        Self(rules.collect())
    }

    fn ignores(&self, path: &Path) -> bool {
        let matching =
            |(_, glob): &&(bool, GlobMatcher)| path.ancestors().any(|it| glob.is_match(it));
        self.0
            .iter()
            .rev()
            .find(matching)
            .is_some_and(|(ignores, _)| *ignores)
    }
}
