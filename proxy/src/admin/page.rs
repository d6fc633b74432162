//! The page for browsers: one document with its style and script in it, which asks the same paths as everybody else.
//!
//! Nothing is loaded from elsewhere, and nothing runs that is not named by the response's nonce, so that no text from a peer
//! (keys, names of clients) can become code.

use std::sync::LazyLock;

use base64::Engine as _;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response, StatusCode};

use super::{Reply, TEXT};

/// What to do about alerts; the page shows its sections beside the figures.
pub(super) const RUNBOOK: &str = include_str!("../../../chart/RUNBOOK.md");

const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
/// In this order.
const SCRIPTS: [&str; 6] = [
    include_str!("page/base.js"),
    include_str!("page/figures.js"),
    include_str!("page/charts.js"),
    include_str!("page/views.js"),
    include_str!("page/actions.js"),
    include_str!("page/main.js"),
];

/// The document around the places of the nonce.
static PARTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let script = format!("\"use strict\";\n(() => {{\n{}\n}})();", SCRIPTS.concat());
    let whole = DOCUMENT
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", &script);
    whole.split("{{nonce}}").map(Into::into).collect()
});

/// Whether whoever asks is a browser, not curl.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

/// The page.
pub(super) fn reply() -> Reply {
    let Some(nonce) = nonce() else {
        return super::reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no random numbers\n".into());
    };
    let mut reply = Response::new(PARTS.join(&nonce).into());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let headers = reply.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// Names the style and the script of one response.
fn nonce() -> Option<String> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(base64::prelude::BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Words of the page that begin so, up to what is no letter, digit or underscore.
    fn words(text: &str, begin: &str) -> BTreeSet<String> {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        text.match_indices(begin)
            .map(|(at, _)| {
                text[at..].split(|character| !is_word(character)).next().unwrap_or_default().into()
            })
            .collect()
    }

    #[test]
    fn every_figure_names_a_metric_and_a_section_that_exist() {
        let page = SCRIPTS.concat() + DOCUMENT;
        let code = [include_str!("metrics.rs"), include_str!("numbers.rs")].concat();
        let metrics = words(&page, "memstore_");
        assert!(metrics.len() > 15, "{metrics:?}");
        // What a name begins with is none.
        for metric in metrics.into_iter().filter(|metric| metric != "memstore_") {
            let name = metric.strip_suffix("_total").unwrap_or(&metric);
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(code.contains(&format!("\"{name}\"")), "no metric {metric}");
        }
        let sections = words(&page, "Memstore");
        assert!(sections.len() > 5, "{sections:?}");
        for section in sections {
            assert!(RUNBOOK.contains(&format!("\n## {section}\n")), "no section {section}");
        }
    }

    #[test]
    fn nothing_is_loaded_or_run_from_elsewhere() {
        let page = PARTS.join("NONCE");
        assert_eq!(page.matches("nonce=\"NONCE\"").count(), 2);
        assert!(!page.contains("{{"), "a place is left");
        for [begin, allowed] in [
            ["src=", ""],
            ["url(", ""],
            ["@import", ""],
            ["innerHTML", ""],
            ["insertAdjacentHTML", ""],
            ["http://", "http://www.w3.org/2000/svg"],
            ["https://", "https://github.com/memstore/memstore"],
        ] {
            for (at, _) in page.match_indices(begin) {
                assert!(
                    !allowed.is_empty() && page[at..].starts_with(allowed),
                    "{}",
                    &page[at..(at + 60).min(page.len())]
                );
            }
        }
        assert!(page.len() < 128 * 1024, "{} bytes", page.len());
    }

    #[test]
    fn each_response_has_a_nonce_of_its_own() {
        let nonces: BTreeSet<String> = (0..100).filter_map(|_| nonce()).collect();
        assert_eq!(nonces.len(), 100);
        let policy = reply().headers()[CONTENT_SECURITY_POLICY].to_str().expect("ASCII").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
