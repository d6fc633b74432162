//! TLS towards clients and towards shards, as the settings say it: certificates and keys are read and proven here, so that
//! a file that does not fit is a mistake of the configuration, and what is active stays.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use shard_discovery::Address;
use shard_discovery::yaml::{Entry, Node, Value};

use super::by_name::{self, ByName};
use super::lenient::Lenient;
use super::mistake::Place;
use super::section::Section;
use super::settings;
use super::tickets::SharedTickets;
use super::value::text;
use super::{Surroundings, fnv};

/// Certificates of one listener.
pub const CERTIFICATES_MAX: usize = 64;

/// The newest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// How clients are spoken to.
#[derive(Clone)]
pub struct ClientTls {
    /// What rustls goes by.
    pub config: Arc<ServerConfig>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Who the proxy is for them; the first unless they ask for another name.
    pub certificates: Vec<Certificate>,
    written: Written,
}

/// A certificate of our own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// Whom it is for: `clients` or `shards`.
    pub side: &'static str,
    /// Its file.
    pub path: String,
    /// When it ends, or one of those between it and its authority, in seconds since 1970.
    pub not_after: i64,
}

/// How shards are spoken to, or a collector of OpenTelemetry.
#[derive(Clone)]
pub struct ShardTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// Who the proxy is for them, if they are told.
    pub certificate: Option<Certificate>,
    /// What is sent ends with a record of one byte: memcached (1.6.18) reads a value without what is behind it in the same record,
    /// and does not look for that before something more has come.
    pub ends_alone: bool,
    written: Written,
}

/// What the settings say, to tell configurations apart.
#[derive(Clone, PartialEq, Eq)]
struct Written {
    /// The settings, as they are shown.
    shown: String,
    /// A hash of what is in their files.
    files: u64,
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl PartialEq for ShardTls {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// Without what is in the files: replicas that get a new certificate one after the other have one configuration.
impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientTls({})", self.written.shown)
    }
}

/// As [`ClientTls`].
impl fmt::Debug for ShardTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ShardTls({})", self.written.shown)
    }
}

impl ShardTls {
    /// The same where the peer is told that what comes is this protocol. Source: RFC 7301.
    #[must_use]
    pub fn speaking(&self, protocol: &str) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// A session with the server at this address, which has to prove that it is who the address names. `None` over a Unix
    /// socket, where nobody can listen in.
    ///
    /// # Errors
    /// The address has no name that a certificate could have.
    pub fn session(&self, address: &Address) -> Option<Result<rustls::Connection, String>> {
        let Address::Tcp { host, .. } = address else { return None };
        let name = match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.trim_end_matches('.').to_owned())
                .map_err(|_| format!("{host:?} is no name that a certificate could have; set server_name")),
        };
        Some(name.and_then(|name| {
            rustls::ClientConnection::new(self.config.clone(), name)
                .map(Into::into)
                .map_err(|error| error.to_string())
        }))
    }
}

/// A mapping of the two, and what was read for it.
struct Reader<'r, 'n, 'm, 'a> {
    section: &'r mut Section<'n, 'm>,
    around: &'a Surroundings<'a>,
    files: Vec<u8>,
}

