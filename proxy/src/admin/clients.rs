//! Clients as the page shows them: by address and one by one, and their end. The control thread asks the workers, as it does
//! for CLIENT LIST.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::endpoint::Peer;
use super::{Admin, BODY_MAX, JSON, Reply, TEXT, admitted, query, reply};
use crate::protocol::{ClientFilter, Deed, Found, Question};

/// Clients that are told one by one, and addresses, unless it is asked for more.
const TOLD: usize = 50;
/// The most.
const TOLD_MAX: usize = 500;

/// A question about the clients of a pool. The answer is dropped if there is no such pool, and nothing if the workers take too
/// long.
pub struct ClientsWish {
    /// The pool's name.
    pub pool: String,
    /// What about them.
    pub question: Question,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Option<Found>>,
}

/// What workers say of one client: what it is ordered and added up by. There may be tens of thousands, so the rest of the line is
/// read only of those that are told.
struct Client<'f> {
    line: &'f str,
    id: u64,
    /// Where it is, without the port.
    host: &'f str,
    age: u64,
    idle: u64,
    memory: u64,
}

impl<'f> Client<'f> {
    /// Unknown numbers are 0.
    fn of(line: &'f str) -> Self {
        let mut client = Self { line, id: 0, host: "", age: 0, idle: 0, memory: 0 };
        for field in line.split(' ') {
            let Some((name, value)) = field.split_once('=') else { continue };
            let number = match name {
                "id" => &mut client.id,
                "age" => &mut client.age,
                "idle" => &mut client.idle,
                "tot-mem" => &mut client.memory,
                "addr" => {
                    client.host = value.rsplit_once(':').map_or(value, |(host, _)| host);
                    continue;
                }
                _ => continue,
            };
            *number = value.parse().unwrap_or_default();
        }
        client
    }

    fn json(&self) -> Value {
        let fields: HashMap<&str, &str> =
            self.line.split(' ').filter_map(|field| field.split_once('=')).collect();
        let text = |name: &str| fields.get(name).copied().unwrap_or_default();
        json!({
            "id": self.id,
            "address": text("addr"),
            "name": text("name"),
            "user": text("user"),
            "library": text("lib-name"),
            "age": self.age,
            "idle": self.idle,
            "flags": text("flags"),
            "database": text("db").parse().unwrap_or(0_u64),
            "memory": self.memory,
            "command": text("cmd"),
        })
    }
}

/// All clients at one address.
#[derive(Default)]
struct AtAddress {
    clients: u64,
    memory: u64,
    idle: [u64; 2],
    age: u64,
}

/// What `/clients` says, of what workers have found: those at `host` if given, the foremost `limit` by `sort`.
fn listing(pool: &str, lines: &str, host: Option<&str>, sort: &str, limit: usize) -> Value {
    let clients: Vec<Client<'_>> = lines.lines().map(Client::of).collect();
    let mut hosts: HashMap<&str, AtAddress> = HashMap::new();
    for Client { host, age, idle, memory, .. } in &clients {
        let of_host = hosts.entry(host).or_default();
        of_host.idle = match of_host.clients {
            0 => [*idle; 2],
            _ => [of_host.idle[0].min(*idle), of_host.idle[1].max(*idle)],
        };
        of_host.clients += 1;
        of_host.memory += memory;
        of_host.age = of_host.age.max(*age);
    }
    let addresses = hosts.len();
    let mut by_address: Vec<(&str, AtAddress)> = hosts.into_iter().collect();
    by_address.sort_by(|(left, one), (right, other)| other.clients.cmp(&one.clients).then(left.cmp(right)));
    let by_address: Vec<Value> = by_address
        .iter()
        .take(limit)
        .map(|(address, all)| {
            let AtAddress { clients, memory, idle: [least, most], age } = all;
            json!({
                "address": address, "clients": clients, "memory": memory, "idle_min": least, "idle_max": most, "age_max": age,
            })
        })
        .collect();
    let place = |client: &Client<'_>| match sort {
        "age" => client.age,
        "memory" => client.memory,
        "id" => u64::MAX - client.id,
        _ => client.idle,
    };
    let mut told: Vec<&Client<'_>> =
        clients.iter().filter(|client| host.is_none_or(|host| client.host == host)).collect();
    let matching = told.len();
    told.sort_unstable_by_key(|client| (Reverse(place(client)), client.id));
    let told: Vec<Value> = told.iter().take(limit).map(|client| client.json()).collect();
    let count = clients.len();
    json!({
        "pool": pool, "count": count, "matching": matching, "addresses": addresses, "by_address": by_address, "clients": told,
    })
}

/// The clients that a body means: its pool, and the filter.
fn meant(body: &[u8]) -> Result<(String, ClientFilter), String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let pool = body["pool"].as_str().ok_or("\"pool\" is missing")?.to_owned();
    let filter = match (&body["id"], &body["address"]) {
        (Value::Null, Value::String(address)) => {
            ClientFilter { address: Some(address.clone()), ..ClientFilter::default() }
        }
        (id, Value::Null) => {
            let id = id.as_u64().ok_or("\"id\" (a number) or \"address\" (a string) is missing")?;
            ClientFilter { ids: Some([id].into_iter().collect()), ..ClientFilter::default() }
        }
        _ => return Err("either \"id\" or \"address\"".into()),
    };
    Ok((pool, filter))
}

