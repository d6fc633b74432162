//! Addresses that we listen on.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use shard_discovery::source::fixed::bare;

use super::value::number;

/// Where a pool listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// A TCP port.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Permissions it is given; `None` leaves them to the umask.
        mode: Option<u32>,
    },
}

impl Listen {
    /// Gives the socket's file the permissions that are asked for.
    pub fn permit(&self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        match self {
            Self::Unix { path, mode: Some(mode) } => {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is the same address, whatever the permissions.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => {
                // The same folder may have several names.
                let whole = |path: &Path| {
                    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
                    folder.and_then(|folder| Some(folder.join(path.file_name()?)))
                };
                path == other || (whole(path).is_some() && whole(path) == whole(other))
            }
            _ => self == other,
        }
    }

    /// Whether a client could mean both: the same port, and one of the hosts stands for all addresses, or they are one.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (Self::Tcp { host, port }, Self::Tcp { host: others, port: at }) = (self, other) else {
            return self.is_at(other);
        };
        if port != at {
            return false;
        }
        let resolved = |host: &str| (host, 0).to_socket_addrs().map(|all| all.map(|one| one.ip()).collect());
        let (Ok::<Vec<IpAddr>, _>(mine), Ok::<Vec<IpAddr>, _>(theirs)) = (resolved(host), resolved(others))
        else {
            return false;
        };
        // The first is what is bound.
        let bound = mine.first().zip(theirs.first());
        bound.is_some_and(|(mine, theirs)| mine == theirs || mine.is_unspecified() || theirs.is_unspecified())
    }

    /// `host:port`, `[address]:port`, `/path` or `/path 0NNN`.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed is host:port, [IPv6 address]:port, an absolute /path, or a path and its permissions such as /path 0660";
        if text.starts_with('/') {
            let (path, mode) = match text.rsplit_once(' ') {
                None => (text, None),
                Some((path, mode)) => {
                    let octal = mode
                        .bytes()
                        .all(|byte| byte.is_ascii_digit())
                        .then(|| u32::from_str_radix(mode, 8).ok());
                    let mode = octal.flatten().filter(|mode| *mode <= 0o777).ok_or_else(|| {
                        format!("the permissions {mode:?} are not octal digits from 0000 to 0777")
                    })?;
                    (path.trim_end(), Some(mode))
                }
            };
            return Ok(Self::Unix { path: path.into(), mode });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
        let host = bare(host);
        if host.is_empty() {
            return Err(format!(
                "the host is missing before the colon; write 0.0.0.0:{port} for all addresses"
            ));
        }
        let port = number(port, 1, 65535).map_err(|allowed| format!("port {port:?}: {allowed}"))?;
        Ok(Self::Tcp { host: host.to_owned(), port: port as u16 })
    }

    /// The TCP port, if it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix { path, .. } => write!(formatter, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_all_kinds() {
        for (text, shown) in [
            ("127.0.0.1:22121", "127.0.0.1:22121"),
            ("::1:6379", "[::1]:6379"),
            ("[::1]:6379", "[::1]:6379"),
            ("/run/x.sock", "/run/x.sock"),
            ("/run/x.sock 0660", "/run/x.sock"),
        ] {
            assert_eq!(Listen::parse(text).expect(text).to_string(), shown);
        }
        assert_eq!(
            Listen::parse("/run/x.sock 0660"),
            Ok(Listen::Unix { path: "/run/x.sock".into(), mode: Some(0o660) })
        );
        for text in ["6379", ":6379", "host:0", "host:65536", "/run/x 0999", "/run/x 1777", "host:"] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }
}