impl Reader<'_, '_, '_, '_> {
    /// What is in the file that a setting names.
    fn file<T>(&mut self, name: &str, read: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<(String, T)> {
        let (around, files) = (self.around, &mut self.files);
        self.section.optional(name, |path| {
            let text = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
            files.extend_from_slice(text.as_bytes());
            files.push(0);
            Ok((path.to_owned(), read(text.as_bytes())?))
        })
    }

    /// A certificate with those between it and its authority, when it ends, and its key.
    fn pair(&mut self) -> Option<Pair> {
        let certificate = self.file("certificate", |pem| {
            let chain = certificates(pem)?;
            let ends: Result<Vec<i64>, String> = chain.iter().map(not_after).collect();
            let not_after = ends?.into_iter().min().ok_or("there is no certificate in this file")?;
            Ok((chain, not_after))
        });
        let key = self.file("key", |pem| {
            PrivateKeyDer::from_pem_slice(pem)
                .map_err(|error| format!("there is no private key in PEM in this file ({error})"))
        });
        for (name, other) in [("certificate", "key"), ("key", "certificate")] {
            if self.section.has(name) && !self.section.has(other) {
                let place = self.section.place(name);
                self.section.wrong(place, format!("{name} needs {other} as well"));
            }
        }
        let ((path, (chain, not_after)), (_, key)) = (certificate?, key?);
        Some(Pair { path, chain, not_after, key })
    }

    /// A pair that has to be there.
    fn required_pair(&mut self) -> Option<Pair> {
        for name in ["certificate", "key"] {
            if !self.section.has("certificate") && !self.section.has("key") {
                self.section.missing(name);
            }
        }
        self.pair()
    }

    /// The certificates that clients may be shown, the first of them first; none after a mistake.
    fn pairs(&mut self) -> Option<Vec<Pair>> {
        let Some(Node { place, value }) = self.section.node("certificates") else {
            return Some(vec![self.required_pair()?]);
        };
        let has_first = self.section.has("certificate") || self.section.has("key");
        let mut pairs = vec![has_first.then(|| self.pair())];
        let nodes = match value {
            Value::List(nodes) if !nodes.is_empty() && nodes.len() <= CERTIFICATES_MAX => nodes,
            other => {
                let text = format!(
                    "certificates has to be a list of 1 to {CERTIFICATES_MAX} mappings, not {}",
                    if let Value::List(nodes) = other {
                        format!("of {}", nodes.len())
                    } else {
                        other.kind().to_owned()
                    }
                );
                self.section.wrong(*place, text);
                return None;
            }
        };
        for node in nodes {
            let Value::Map(entries) = &node.value else {
                let text = format!("certificates: an entry has to be a mapping, not {}", node.value.kind());
                self.section.wrong(node.place, text);
                return None;
            };
            let mut section = self.section.below("certificates", node.place, entries, settings::CERTIFICATE);
            let mut reader =
                Reader { section: &mut section, around: self.around, files: std::mem::take(&mut self.files) };
            let pair = reader.required_pair();
            self.files = reader.files;
            pairs.push(Some(pair));
        }
        let pairs: Vec<Pair> = pairs.into_iter().flatten().collect::<Option<_>>()?;
        for (pair, node) in pairs.iter().skip(usize::from(has_first)).zip(nodes).skip(usize::from(!has_first))
        {
            if pair.names().is_empty() {
                let text =
                    format!("certificates: {} has no DNS name, so no client would be shown it", pair.path);
                self.section.wrong(node.place, text);
            }
        }
        Some(pairs)
    }

    /// The authorities in the file that a setting names.
    fn authorities(&mut self, name: &str) -> Option<RootCertStore> {
        self.file(name, |pem| {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| why(&error))?;
            }
            Ok(roots)
        })
        .map(|(_, roots)| roots)
    }

    /// The oldest version and the cipher suites.
    fn provider(&mut self) -> (Arc<CryptoProvider>, &'static [&'static SupportedProtocolVersion]) {
        let mut provider = aws_lc_rs::default_provider();
        let suites = self.section.optional("ciphers", |text| {
            let named = |name: &str| {
                let is_it = |suite: &&rustls::SupportedCipherSuite| suite_name(suite) == name;
                provider.cipher_suites.iter().find(is_it).copied().ok_or_else(|| {
                    let all: Vec<_> = provider.cipher_suites.iter().map(suite_name).collect();
                    format!("{name:?} is not known; allowed are {}", all.join(", "))
                })
            };
            text.split([',', ':', ' '])
                .filter(|name| !name.is_empty())
                .map(named)
                .collect::<Result<Vec<_>, _>>()
        });
        let versions = match self.section.value("version_min") {
            "1.3" => &VERSIONS[..1],
            _ => &VERSIONS,
        };
        if let Some(suites) = suites.filter(|suites| !suites.is_empty()) {
            provider.cipher_suites = suites;
        }
        (Arc::new(provider), versions)
    }

    fn wrong(&mut self, name: &str, error: &Error) {
        let place = self.section.place(name);
        self.section.wrong(place, why(error));
    }

    fn written(&self, node: &Node) -> Written {
        Written { shown: format!("{:?}", shown(node)), files: fnv(&self.files) }
    }
}

struct Pair {
    path: String,
    chain: Vec<CertificateDer<'static>>,
    not_after: i64,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    /// The host names that the certificate is for.
    fn names(&self) -> Vec<String> {
        self.chain.first().map(|certificate| by_name::names(certificate)).unwrap_or_default()
    }
}

