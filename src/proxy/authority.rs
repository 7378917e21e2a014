//! Certificates for HTTPS on this machine: signed by the certificate authority of mkcert, or by our own.
//!
//! A browser accepts them if the user has added the authority to the trusted ones. This program does
//! not do that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::ToSpan;
use miette::Diagnostic;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::{CertifiedKey, SigningKey};

use super::routes::Routes;
use crate::disk;

/// The domains for which our own authority may sign. A stolen key is then of no use elsewhere.
const DOMAINS: [&str; 3] = ["localhost", "local", "test"];

/// The days for which the certificate of a host is valid. Apple's systems refuse more than 825.
const HOST_DAYS: i32 = 397;

/// The years for which our own authority is valid.
const AUTHORITY_YEARS: i32 = 10;

/// The most certificates that are kept in memory.
const KEPT: usize = 256;

/// Errors of certificate authorities.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AuthorityError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(alokai::proxy::authority_read),
        help("check that the file belongs to your user")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(alokai::proxy::authority_write),
        help("check that the folder belongs to your user")
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The certificate or the key is not valid.
    #[error("`{}` and its key are not a valid certificate authority: {reason}", path.display())]
    #[diagnostic(
        code(alokai::proxy::authority_invalid),
        help("remove both files, and make them again")
    )]
    Invalid {
        /// The certificate.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// Who made a certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityOrigin {
    /// `mkcert -install`.
    Mkcert,
    /// [`CertificateAuthority::create`].
    Own,
}

impl AuthorityOrigin {
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Mkcert => ("rootCA.pem", "rootCA-key.pem"),
            Self::Own => ("alokai-ca.pem", "alokai-ca-key.pem"),
        }
    }

    /// Whether browsers accept a certificate of such an authority for a host.
    pub fn covers(self, host: &str) -> bool {
        let last = host.rsplit('.').next().unwrap_or_default();
        self == Self::Mkcert || DOMAINS.contains(&last)
    }
}

/// A certificate authority with its key.
pub struct CertificateAuthority {
    /// Who made it.
    pub origin: AuthorityOrigin,
    /// The file of its certificate, which the user's system has to trust.
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = f.debug_struct("CertificateAuthority");
        all.field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Reads the authority of mkcert, else our own. `None` if neither has a certificate and a key.
    pub fn find(mkcert: Option<&Path>, own: &Path) -> Result<Option<Self>, AuthorityError> {
        let mkcert = mkcert.map(|folder| (AuthorityOrigin::Mkcert, folder));
        for (origin, folder) in mkcert.into_iter().chain([(AuthorityOrigin::Own, own)]) {
            let (certificate, key) = origin.files();
            if folder.join(certificate).is_file() && folder.join(key).is_file() {
                return Self::read(origin, folder).map(Some);
            }
        }
        Ok(None)
    }

    /// Makes our own authority in a folder. Only the owner can read its key. The user's system does
    /// not trust it yet.
    pub fn create(folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = AuthorityOrigin::Own.files();
        let path = folder.join(certificate);
        let invalid = |error: rcgen::Error| AuthorityError::Invalid {
            path: path.clone(),
            reason: error.to_string(),
        };
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            // A file that exists would keep its permissions.
            disk::remove(&path)
                .and_then(|()| disk::write_atomically(&path, text.as_bytes()))
                .map_err(|source| AuthorityError::Write { path, source })
        };
        let pair = KeyPair::generate().map_err(invalid)?;
        let signed = authority_params().self_signed(&pair).map_err(invalid)?;
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(|source| AuthorityError::Write {
            path: folder.to_owned(),
            source,
        })?;
        // A key without a certificate is not an authority, so the certificate is written last.
        write(key, pair.serialize_pem())?;
        write(certificate, signed.pem())?;
        Self::read(AuthorityOrigin::Own, folder)
    }

    fn read(origin: AuthorityOrigin, folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = origin.files();
        let (certificate, key) = (folder.join(certificate), folder.join(key));
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| AuthorityError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let (pem, key) = (text(&certificate)?, text(&key)?);
        let issuer = KeyPair::from_pem(&key).and_then(|key| Issuer::from_ca_cert_pem(&pem, key));
        match issuer {
            Ok(issuer) => Ok(Self {
                origin,
                certificate,
                issuer,
            }),
            Err(error) => Err(AuthorityError::Invalid {
                path: certificate,
                reason: error.to_string(),
            }),
        }
    }

    /// The TLS settings of a server that has a certificate for each host of the routes.
    pub(super) fn server_config(self, routes: Routes) -> Result<Arc<ServerConfig>, AuthorityError> {
        let invalid = |reason: String| AuthorityError::Invalid {
            path: self.certificate.clone(),
            reason,
        };
        let pair = KeyPair::generate().map_err(|error| invalid(error.to_string()))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&der);
        let signing = signing.map_err(|error| invalid(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| invalid(error.to_string()))?;
        let mut config =
            config
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(HostCertificates {
                    issuer: self.issuer,
                    pair,
                    signing,
                    routes,
                    made: Mutex::default(),
                }));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let names = &mut params.distinguished_name;
    names.push(DnType::CommonName, "alokai local development");
    names.push(DnType::OrganizationName, "alokai");
    let domains = DOMAINS.map(|domain| GeneralSubtree::DnsName(domain.into()));
    let addresses = [
        CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8),
        CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128),
    ];
    let addresses = addresses.map(GeneralSubtree::IpAddress);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: domains.into_iter().chain(addresses).collect(),
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params, AUTHORITY_YEARS * 365);
    params
}

/// From yesterday, since clocks differ, for a number of days.
fn set_validity(params: &mut CertificateParams, days: i32) {
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let at = |days: i32| {
        let date = today.saturating_add(days.days());
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    (params.not_before, params.not_after) = (at(-1), at(days));
}

/// The certificates of hosts. They are made at the first handshake and kept in memory.
struct HostCertificates {
    issuer: Issuer<'static, KeyPair>,
    /// All certificates have the same key, which no other process knows.
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
    routes: Routes,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for HostCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostCertificates")
    }
}

impl HostCertificates {
    fn sign(&self, host: &str) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        if host == "localhost" {
            let addresses = [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ];
            params
                .subject_alt_names
                .extend(addresses.map(SanType::IpAddress));
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, HOST_DAYS);
        let certificate = params.signed_by(&self.pair, &self.issuer)?;
        let chain = vec![certificate.der().clone()];
        Ok(Arc::new(CertifiedKey::new(
            chain,
            Arc::clone(&self.signing),
        )))
    }
}

impl ResolvesServerCert for HostCertificates {
    /// A client without a host name has connected to an address.
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = client
            .server_name()
            .unwrap_or("localhost")
            .to_ascii_lowercase();
        let is_known =
            host == "localhost" || host.ends_with(".localhost") || self.routes.has_host(&host);
        if !is_known {
            return None;
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = made.get(&host) {
            return Some(Arc::clone(certificate));
        }
        let certificate = self.sign(&host).ok()?;
        if made.len() >= KEPT {
            made.clear();
        }
        made.insert(host, Arc::clone(&certificate));
        Some(certificate)
    }
}
