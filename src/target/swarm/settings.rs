//! The settings of a store, as this program reads them again: one config of the swarm for each version.
//!
//! Apps get settings as a secret of the swarm, which no request returns. A change of one setting needs the
//! values of the others, so they are kept a second time. A config can be read by everybody who may use a
//! manager, so it is encrypted with a key in the folder of HAProxy.
//!
//! The values of `.env` files of a release are kept in the same way: they are replaced in the output of its apps.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::ExposeSecret;

use super::error::Error;
use super::manager::Manager;
use super::service::object_name;
use crate::ledger::RecordId;
use crate::store::StoreId;
use crate::target::Settings;
use crate::target::labels::{RELEASE, StoreLabels};

/// The name of the file with the key.
const KEY: &str = "settings.key";

/// The content of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedKind {
    /// A version of the settings.
    Settings,
    /// The values of `.env` files of a release.
    Env,
}

/// The encrypted configs of a store in a swarm.
pub struct SettingsConfigs<'a> {
    /// Their content.
    pub kind: SealedKind,
    /// The manager.
    pub manager: &'a Manager,
    /// The owner of the configs.
    pub owner: &'a StoreLabels,
    /// The store, for errors.
    pub store: &'a StoreId,
    /// The folder with the key.
    pub folder: &'a Path,
}

impl SettingsConfigs<'_> {
    /// Stores settings under a version. Equal settings may be stored again; false if the version exists with
    /// other values.
    pub async fn write(&self, version: &str, settings: &Settings) -> Result<bool, Error> {
        let values: BTreeMap<&str, &str> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
            .collect();
        let text = serde_json::to_vec(&values).unwrap_or_default();
        let sealed = self.seal(version, text)?;
        let name = self.name(version);
        let mut labels = self.owner.map();
        if self.kind == SealedKind::Env {
            labels.insert(RELEASE.to_owned(), version.to_owned());
        }
        let created = self.manager.create_config(&name, labels, &sealed);
        if created.await? {
            return Ok(true);
        }
        let known = self.read(version).await?.unwrap_or_default();
        let known = known
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()));
        Ok(known.collect::<BTreeMap<&str, &str>>() == values)
    }

    /// The settings of a version, if the swarm has them.
    pub async fn read(&self, version: &str) -> Result<Option<Settings>, Error> {
        let Some(config) = self.manager.config(&self.name(version)).await? else {
            return Ok(None);
        };
        let data = config.spec.and_then(|spec| spec.data).unwrap_or_default();
        let text = BASE64.decode(data).ok();
        let text = text.and_then(|sealed| self.unseal(version, sealed));
        let values = text.and_then(|text| serde_json::from_slice(&text).ok());
        let values: BTreeMap<String, String> = values.ok_or_else(|| self.wrong_key(version))?;
        let settings = values.into_iter().map(|(name, value)| (name, value.into()));
        Ok(Some(settings.collect()))
    }

    /// Stores values of `.env` files of a release. If an earlier attempt to start the release had other
    /// values, both are kept.
    pub async fn add(&self, release: &RecordId, values: Settings) -> Result<(), Error> {
        let version = release.as_str();
        if values.is_empty() || self.write(version, &values).await? {
            return Ok(());
        }
        let known = self.read(version).await?.unwrap_or_default();
        let known = known
            .into_iter()
            .map(|(name, value)| (format!("{name} before"), value));
        let both: Settings = known.chain(values).collect();
        self.manager.remove_config(&self.name(version)).await?;
        self.write(version, &both).await.map(drop)
    }

    fn name(&self, version: &str) -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let version: String = version.chars().map(allowed).collect();
        let kind = match self.kind {
            SealedKind::Settings => "settings",
            SealedKind::Env => "env",
        };
        format!("{}-{version}", object_name(kind, self.owner))
    }

    fn wrong_key(&self, version: &str) -> Error {
        let (store, key) = (self.store.clone(), self.path());
        match self.kind {
            SealedKind::Settings => Error::SettingsKey {
                store,
                version: version.to_owned(),
                key,
            },
            SealedKind::Env => Error::EnvKey {
                store,
                release: version.to_owned(),
                key,
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// The store and the version, which are authenticated with the encrypted text: it cannot be decrypted as
    /// that of another store or version.
    fn context(&self, version: &str) -> Aad<Vec<u8>> {
        let kind = match self.kind {
            SealedKind::Settings => "",
            SealedKind::Env => "env/",
        };
        Aad::from(format!("{}/{kind}{version}", self.owner.key()).into_bytes())
    }

    fn seal(&self, version: &str, mut text: Vec<u8>) -> Result<Vec<u8>, Error> {
        let key = self.key()?;
        let mut sealed = random::<NONCE_LEN>()
            .map_err(|reason| self.unusable(reason))?
            .to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&sealed);
        let nonce = nonce.map_err(|error| self.unusable(error.to_string()))?;
        key.seal_in_place_append_tag(nonce, self.context(version), &mut text)
            .map_err(|error| self.unusable(error.to_string()))?;
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// The decrypted text. None if it was encrypted with another key.
    fn unseal(&self, version: &str, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let key = read_key(&self.path()).ok()?;
        if sealed.len() < NONCE_LEN {
            return None;
        }
        let mut text = sealed.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
        let opened = key.open_in_place(nonce, self.context(version), &mut text);
        Some(opened.ok()?.to_vec())
    }

    /// The key, which is made if there is none.
    fn key(&self) -> Result<LessSafeKey, Error> {
        let path = self.path();
        match read_key(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            key => return key.map_err(|error| self.unusable(error.to_string())),
        }
        let made = self.make_key(&path);
        made.and_then(|()| read_key(&path))
            .map_err(|error| self.unusable(error.to_string()))
    }

    /// Another run may make a key at the same moment: the first one stays.
    fn make_key(&self, path: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(self.folder)?;
        let bytes = random::<32>().map_err(std::io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(self.folder)?;
        file.write_all(&bytes)?;
        match file.persist_noclobber(path) {
            Err(failed) if failed.error.kind() != ErrorKind::AlreadyExists => Err(failed.error),
            _ => Ok(()),
        }
    }

    fn unusable(&self, reason: String) -> Error {
        Error::Key {
            key: self.path(),
            reason,
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn read_key(path: &Path) -> std::io::Result<LessSafeKey> {
    let bytes = std::fs::read(path)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes);
    let key = key.map_err(|_| std::io::Error::other("it does not have 32 bytes"))?;
    Ok(LessSafeKey::new(key))
}