/// The mapping that a setting is.
fn mapping<'n>(outer: &mut Section<'n, '_>, name: &str) -> Option<(&'n Node, &'n [Entry])> {
    let node = outer.node(name)?;
    match &node.value {
        Value::Map(entries) => Some((node, entries)),
        other => {
            outer.wrong(node.place, format!("{name} has to be a mapping, not {}", other.kind()));
            None
        }
    }
}

/// How clients are to be spoken to.
pub(super) fn read_tls(outer: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Option<ClientTls> {
    let (node, entries) = mapping(outer, "tls")?;
    let mut section = outer.below("tls", node.place, entries, settings::TLS);
    let mut reader = Reader { section: &mut section, around, files: Vec::new() };
    let pairs = reader.pairs();
    let roots = reader.authorities("client_ca");
    let wanted = reader.section.value_if_set::<&str>("client_auth");
    let handshake_timeout = reader.section.value("handshake_timeout");
    let (provider, versions) = reader.provider();
    let has_ca = reader.section.has("client_ca");
    match wanted {
        Some("required" | "optional") if !has_ca => {
            let place = reader.section.place("client_auth");
            reader.section.wrong(
                place,
                "client_auth needs client_ca: the authorities that sign the clients' certificates",
            );
        }
        _ => {}
    }
    let tickets = reader.file("ticket_keys_file", |text| SharedTickets::of(&String::from_utf8_lossy(text)));
    let pairs = pairs?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = match builder {
        Ok(builder) => builder,
        Err(error) => {
            reader.wrong("ciphers", &error);
            return None;
        }
    };
    let verifies = has_ca && wanted != Some("none");
    if verifies && reader.section.has("ticket_keys_file") {
        let place = reader.section.place("ticket_keys_file");
        reader.section.wrong(
            place,
            "ticket_keys_file has no meaning with client_ca: where certificates of clients are verified there are no tickets",
        );
    }
    let builder = if verifies {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots?), provider.clone());
        let verifier = if wanted == Some("optional") { verifier.allow_unauthenticated() } else { verifier };
        match verifier.build() {
            Ok(verifier) => builder.with_client_cert_verifier(verifier),
            Err(error) => {
                let place = reader.section.place("client_ca");
                reader.section.wrong(place, format!("client_ca cannot be used: {error}"));
                return None;
            }
        }
    } else {
        builder.with_no_client_auth()
    };
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for pair in pairs {
        let names = pair.names();
        match CertifiedKey::from_der(pair.chain, pair.key, &provider) {
            Ok(key) => keys.push((names, key)),
            Err(error) => {
                let name = if reader.section.has("key") { "key" } else { "certificates" };
                let place = reader.section.place(name);
                reader.section.wrong(place, format!("{}: {}", pair.path, why(&error)));
                return None;
            }
        }
        certificates.push(Certificate { side: "clients", path: pair.path, not_after: pair.not_after });
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(keys)));
    let ticketer = match tickets {
        Some((_, shared)) => Some(shared as Arc<dyn ProducesTickets>),
        None if reader.section.has("ticket_keys_file") => return None,
        None => aws_lc_rs::Ticketer::new().ok(),
    };
    // A ticket says who the client was when it was given, whatever has happened to its certificate or authority since.
    if verifies {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    } else if let Some(ticketer) = ticketer {
        // Nothing is kept for a client that goes.
        config.ticketer = ticketer;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
    }
    let written = reader.written(node);
    Some(ClientTls { config: Arc::new(config), handshake_timeout, certificates, written })
}

/// How shards are to be spoken to.
pub(super) fn read_servers_tls(
    outer: &mut Section<'_, '_>,
    redis: bool,
    around: &Surroundings<'_>,
) -> Option<ShardTls> {
    read_tls_to("servers_tls", outer, !redis, around)
}

