//! Who a certificate is for, so that it can name a user: its names as they stand there, and none that could be taken for another one.
//!
//! Whether the certificate can be believed has been decided in the handshake.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::GeneralName;

/// The names that a certificate has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PeerName {
    /// The common name of its subject, byte for byte, if it has one that is not empty.
    pub cn: Option<Vec<u8>>,
    /// Its alternative names that are URIs, such as those of SPIFFE, in its order.
    pub uris: Vec<String>,
    /// Its alternative names that are host names, in its order.
    pub dns: Vec<String>,
}

impl PeerName {
    /// Those of this certificate.
    ///
    /// # Errors
    /// It cannot be read, or one of its names could be taken for another one, in words: a NUL or another control character, which ends a
    /// name for some readers; more than one common name, of which each reader takes another one; one in an encoding whose bytes are no text.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("the certificate cannot be read ({error})"))?;
        let mut names = Self::default();
        let mut all = certificate.subject().iter_common_name();
        if let Some(first) = all.next() {
            if all.next().is_some() {
                return Err("the certificate has several common names".into());
            }
            let value = first.attr_value();
            if ![Tag::Utf8String, Tag::PrintableString, Tag::Ia5String].contains(&value.tag()) {
                return Err("the common name of the certificate is neither UTF-8 nor ASCII".into());
            }
            let bytes = plain(value.data)?;
            if value.tag() == Tag::Utf8String && std::str::from_utf8(bytes).is_err() {
                return Err("the common name of the certificate is not UTF-8".into());
            }
            names.cn = Some(bytes.to_vec()).filter(|name| !name.is_empty());
        }
        let alternative = certificate
            .subject_alternative_name()
            .map_err(|error| format!("the alternative names of the certificate cannot be read ({error})"))?;
        for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => names.uris.push(text(uri)?),
                GeneralName::DNSName(host) => names.dns.push(text(host)?),
                _ => {}
            }
        }
        Ok(names)
    }
}

fn text(name: &str) -> Result<String, String> {
    plain(name.as_bytes()).map(|_| name.to_owned())
}

/// A name without characters that nobody sees.
fn plain(name: &[u8]) -> Result<&[u8], String> {
    match name.iter().any(|byte| byte.is_ascii_control()) {
        true => Err("a name in the certificate has a control character".into()),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn names(cns: &[DnValue], alternative: &[SanType]) -> Result<PeerName, String> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        for cn in cns {
            wanted.distinguished_name.push(DnType::CommonName, cn.clone());
        }
        wanted.subject_alt_names = alternative.to_vec();
        let key = KeyPair::generate().expect("a key");
        PeerName::of(wanted.self_signed(&key).expect("a certificate").der())
    }

    fn utf8(name: &str) -> DnValue {
        DnValue::Utf8String(name.into())
    }

    #[test]
    fn names_are_those_of_the_certificate() {
        let [uri, host] = ["spiffe://cluster/ns/a/sa/app", "app.example"];
        let alternative = [
            SanType::DnsName(host.try_into().expect("ASCII")),
            SanType::URI(uri.try_into().expect("ASCII")),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        let found = names(&[utf8("App \u{e9}")], &alternative).expect("good names");
        assert_eq!(found.cn.as_deref(), Some("App \u{e9}".as_bytes()));
        assert_eq!((found.uris, found.dns), (vec![uri.to_owned()], vec![host.to_owned()]));
        assert_eq!(names(&[], &[]), Ok(PeerName::default()));
        assert_eq!(names(&[utf8("")], &[]), Ok(PeerName::default()));
        let printable = DnValue::PrintableString("app".try_into().expect("printable"));
        assert_eq!(names(&[printable], &[]).expect("a good name").cn.as_deref(), Some(&b"app"[..]));
    }

    #[test]
    fn names_that_could_be_taken_for_others_are_refused() {
        for name in ["admin\0.evil.example", "admin\n", "\u{7f}", "\u{1}"] {
            names(&[utf8(name)], &[]).expect_err("it has a control character");
            let uri = SanType::URI(name.try_into().expect("ASCII"));
            names(&[utf8("app")], &[uri]).expect_err("it has a control character");
            let host = SanType::DnsName(name.try_into().expect("ASCII"));
            names(&[utf8("app")], &[host]).expect_err("it has a control character");
        }
        let wide = DnValue::BmpString("admin".try_into().expect("it fits"));
        names(&[wide], &[]).expect_err("its bytes are no text");
        PeerName::of(&vec![0x30, 0x03, 1, 2, 3].into()).expect_err("no certificate");
    }

    /// A pair of common names, which the library that makes certificates here does not write.
    #[test]
    fn several_common_names_are_refused() {
        let key = KeyPair::generate().expect("a key");
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(DnType::CommonName, "app");
        // Its own object identifier differs from that of a common name (2.5.4.3) in the last byte.
        wanted.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 4]), utf8("adm"));
        let mut der = wanted.self_signed(&key).expect("a certificate").der().to_vec();
        let surname = [6, 3, 0x55, 4, 4];
        let mut at = 0;
        while let Some(found) = der[at..].windows(5).position(|bytes| bytes == surname) {
            at += found + 4;
            der[at] = 3;
        }
        assert!(at > 0, "it was not found");
        PeerName::of(&der.into()).expect_err("nobody knows which");
    }
}
