//! An app from its image: the layers above the base image, unpacked and started on this machine.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use crate::pipeline::Io;
use oci::{Blobs, Descriptor, Digest, Layout, Manifest};

/// The start of the history entries of layers that this program has packed.
const OWN_LAYER: &str = "alokai: ";

/// The entrypoint of the official Node images. It executes its arguments.
const OFFICIAL_ENTRYPOINT: &str = "docker-entrypoint.sh";

/// Shells of images, which are the shell of this machine here.
const SHELLS: [&str; 3] = ["sh", "/bin/sh", "/usr/bin/sh"];

/// Names of Node in images, which is the Node of this machine here.
const NODES: [&str; 4] = ["node", "nodejs", "/usr/local/bin/node", "/usr/bin/node"];

/// Variables of images that do not hold on this machine.
const SYSTEM_VARIABLES: [&str; 5] = ["PATH", "HOME", "NODE_VERSION", "YARN_VERSION", "NODE_PATH"];

/// What an image says about the app that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalImage {
    /// Its name, for messages.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The folder with its blobs.
    pub blobs: PathBuf,
    /// The layers above the base image, from the lowest to the highest.
    pub layers: Vec<Descriptor>,
    /// Entrypoint and arguments.
    pub command: Vec<String>,
    /// The folder in which the command runs, as a path in the image.
    pub workdir: String,
    /// The variables of the image.
    pub variables: BTreeMap<String, String>,
}

/// An image that cannot run on this machine.
fn unusable(reference: &str, reason: impl Into<String>) -> Error {
    Error::Image {
        reference: reference.to_owned(),
        reason: reason.into(),
    }
}

impl LocalImage {
    /// Reads an image of a layout. A relative folder is relative to the project.
    pub fn in_layout((reference, digest): (&str, &str), folder: &Path) -> Result<Self, Error> {
        let layout = Layout::open(folder)?;
        let blobs = layout.blobs();
        let parsed: Digest = digest
            .parse()
            .map_err(|_| unusable(reference, format!("`{digest}` is not a valid digest")))?;
        let path = blobs.path(&parsed);
        let size = path.metadata().map_err(Io::at("read", &path))?.len();
        let manifest = Descriptor::new(oci::MANIFEST, parsed, size);
        let manifest: Manifest = parse(reference, &blobs.read(&manifest)?)?;
        let config: Value = parse(reference, &blobs.read(&manifest.config)?)?;
        Self::new((reference, digest), &manifest, &config, blobs.folder())
    }

    /// Reads manifest and config. `blobs` is the folder in which the layers are, or will be.
    pub fn new(
        (reference, digest): (&str, &str),
        manifest: &Manifest,
        config: &Value,
        blobs: &Path,
    ) -> Result<Self, Error> {
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(|it| it.as_str().map(str::to_owned))
                .collect()
        };
        let run = &config["config"];
        let mut command = texts(&run["Entrypoint"]);
        command.retain(|word| word.rsplit('/').next() != Some(OFFICIAL_ENTRYPOINT));
        command.extend(texts(&run["Cmd"]));
        if command.is_empty() {
            return Err(unusable(reference, "it has no command"));
        }
        let variables = texts(&run["Env"]);
        let variables = variables.iter().filter_map(|it| it.split_once('='));
        let variables = variables.filter(|(name, _)| !SYSTEM_VARIABLES.contains(name));
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self {
            layers: own_layers(reference, manifest, config)?,
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            blobs: blobs.to_owned(),
            command,
            workdir: run["WorkingDir"].as_str().unwrap_or("/").to_owned(),
            variables: variables.collect(),
        })
    }

    /// Unpacks the layers into a folder, and checks that the command can run there.
    pub fn unpack(&self, to: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(to).map_err(Io::at("create the folder", to))?;
        let blobs = Blobs::new(&self.blobs);
        for layer in &self.layers {
            oci::unpack(layer, &blobs, to)?;
        }
        let workdir = self.workdir(to);
        std::fs::create_dir_all(&workdir).map_err(Io::at("create the folder", &workdir))?;
        self.command(to).map(drop)
    }

    /// The folder in which the command runs, below the unpacked folder.
    pub fn workdir(&self, unpacked: &Path) -> PathBuf {
        unpacked.join(within(&self.workdir))
    }

    /// Program and arguments on this machine. A word that is the path of a file of the app becomes its
    /// path below the unpacked folder.
    pub fn command(&self, unpacked: &Path) -> Result<Vec<String>, Error> {
        let mut words = self.command.iter().map(|word| self.place(unpacked, word));
        let program = match (words.next(), self.command.first()) {
            (_, Some(word)) if NODES.contains(&&**word) => "node".to_owned(),
            (_, Some(word)) if SHELLS.contains(&&**word) => "sh".to_owned(),
            (Some(Some(placed)), _) => placed,
            (_, Some(word)) => {
                let own = self.workdir(unpacked).join(word);
                if !word.contains('/') || !own.is_file() {
                    return Err(unusable(
                        &self.reference,
                        format!("its command `{word}` is a program of the base image"),
                    ));
                }
                word.clone()
            }
            (_, None) => return Err(unusable(&self.reference, "it has no command")),
        };
        let rest = self.command.iter().skip(1).zip(words);
        let rest = rest.map(|(word, placed)| placed.unwrap_or_else(|| word.clone()));
        Ok(std::iter::once(program).chain(rest).collect())
    }

    /// The variables on this machine.
    pub fn variables(&self, unpacked: &Path) -> BTreeMap<String, String> {
        let variables = self.variables.iter().map(|(name, value)| {
            let placed = self.place(unpacked, value);
            (name.clone(), placed.unwrap_or_else(|| value.clone()))
        });
        variables.collect()
    }

    /// The path of a file or folder of the app below the unpacked folder, if the text is an absolute
    /// path of one.
    #[allow(clippy::unused_self, reason = "it belongs to the image's paths")]
    fn place(&self, unpacked: &Path, text: &str) -> Option<String> {
        let inside = within(text);
        if !text.starts_with('/') || inside.as_os_str().is_empty() {
            return None;
        }
        let path = unpacked.join(inside);
        path.symlink_metadata().ok()?;
        path.to_str().map(str::to_owned)
    }
}