/// How a collector of OpenTelemetry is to be spoken to.
pub(super) fn read_otlp_tls(outer: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Option<ShardTls> {
    read_tls_to("otlp_tls", outer, false, around)
}

fn read_tls_to(
    name: &'static str,
    outer: &mut Section<'_, '_>,
    to_memcached: bool,
    around: &Surroundings<'_>,
) -> Option<ShardTls> {
    let (node, entries) = mapping(outer, name)?;
    let mut section = outer.below(name, node.place, entries, settings::SERVERS_TLS);
    let mut reader = Reader { section: &mut section, around, files: Vec::new() };
    let pair = reader.pair();
    let has_pair = reader.section.has("certificate");
    let server_name = reader.section.optional("server_name", |name| {
        let name = text(name)?;
        ServerName::try_from(name).map_err(|_| "allowed is a host name or an IP address".to_owned())
    });
    let verify: &str = reader.section.value("verify");
    let (provider, versions) = reader.provider();
    let roots = if reader.section.has("ca") {
        reader.authorities("ca")?
    } else if verify == "none" {
        RootCertStore::empty()
    } else {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let place = node.place;
            reader.section.wrong(
                place,
                "this system has no certificate authorities; set ca to a file with those of the servers",
            );
            return None;
        }
        roots
    };
    let builder = match ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)
    {
        Ok(builder) => builder,
        Err(error) => {
            reader.wrong("ciphers", &error);
            return None;
        }
    };
    let algorithms = provider.signature_verification_algorithms;
    let builder = match verify {
        "none" => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { chain: None, algorithms })),
        "ca" => {
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            match chain {
                Ok(chain) => {
                    let lenient = Lenient { chain: Some(chain), algorithms };
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(lenient))
                }
                Err(error) => {
                    let place = reader.section.place("ca");
                    reader.section.wrong(place, format!("ca cannot be used: {error}"));
                    return None;
                }
            }
        }
        _ => builder.with_root_certificates(roots),
    };
    let (mut config, certificate) = match pair {
        None if has_pair => return None,
        None => (builder.with_no_client_auth(), None),
        Some(Pair { path, chain, not_after, key }) => match builder.with_client_auth_cert(chain, key) {
            Ok(config) => (config, Some(Certificate { side: "shards", path, not_after })),
            Err(error) => {
                reader.wrong("key", &error);
                return None;
            }
        },
    };
    // memcached ends handshakes that resume a session where it verifies clients: it lacks what OpenSSL asks for then (a session id context).
    if to_memcached && has_pair {
        config.resumption = rustls::client::Resumption::disabled();
    }
    let written = reader.written(node);
    Some(ShardTls { config: Arc::new(config), server_name, certificate, ends_alone: to_memcached, written })
}

/// How servers are to be spoken to, by what was said on the command line: settings of `servers_tls` and their values. Files are relative to
/// the folder that we are in.
///
/// # Errors
/// What is wrong with it, in words.
pub fn servers_tls(said: &[(&str, String)], redis: bool) -> Result<ShardTls, String> {
    let place = Place::START;
    let entry = |name: &str, value| Entry { key: name.to_owned(), place, node: Node { place, value } };
    let said = said.iter().map(|(name, value)| entry(name, Value::Text(value.clone()))).collect();
    let outer = [entry("servers_tls", Value::Map(said))];
    let around = Surroundings {
        read_file: &|path| std::fs::read_to_string(path),
        environment: &|name| std::env::var(name).ok(),
    };
    let mut mistakes = Vec::new();
    let title = "command line".to_owned();
    let mut section = Section::new(title, place, &outer, settings::POOL, &mut mistakes);
    match read_servers_tls(&mut section, redis, &around) {
        Some(tls) if mistakes.is_empty() => Ok(tls),
        _ => Err(mistakes.into_iter().map(|mistake| mistake.text).collect::<Vec<_>>().join("; ")),
    }
}

/// Certificates in PEM, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in PEM in this file".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("this file is no PEM ({error})")),
    }
}

/// When a certificate ends, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, certificate)) => Ok(certificate.validity().not_after.timestamp()),
        Err(error) => Err(format!("this certificate cannot be read ({error})")),
    }
}

/// How TLS 1.3 and OpenSSL's friends write it: `TLS13_AES_128_GCM_SHA256` is `TLS_AES_128_GCM_SHA256` in RFC 8446.
fn suite_name(suite: &rustls::SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.strip_prefix("TLS13_").map_or(name.clone(), |rest| format!("TLS_{rest}"))
}

/// What is wrong, and what can be done.
fn why(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "key: it is not the key of this certificate".into()
        }
        error => error.to_string(),
    }
}

/// What was written, whole.
fn shown(node: &Node) -> Vec<(String, String)> {
    let Value::Map(entries) = &node.value else { return Vec::new() };
    let text = |node: &Node| match &node.value {
        Value::Text(text) => text.clone(),
        Value::List(nodes) => format!("{:?}", nodes.iter().map(shown).collect::<Vec<_>>()),
        other => other.kind().to_owned(),
    };
    entries.iter().map(|entry| (entry.key.clone(), text(&entry.node))).collect()
}