impl Admin {
    /// What workers have found; an error is the reply.
    async fn ask_workers(&self, pool: String, filter: ClientFilter, deed: Deed) -> Result<Found, Reply> {
        let (answer, answered) = oneshot::channel();
        let name = pool.clone();
        let wish = ClientsWish { pool, question: Question { filter, deed, form: 0 }, answer };
        if self.clients.send(wish).await.is_err() {
            return Err(reply(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "the process is shutting down\n".into(),
            ));
        }
        match answered.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(reply(
                StatusCode::GATEWAY_TIMEOUT,
                TEXT,
                "the workers have not answered in time\n".into(),
            )),
            Err(_) => Err(reply(StatusCode::NOT_FOUND, TEXT, format!("no pool {name:?}\n"))),
        }
    }

    pub(super) async fn list_clients(&self, request: &Request<Incoming>, peer: Peer) -> Reply {
        let query = match query::pairs(request.uri().query()) {
            Ok(query) => query,
            Err(why) => return reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        };
        let Some(pool) = query.get("pool").cloned() else {
            return reply(StatusCode::BAD_REQUEST, TEXT, "?pool=NAME is missing\n".into());
        };
        // Before the workers are asked.
        let taken = match admitted(&self.shares, peer.ip()).await {
            Ok(taken) => taken,
            Err(refused) => return refused,
        };
        // Of many clients it is long: one is held at a time.
        let _one = self.listing.lock().await;
        let found = match self.ask_workers(pool.clone(), ClientFilter::default(), Deed::List).await {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        let given = |name: &str| query.get(name).map(String::as_str);
        let limit = given("limit").and_then(|limit| limit.parse().ok()).unwrap_or(TOLD).min(TOLD_MAX);
        let begin = Instant::now();
        let lines = String::from_utf8_lossy(&found.text);
        let listing = listing(&pool, &lines, given("address"), given("sort").unwrap_or_default(), limit);
        let reply = reply(StatusCode::OK, JSON, format!("{listing}\n"));
        self.shares.spent(peer.ip(), taken, begin.elapsed());
        reply
    }

    pub(super) async fn kill_client(&self, request: Request<Incoming>) -> Reply {
        let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
            return reply(StatusCode::BAD_REQUEST, TEXT, "the body cannot be read\n".into());
        };
        let (pool, filter) = match meant(&body.to_bytes()) {
            Ok(meant) => meant,
            Err(why) => return reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        };
        let whom = filter.address.clone().unwrap_or_else(|| "by its id".into());
        match self.ask_workers(pool.clone(), filter, Deed::Kill).await {
            Ok(Found { count: 0, .. }) => reply(StatusCode::NOT_FOUND, TEXT, "no such client\n".into()),
            Ok(Found { count, .. }) => {
                tracing::info!(pool, client = whom, count, "client disconnected on request");
                reply(StatusCode::OK, TEXT, format!("disconnected: {count}\n"))
            }
            Err(refused) => refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "id=1 addr=10.0.0.1:5 laddr=x name= age=9 idle=3 flags=N db=0 tot-mem=10 cmd=NULL user=default\n\
        id=2 addr=10.0.0.1:6 laddr=x name=job age=5 idle=5 flags=b db=2 tot-mem=20 cmd=blpop user=default\n\
        id=3 addr=[::1]:7 laddr=x name= age=7 idle=0 flags=N db=0 tot-mem=90 cmd=NULL user=default\n";

    #[test]
    fn clients_are_told_by_address_and_in_order() {
        let ids = |sort: &str, host: Option<&str>, limit: usize| -> Vec<u64> {
            let listing = listing("p", LINES, host, sort, limit);
            listing["clients"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|client| client["id"].as_u64())
                .collect()
        };
        assert_eq!(ids("idle", None, 9), [2, 1, 3]);
        assert_eq!(ids("age", None, 9), [1, 3, 2]);
        assert_eq!(ids("memory", None, 2), [3, 2]);
        assert_eq!(ids("id", Some("10.0.0.1"), 9), [1, 2]);
        let listing = listing("p", LINES, Some("[::1]"), "", 1);
        assert_eq!(
            (&listing["count"], &listing["matching"], &listing["addresses"]),
            (&json!(3), &json!(1), &json!(2))
        );
        let first = json!([{ "address": "10.0.0.1", "clients": 2, "memory": 30, "idle_min": 3, "idle_max": 5, "age_max": 9 }]);
        assert_eq!(listing["by_address"], first);
        assert_eq!(listing["clients"][0]["address"], "[::1]:7");
    }

    #[test]
    fn who_is_to_go_is_said_by_number_or_address() {
        let (pool, filter) = meant(br#"{"pool": "p", "id": 5}"#).expect("it is right");
        assert!(pool == "p" && filter.ids.is_some_and(|ids| ids.contains(5)) && filter.address.is_none());
        let (_, filter) = meant(br#"{"pool": "p", "address": "10.0.0.1:5"}"#).expect("it is right");
        assert_eq!(filter.address.as_deref(), Some("10.0.0.1:5"));
        // Nothing else: a filter that is not understood would mean everybody.
        for odd in [
            r#"{}"#,
            r#"{"pool":"p"}"#,
            r#"{"pool":"p","id":"5"}"#,
            r#"{"pool":"p","id":-1}"#,
            r#"{"pool":"p","id":1,"address":"a"}"#,
            r#"{"pool":"p","address":5}"#,
            "id=5",
            "[]",
        ] {
            assert!(meant(odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