/// A path of an image without its root, and without `..`.
fn within(path: &str) -> PathBuf {
    let parts = Path::new(path).components();
    let parts = parts.filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}

fn parse<T: serde::de::DeserializeOwned>(reference: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| unusable(reference, format!("its manifest is not valid: {error}")))
}

/// The layers that this program has packed on top of those of the base image, by the image's history.
fn own_layers(
    reference: &str,
    manifest: &Manifest,
    config: &Value,
) -> Result<Vec<Descriptor>, Error> {
    let history = config["history"].as_array();
    let with_layer = history
        .into_iter()
        .flatten()
        .filter(|step| step["empty_layer"] != true);
    let made_by: Vec<&str> = with_layer
        .map(|step| step["created_by"].as_str().unwrap_or_default())
        .collect();
    let is_own = |made_by: &&&str| made_by.starts_with(OWN_LAYER);
    let own = made_by.iter().rev().take_while(is_own).count();
    if own == 0 || own > manifest.layers.len() {
        return Err(unusable(
            reference,
            "the Docker engine has built it, so its app cannot be separated from its base image",
        ));
    }
    Ok(manifest.layers[manifest.layers.len() - own..].to_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::LocalImage;
    use oci::{CONFIG, Descriptor, LAYER, Manifest};

    fn image(run: &Value, history: &Value) -> Result<LocalImage, String> {
        let layers = ["a", "b", "c"].map(|text| Descriptor::of(LAYER, text.as_bytes()));
        let manifest = Manifest::new(Descriptor::of(CONFIG, b"{}"), layers.to_vec());
        let config = json!({ "config": run, "history": history });
        let name = ("registry.example/us:1", "sha256:00");
        LocalImage::new(name, &manifest, &config, Path::new("/blobs"))
            .map_err(|error| error.to_string())
    }

    fn history() -> Value {
        json!([
            { "created_by": "the base" },
            { "created_by": "WORKDIR /app # alokai", "empty_layer": true },
            { "created_by": "alokai: the framework" },
            { "created_by": "alokai: the app" },
        ])
    }

    fn command(run: &Value, files: &[&str]) -> Result<Vec<String>, String> {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let image = image(run, &history()).unwrap();
        let command = image.command(root.path()).map_err(|it| it.to_string())?;
        let root = root.path().to_str().unwrap();
        Ok(command
            .iter()
            .map(|word| word.replace(root, "<root>"))
            .collect())
    }

    #[test]
    fn only_the_layers_above_the_base_are_taken() {
        let run = json!({ "Cmd": ["node", "server.js"], "WorkingDir": "/app" });
        let taken = image(&run, &history()).unwrap();
        assert_eq!(taken.layers.len(), 2);
        assert_eq!(taken.workdir(Path::new("/u")), Path::new("/u/app"));
        let by_engine = json!([{ "created_by": "a" }, { "created_by": "COPY . . # buildkit" }]);
        let error = image(&run, &by_engine).unwrap_err();
        assert!(error.contains("the Docker engine has built it"), "{error}");
    }

    #[test]
    fn the_command_runs_on_this_machine() {
        let entry = ["app/server.js", "app/start", "app/.alokai/entrypoint.sh"];
        let of = |run: &Value| command(run, &entry);
        let run = json!({ "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["node", "server.js"], "WorkingDir": "/app" });
        assert_eq!(of(&run).unwrap(), ["node", "server.js"]);
        let run = json!({ "Cmd": ["/usr/local/bin/node", "/app/server.js", "/missing"] });
        let words = of(&run).unwrap();
        assert_eq!(words, ["node", "<root>/app/server.js", "/missing"]);
        let run = json!({
            "Entrypoint": ["/bin/sh", "/app/.alokai/entrypoint.sh", "docker-entrypoint.sh"],
            "Cmd": ["node", "server.js"],
        });
        let words = of(&run).unwrap();
        let script = "<root>/app/.alokai/entrypoint.sh";
        assert_eq!(words, ["sh", script, "node", "server.js"]);
        let run = json!({ "Cmd": ["./start"], "WorkingDir": "/app" });
        assert_eq!(of(&run).unwrap(), ["./start"]);
        let run = json!({ "Cmd": ["npm", "start"], "WorkingDir": "/app" });
        let error = of(&run).unwrap_err();
        let of_base = "its command `npm` is a program of the base image";
        assert!(error.contains(of_base), "{error}");
    }

    #[test]
    fn variables_of_the_base_system_are_left_out() {
        let run = json!({ "Cmd": ["node"], "Env": ["PATH=/bin", "NODE_VERSION=22", "A=1=2"] });
        let taken = image(&run, &history()).unwrap().variables;
        assert_eq!(
            taken.into_iter().collect::<Vec<_>>(),
            [("A".into(), "1=2".into())]
        );
    }
}
