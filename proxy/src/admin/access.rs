//! Who may ask the admin server for what.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;

use super::endpoint::Peer;
use crate::secret::Secret;

/// Who can open the Unix socket may. With a token whoever has it: a sidecar delivers what comes from anywhere from the
/// loopback address. Without one whoever is on this machine, and is no page in a browser there: neither one that says
/// so (Origin) nor one whose name leads here (a Host that is a name).
pub(super) fn may_change<B>(
    request: &Request<B>,
    peer: Peer,
    token: Option<&Secret>,
) -> Result<(), &'static str> {
    let Peer::Tcp(peer) = peer else { return Ok(()) };
    let headers = request.headers();
    if let Some(token) = token {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        return match given.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(given) if token.is(given.as_bytes()) => Ok(()),
            Some(_) => Err("wrong token"),
            None => Err("token required: Authorization: Bearer TOKEN"),
        };
    }
    if headers.contains_key(ORIGIN) || is_of_other_page(headers) {
        return Err("requests from web pages (Origin) are refused");
    }
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    if ![host, request.uri().authority().map(Authority::as_str)].into_iter().flatten().all(is_here) {
        return Err("Host has to be localhost or an IP address unless admin_token_file is set");
    }
    if peer.ip().to_canonical().is_loopback() && !is_forwarded(headers) {
        Ok(())
    } else {
        Err("allowed from the loopback address only unless admin_token_file is set")
    }
}

/// What is told about clients, configuration and keys is not for everybody who reaches the port. Who can open the Unix socket or has
/// the token may read it from anywhere, and whoever is on this machine, unless a page of somebody else asks: one that says so
/// (an Origin that is not this server), or one whose name leads here (a Host that is a name).
pub(super) fn may_read<B>(
    request: &Request<B>,
    peer: Peer,
    token: Option<&Secret>,
) -> Result<(), &'static str> {
    let Peer::Tcp(peer) = peer else { return Ok(()) };
    let headers = request.headers();
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let given = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if let (Some(token), Some(given)) = (token, given) {
        return if token.is(given.as_bytes()) { Ok(()) } else { Err("wrong token") };
    }
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    if headers.contains_key(ORIGIN) {
        let origin = header(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, origin)| origin);
        if origin.is_none() || origin != host {
            return Err("requests from other web pages (Origin) are refused");
        }
    }
    if is_of_other_page(headers) {
        return Err("requests from other web pages (Sec-Fetch-Site) are refused");
    }
    if ![host, request.uri().authority().map(Authority::as_str)].into_iter().flatten().all(is_here) {
        return Err("Host has to be localhost or an IP address unless the token is sent");
    }
    if peer.ip().to_canonical().is_loopback() && !is_forwarded(headers) {
        Ok(())
    } else {
        Err(
            "allowed from the loopback address only, or with the token (admin_token_file): Authorization: Bearer TOKEN",
        )
    }
}

/// Whether a browser says that the page of somebody else asks. A GET whose answer that page cannot read has no Origin; but it would be
/// served all the same, and for /monitor as long as that lasts.
fn is_of_other_page(headers: &HeaderMap) -> bool {
    let is_own = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    headers.get_all("sec-fetch-site").iter().any(|site| !is_own(site))
}

/// Whether somebody else asks through a proxy on this machine that says so, as the sidecars of Istio and Linkerd do where they know the
/// port as HTTP. Those that forward bytes only say nothing: then it takes a token, or a Unix socket.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().map(HeaderName::as_str).any(|name| {
        matches!(name, "forwarded" | "via" | "x-real-ip" | "x-original-forwarded-for")
            || ["x-forwarded-", "x-envoy-", "l5d-"].iter().any(|begin| name.starts_with(begin))
    })
}

