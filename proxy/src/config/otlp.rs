//! Where spans of requests are sent, and how.

use hyper::header::{HeaderName, HeaderValue};

use super::Surroundings;
use super::auth::secret_file;
use super::section::Section;
use super::tls::{ShardTls, read_otlp_tls};

/// A collector of OpenTelemetry.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Otlp {
    /// Its address, `http://host:port` or `https://host:port`, perhaps with a path; none: nothing is sent.
    pub endpoint: Option<String>,
    /// It is spoken to by gRPC, not by plain HTTP.
    pub grpc: bool,
    /// What is said with each request. The values do not show themselves.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// TLS, where the address wants it; none: as it is where nothing is set.
    pub tls: Option<ShardTls>,
}

impl Otlp {
    /// The settings of the process that are about it.
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Self {
        let otlp = Self {
            endpoint: section.optional("otlp_endpoint", endpoint),
            grpc: section.value::<&str>("otlp_protocol") == "grpc",
            headers: section
                .optional("otlp_headers_file", |path| headers(&secret_file(path, around)?))
                .unwrap_or_default(),
            tls: read_otlp_tls(section, around),
        };
        if section.has("otlp_tls") && otlp.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) {
            let place = section.place("otlp_tls");
            section.wrong(place, "otlp_tls is for an otlp_endpoint that begins with https://");
        }
        otlp
    }
}

/// The address of a collector, perhaps with a path; an error says what is allowed.
///
/// # Errors
/// Another scheme, no host, or a password.
pub fn endpoint(text: &str) -> Result<String, String> {
    let allowed =
        || "allowed are http://host:port and https://host:port, such as http://127.0.0.1:4318".to_owned();
    let uri: hyper::Uri = text.parse().map_err(|_| allowed())?;
    let has_host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
    if !matches!(uri.scheme_str(), Some("http" | "https")) || !has_host || text.contains('@') {
        return Err(allowed());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Headers as a file has them: one in a line, `NAME: VALUE`; empty lines and those that begin with `#` do not count.
///
/// # Errors
/// Which line is none, and not what is in it.
pub fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let header = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        match header {
            Some((name, _)) if OWN.contains(&name.as_str()) => {
                return Err(format!("line {number}: {name} is said by the proxy itself"));
            }
            Some(header) => headers.push(header),
            None => return Err(format!("line {number} is no header; allowed is NAME: VALUE")),
        }
    }
    Ok(headers)
}

/// What is decided by the protocol.
const OWN: [&str; 7] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_no_mistake_shows_one() {
        let good =
            headers("# of the tenant\nAuthorization: Bearer s3cret\n\nx-scope: a:b\r\n").expect("good");
        let shown =
            |(name, value): &(HeaderName, HeaderValue)| (name.to_string(), value.to_str().map(str::to_owned));
        let all: Vec<_> = good.iter().map(shown).map(|(name, value)| (name, value.expect("text"))).collect();
        assert_eq!(
            all,
            [("authorization".into(), "Bearer s3cret".into()), ("x-scope".into(), "a:b".into())]
                as [(String, String); 2]
        );
        assert!(!format!("{good:?}").contains("s3cret"));
        for (text, told) in [
            ("a: b\ns3cret", "line 2 is no header; allowed is NAME: VALUE"),
            ("s3 cret: b", "line 1 is no header; allowed is NAME: VALUE"),
            ("a: s3\u{7}cret", "line 1 is no header; allowed is NAME: VALUE"),
            ("Host: other", "line 1: host is said by the proxy itself"),
        ] {
            assert_eq!(headers(text).expect_err(text), told);
        }
    }

    #[test]
    fn addresses_of_collectors_have_a_scheme_and_a_host_and_no_password() {
        for good in ["http://c:4318", "https://[::1]:4317", "https://c/otlp/v1/traces?key=1"] {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
        }
        assert_eq!(endpoint("https://c:4317/").as_deref(), Ok("https://c:4317"));
        for bad in ["c:4317", "grpc://c:4317", "http://", "http://user:s3cret@c:1", "unix:///run/c"] {
            assert!(endpoint(bad).is_err_and(|why| !why.contains("s3cret")), "{bad}");
        }
    }
}
