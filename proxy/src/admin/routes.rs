//! What the admin server can be asked: a row for each path. Whoever adds one adds its row, and an arm where it is answered.

use std::fmt::Write as _;

use hyper::Method;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Index,
    Ready,
    Alive,
    Metrics,
    Status,
    Config,
    Route,
    Topology,
    Slow,
    Hot,
    Monitor,
    Stats,
    History,
    Clients,
    Runbook,
    Token,
    Kill,
    Drain,
    Reload,
    LogLevel,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Whoever reaches the port.
    Everybody,
    /// Whoever has the token, or is on this machine and no page of others.
    Readers,
    /// Whoever may change the process: with the token where there is one.
    Owners,
}

/// One path, and the method it requires. Every method but GET changes something, so that not everybody may.
#[derive(Debug)]
pub(super) struct Route {
    pub path: &'static str,
    pub method: Method,
    pub action: Action,
    pub access: Access,
    about: &'static str,
}

impl Route {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether a request may have this method. HEAD is GET without the body.
    pub fn allows(&self, method: &Method) -> bool {
        *method == self.method || (*method == Method::HEAD && !self.changes())
    }
}

const fn get(path: &'static str, action: Action, about: &'static str) -> Route {
    Route { path, method: Method::GET, action, access: Access::Everybody, about }
}

const fn private(path: &'static str, action: Action, about: &'static str) -> Route {
    Route { path, method: Method::GET, action, access: Access::Readers, about }
}

/// It tells of keys, which are data.
const fn data(path: &'static str, action: Action, about: &'static str) -> Route {
    Route { path, method: Method::GET, action, access: Access::Owners, about }
}

static ROUTES: &[Route] = &[
    get("/", Action::Index, "this list, or the page for browsers"),
    get("/ready", Action::Ready, "200 when clients can be served"),
    get("/alive", Action::Alive, "200 when the workers make progress"),
    get("/metrics", Action::Metrics, "metrics for Prometheus, or as OpenMetrics if requested"),
    private("/status", Action::Status, "process, pools, shards and clients, as JSON"),
    private("/config", Action::Config, "settings in force, and where each comes from, as JSON"),
    private("/route", Action::Route, "?pool=POOL&key=KEY: which shard owns a key, as JSON"),
    get("/topology", Action::Topology, "pools, shards and slot ownership, as JSON"),
    data("/slow", Action::Slow, "slow logs, as JSON"),
    data(
        "/hot",
        Action::Hot,
        "keys that are used most, largest requests and replies, as JSON; ?pool=&count=",
    ),
    data(
        "/monitor",
        Action::Monitor,
        "requests as they are served, line by line; ?pool=&shard=&client=&pattern=&sample=",
    ),
    get("/stats", Action::Stats, "Twemproxy's statistics"),
    get("/history", Action::History, "figures of the last 15 minutes, as JSON; ?pool=NAME&since=SAMPLE"),
    private(
        "/clients",
        Action::Clients,
        "clients of a pool, as JSON; ?pool=NAME&sort=idle&address=IP&limit=50",
    ),
    get("/runbook", Action::Runbook, "what to do about alerts"),
    Route {
        path: "/token",
        method: Method::POST,
        action: Action::Token,
        access: Access::Owners,
        about: "200 if the request may change something; changes nothing",
    },
    Route {
        path: "/clients/kill",
        method: Method::POST,
        action: Action::Kill,
        access: Access::Owners,
        about: "disconnect a client: {\"pool\": NAME, \"id\": NUMBER} or \"address\", in the body",
    },
    Route {
        path: "/drain",
        method: Method::POST,
        action: Action::Drain,
        access: Access::Owners,
        about: "drain: accept no new clients, answer requests in flight, exit",
    },
    Route {
        path: "/reload",
        method: Method::POST,
        action: Action::Reload,
        access: Access::Owners,
        about: "reload the configuration",
    },
    Route {
        path: "/log-level",
        method: Method::PUT,
        action: Action::LogLevel,
        access: Access::Owners,
        about: "error, warn, info, debug or trace, in the body",
    },
];

/// The row of a path.
pub(super) fn route(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

/// All of them, a line each.
pub(super) fn index() -> String {
    ROUTES.iter().fold(String::new(), |mut lines, route| {
        let Route { path, about, .. } = route;
        let _ = writeln!(lines, "{:<4} {path:<13} {about}", route.method.as_str());
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_is_no_get() {
        let changing: Vec<&str> =
            ROUTES.iter().filter(|route| route.changes()).map(|route| route.path).collect();
        assert_eq!(changing, ["/token", "/clients/kill", "/drain", "/reload", "/log-level"]);
        let showing: Vec<&str> =
            ROUTES.iter().filter(|route| route.access == Access::Owners).map(|route| route.path).collect();
        assert_eq!(
            showing,
            ["/slow", "/hot", "/monitor", "/token", "/clients/kill", "/drain", "/reload", "/log-level"]
        );
        for row in ROUTES {
            assert_eq!(route(row.path).unwrap().action, row.action);
            assert_eq!(row.allows(&Method::HEAD), !row.changes(), "{}", row.path);
            assert!(!row.allows(&Method::DELETE));
        }
        assert!(route("/nothing").is_none());
    }

    #[test]
    fn the_page_about_operating_names_every_path() {
        let page = include_str!("../../../docs/operations.md");
        for row in ROUTES.iter().filter(|row| row.path != "/") {
            assert!(page.contains(row.path), "{}", row.path);
        }
    }

    #[test]
    fn the_list_is_made_of_the_rows() {
        let index = index();
        assert!(
            index.starts_with(
                "GET  /             this list, or the page for browsers\nGET  /ready        200 when"
            ),
            "{index}"
        );
        assert!(index.contains("\nPUT  /log-level    error, warn"), "{index}");
    }
}
