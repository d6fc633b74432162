//! The servers of a pool: a list, a list in another file, or a template of host names.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use shard_discovery::{Address, Shard};

use super::listen::server;
use super::mistake::Place;
use super::section::Section;
use super::value::number;
use super::yaml::{self, Node, Value};
use super::{Surroundings, fnv};

/// What a list of `servers_within` does to the servers, where it leaves some of them out.
#[derive(Clone, PartialEq, Debug)]
pub struct Within {
    /// All servers.
    pub all: Vec<Shard>,
    /// Tells lists apart: one that is written anew counts anew, whatever it names.
    pub text: u64,
    /// It is being put in force just now, as the copy of it in `servers_within_attempt` says.
    pub is_attempted: bool,
}

/// The shards in a list such as servers_file names.
///
/// # Errors
/// In words, when it cannot be read or something in it is no server.
pub fn servers(path: &Path) -> anyhow::Result<Vec<Shard>> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let list = yaml::parse(&text)
        .map_err(|mistake| anyhow::anyhow!("line {}: {}", mistake.place.line, mistake.text))
        .with_context(named)?;
    let Value::List(lines) = list.value else { anyhow::bail!("{}: not a list", named()) };
    let read = |line: Node| match line.value {
        Value::Text(text) => {
            server(&text).map_err(|allowed| anyhow::anyhow!("{}: {text:?}: {allowed}", named()))
        }
        other => anyhow::bail!("{}: a server has to be a string, not {}", named(), other.kind()),
    };
    lines.into_iter().map(read).collect()
}

/// The shards come from the list itself, from a list in another file, or from a template of host names.
pub(super) fn read_servers(section: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Vec<Shard> {
    const SOURCES: [&str; 3] = ["servers", "servers_file", "servers_dns"];
    let given: Vec<_> = SOURCES.into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given[..] {
        let place = section.place(second);
        section.wrong(place, format!("{first} and {second} are both set; keep one of them"));
    }
    let names = section.setting("servers_names", |text| {
        if text.contains("{}") { Ok(text.to_owned()) } else { Err("it needs {} for the number".into()) }
    });
    let count = section.optional("servers_count", |text| number(text, 1, u64::from(u16::MAX)));
    if count.is_some() && !section.has("servers_dns") {
        let place = section.place("servers_count");
        section.wrong(place, "servers_count is how many shards servers_dns stands for, which is missing");
    }
    if section.has("servers_srv") && !section.has("servers_dns") {
        let place = section.place("servers_srv");
        section.wrong(place, "servers_srv is for the ports of servers_dns, which is missing");
    }
    match given.first() {
        Some(&"servers_dns") => {
            let has_srv = section.has("servers_srv");
            let read = |text: &str| host_template(text, has_srv);
            let Some(template) = section.optional("servers_dns", read) else { return Vec::new() };
            let Some(count) = count else {
                let place = section.place("servers_dns");
                section.wrong(
                    place,
                    "servers_dns needs servers_count as well: the ring is built from what is declared",
                );
                return Vec::new();
            };
            let shard = |number: u64| {
                let (host, port) = &template;
                let number = number.to_string();
                let address = Address::Tcp { host: host.replace("{}", &number), port: *port };
                Shard::new(address, 1, Some(names.replace("{}", &number)))
            };
            (0..count).map(shard).collect()
        }
        Some(&"servers_file") => {
            let place = section.place("servers_file");
            let read = |path: &str| {
                let text = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
                yaml::parse(&text).map_err(|mistake| format!("line {}: {}", mistake.place.line, mistake.text))
            };
            match section.optional("servers_file", read) {
                Some(list) => read_list(section, &list, |_| place),
                None => Vec::new(),
            }
        }
        _ => match section.node("servers") {
            Some(node) => read_list(section, node, |place| place),
            None => {
                section.missing("servers");
                Vec::new()
            }
        },
    }
}

/// Leaves only shards that the list in another file names too, if there is one: those that are about to go are left before
/// the list itself changes. A list that names others instead is that of another ring, and leaves all.
pub(super) fn keep_within(
    section: &mut Section<'_, '_>,
    around: &Surroundings<'_>,
    shards: &mut Vec<Shard>,
) -> Option<Within> {
    let place = section.place("servers_within");
    let read_file = |path: &str| match (around.read_file)(Path::new(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|error| error.to_string()),
    };
    if section.has("servers_within_attempt") && !section.has("servers_within") {
        let place = section.place("servers_within_attempt");
        section
            .wrong(place, "servers_within_attempt is a copy of the list in servers_within, which is missing");
    }
    let attempt = section.optional("servers_within_attempt", read_file).flatten();
    let read = |path: &str| {
        let Some(text) = read_file(path)? else { return Ok(None) };
        let list = yaml::parse(&text);
        list.map(|list| Some((list, text)))
            .map_err(|mistake| format!("line {}: {}", mistake.place.line, mistake.text))
    };
    let (list, text) = section.optional("servers_within", read)??;
    let named = read_list(section, &list, |_| place);
    let is_shard = |other: &Shard| shards.iter().any(|shard| shard.name == other.name);
    if named.is_empty() || named.len() == shards.len() || !named.iter().all(is_shard) {
        return None;
    }
    let all = shards.clone();
    shards.retain(|shard| named.iter().any(|other| other.name == shard.name));
    Some(Within { all, text: fnv(text.as_bytes()), is_attempted: attempt.is_some_and(|copy| copy == text) })
}

/// `host-{}.domain:port`, or without a port if that comes from SRV records.
fn host_template(text: &str, has_srv: bool) -> Result<(String, u16), String> {
    const ALLOWED: &str =
        "allowed is host:port with {} in the host, such as cache-{}.cache.default.svc.cluster.local.:6379";
    if has_srv {
        return match (text.contains(':'), text.contains("{}")) {
            (false, true) => Ok((text.to_owned(), 0)),
            _ => Err("with servers_srv it is a host with {} and no port".into()),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or(ALLOWED)?;
    if host.contains("{}") { Ok((host.to_owned(), port)) } else { Err(ALLOWED.into()) }
}

/// A list of servers; `at` says where a mistake in it is told.
fn read_list(section: &mut Section<'_, '_>, list: &Node, at: impl Fn(Place) -> Place) -> Vec<Shard> {
    let Value::List(lines) = &list.value else {
        section.wrong(at(list.place), format!("servers has to be a list, not {}", list.value.kind()));
        return Vec::new();
    };
    if lines.is_empty() {
        section.wrong(at(list.place), "servers is empty; a pool needs at least one");
    }
    let mut shards: Vec<(Shard, Place)> = Vec::new();
    for Node { place, value } in lines {
        let told = at(*place);
        let Value::Text(line) = value else {
            section.wrong(told, format!("a server has to be a string, not {}", value.kind()));
            continue;
        };
        match server(line) {
            Ok(shard) => {
                if let Some((_, first)) = shards.iter().find(|(earlier, _)| earlier.name == shard.name) {
                    let text = format!(
                        "server {line:?} has the name {:?}, as the one in line {}; give one of them another name",
                        shard.name, first.line
                    );
                    section.wrong(told, text);
                } else {
                    shards.push((shard, *place));
                }
            }
            Err(allowed) => section.wrong(told, format!("server {line:?} cannot be used: {allowed}")),
        }
    }
    shards.into_iter().map(|(shard, _)| shard).collect()
}