/// Whether a Host header means this machine whatever name servers say: it is `localhost` or an address.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether somebody who asks so may change the process.
    fn may(peer: Peer, token: Option<&str>, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::post("/drain");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let token = token.map(|token| Secret::new(token.to_owned()));
        may_change(&request.body(()).expect("a request"), peer, token.as_ref()).is_ok()
    }

    #[test]
    fn the_process_is_changed_by_who_has_the_token_or_where_there_is_none_by_who_is_here() {
        let at = |address: &str| Peer::Tcp((address.parse::<IpAddr>().expect("an address"), 1).into());
        let right = ("authorization", "Bearer s3cret");
        for (peer, is_here) in [
            (at("127.0.0.1"), true),
            (at("127.0.0.6"), true),
            (at("::1"), true),
            (at("::ffff:127.0.0.1"), true),
            (at("10.0.0.1"), false),
            (at("::ffff:10.0.0.1"), false),
        ] {
            let shown = peer.ip();
            assert_eq!(may(peer, None, &[("host", "localhost")]), is_here, "{shown:?}");
            assert_eq!(may(peer, None, &[right, ("host", "localhost")]), is_here, "{shown:?}");
            assert!(!may(peer, Some("s3cret"), &[("host", "localhost")]), "{shown:?}");
            assert!(!may(peer, Some("s3cret"), &[("authorization", "Bearer s3creT")]), "{shown:?}");
            // A Host that is a name is that of a Service, for example.
            assert!(may(peer, Some("s3cret"), &[right, ("host", "store.example")]), "{shown:?}");
            assert!(!may(peer, None, &[("host", "store.example")]), "{shown:?}");
            assert!(!may(peer, None, &[("host", "localhost"), ("origin", "http://localhost")]), "{shown:?}");
            assert!(
                !may(peer, None, &[("host", "localhost"), ("sec-fetch-site", "cross-site")]),
                "{shown:?}"
            );
            for name in [
                "x-forwarded-for",
                "x-forwarded-proto",
                "forwarded",
                "via",
                "x-real-ip",
                "x-envoy-peer-metadata",
                "l5d-client-id",
            ] {
                assert!(!may(peer, None, &[("host", "10.0.0.5:9121"), (name, "x")]), "{shown:?} {name}");
                assert!(
                    may(peer, Some("s3cret"), &[right, ("host", "10.0.0.5:9121"), (name, "x")]),
                    "{shown:?} {name}"
                );
            }
            let typed = may(peer, None, &[("host", "localhost"), ("sec-fetch-site", "none")]);
            assert_eq!(typed, is_here, "{shown:?}");
        }
        assert!(may(Peer::Unix, None, &[]) && may(Peer::Unix, Some("s3cret"), &[]));
    }

    #[test]
    fn what_is_private_is_read_with_the_token_or_here_by_who_is_no_page_of_others() {
        let at = |address: &str| Peer::Tcp((address.parse::<IpAddr>().expect("an address"), 1).into());
        let [here, elsewhere] = ["127.0.0.1", "10.0.0.1"].map(at);
        let may = |peer, token: Option<&str>, headers: &[(&str, &str)]| {
            let request =
                headers.iter().fold(Request::get("/status"), |all, &(name, value)| all.header(name, value));
            let token = token.map(|token| Secret::new(token.to_owned()));
            may_read(&request.body(()).expect("a request"), peer, token.as_ref()).is_ok()
        };
        let right = ("authorization", "Bearer s3cret");
        for token in [None, Some("s3cret")] {
            assert!(may(here, token, &[("host", "localhost:9121")]));
            assert!(may(here, token, &[("host", "127.0.0.1:9121"), ("origin", "http://127.0.0.1:9121")]));
            assert!(!may(here, token, &[("host", "127.0.0.1:9121"), ("origin", "http://evil.example")]));
            assert!(!may(here, token, &[("host", "127.0.0.1:9121"), ("origin", "null")]));
            for (site, may_read) in
                [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
            {
                assert_eq!(
                    may(here, token, &[("host", "127.0.0.1:9121"), ("sec-fetch-site", site)]),
                    may_read,
                    "{site}"
                );
            }
            assert!(!may(here, token, &[("host", "10.0.0.5:9121"), ("x-forwarded-proto", "http")]));
            assert!(!may(here, token, &[("host", "evil.example:9121")]));
            assert!(!may(here, token, &[("host", "evil.example"), ("origin", "http://evil.example")]));
            assert!(!may(elsewhere, token, &[("host", "10.0.0.2:9121")]));
            assert!(may(Peer::Unix, token, &[]));
        }
        assert!(may(elsewhere, Some("s3cret"), &[right, ("host", "store.example")]));
        assert!(!may(here, Some("s3cret"), &[("authorization", "Bearer wrong"), ("host", "localhost")]));
        assert!(!may(elsewhere, None, &[right, ("host", "10.0.0.2")]));
    }
}
