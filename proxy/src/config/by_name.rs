//! The certificates of a listener, of which each client is shown one by the name that it has asked for (SNI).

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::GeneralName;

/// Certificates, the first of which is for whoever asks for no name or an unknown one.
#[derive(Debug)]
pub struct ByName(Vec<Named>);

#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl ByName {
    /// These, with the host names of each.
    pub fn new(all: impl IntoIterator<Item = (Vec<String>, CertifiedKey)>) -> Self {
        Self(all.into_iter().map(|(names, key)| Named { names, key: Arc::new(key) }).collect())
    }

    /// Those for this name, then all, so that there is one whatever was asked for.
    fn candidates(&self, asked: Option<&str>) -> impl Iterator<Item = &Named> {
        let is_for =
            move |of: &&Named| asked.is_some_and(|asked| of.names.iter().any(|name| covers(name, asked)));
        self.0.iter().filter(is_for).chain(&self.0)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // One whose key the client can verify: a name may have a certificate for each kind of key.
        let schemes = hello.signature_schemes();
        let is_known = |of: &&Named| of.key.key.choose_scheme(schemes).is_some();
        let mut candidates = self.candidates(hello.server_name());
        candidates.find(is_known).or(self.0.first()).map(|named| named.key.clone())
    }
}

/// The host names that a certificate is for.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(alternative) = certificate.subject_alternative_name() else { return Vec::new() };
    let all = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        _ => None,
    };
    all.filter_map(host).collect()
}

/// Whether a certificate with this name is for that host. A star stands for the first label. Source: RFC 6125, section 6.4.3.
fn covers(name: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match name.strip_prefix("*.") {
        None => name.eq_ignore_ascii_case(host),
        Some(rest) => host.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cover_hosts() {
        for (name, host, is_for) in [
            ("a.example", "a.example", true),
            ("a.example", "A.EXAMPLE.", true),
            ("a.example", "b.a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "example", false),
            ("*.example", "b.a.example", false),
            ("*", "example", false),
        ] {
            assert_eq!(covers(name, host), is_for, "{name} {host}");
        }
    }
}
