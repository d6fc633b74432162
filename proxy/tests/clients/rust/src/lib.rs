//! Where the tests of Rust's clients find the proxy.

/// What `run` has put into the environment.
pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: start these tests with proxy/tests/clients/run"))
}

/// A port of the proxy.
pub fn port(name: &str) -> u16 {
    variable(name).parse().expect("a number")
}

/// Every byte there is, and a reply.
pub fn binary() -> Vec<u8> {
    (0..=255).chain(*b"\r\n$-1\r\n").collect()
}
