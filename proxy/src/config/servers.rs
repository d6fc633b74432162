//! Where the servers of a pool come from, as its settings say, and what is listed there.

use std::io::ErrorKind;
use std::path::Path;

use shard_discovery::Shard;
use shard_discovery::source::file::File;
use shard_discovery::source::http::Http;
use shard_discovery::source::template::{Template, host, names};
use shard_discovery::source::{Source, file};

use super::mistake::Place;
use super::section::Section;
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

/// The shards come from the list itself, from a list in another file, or from a template of host names: where from, and
/// which.
pub(super) fn read_source(
    section: &mut Section<'_, '_>,
    pool: &str,
    around: &Surroundings<'_>,
) -> Option<(Source, Vec<Shard>)> {
    const SOURCES: [&str; 4] = ["servers", "servers_file", "servers_dns", "servers_url"];
    let given: Vec<_> = SOURCES.into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given[..] {
        let place = section.place(second);
        section.wrong(place, format!("{first} and {second} are both set; keep one of them"));
    }
    let (names, count) = read_template(section);
    let refresh = section.value("servers_url_refresh");
    if section.has("servers_url_refresh") && !section.has("servers_url") {
        let place = section.place("servers_url_refresh");
        section.wrong(place, "servers_url_refresh is the polling interval of servers_url, which is not set");
    }
    match given.first() {
        Some(&"servers_url") => {
            if section.has("servers_within") {
                let place = section.place("servers_within");
                section.wrong(
                    place,
                    "servers_within is for lists in files, and cannot be used with servers_url",
                );
            }
            let place = section.node("servers_url")?.place;
            // Without the URL in the sentence, in which there may be a password.
            match section.optional("servers_url", |url| Ok(Http::parse(url, pool, refresh)))? {
                Ok(http) => Some((Source::Http(http), Vec::new())),
                Err(allowed) => {
                    section.wrong(place, format!("servers_url cannot be used: {allowed}"));
                    None
                }
            }
        }
        Some(&"servers_dns") => {
            let has_srv = section.has("servers_srv");
            let (host, port) = section.optional("servers_dns", |text| host(text, has_srv))?;
            let Some(count) = count else {
                let place = section.place("servers_dns");
                section.wrong(
                    place,
                    "servers_dns needs servers_count as well: the ring is built from what is declared",
                );
                return None;
            };
            let template = Template { host, port, count, names };
            let servers = template.servers();
            Some((Source::Template(template), servers))
        }
        Some(&"servers_file") => {
            let place = section.place("servers_file");
            let read = |path: &str| {
                let text = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
                Ok((File { path: path.into() }, text))
            };
            let (file, text) = section.optional("servers_file", read)?;
            let servers = read_file(section, "servers_file", place, &file, &text)?;
            Some((Source::File(file), servers))
        }
        _ => {
            let Some(list) = section.node("servers") else {
                section.missing("servers");
                return None;
            };
            match file::servers(list) {
                Ok(servers) => Some((Source::Fixed(servers.clone()), servers)),
                Err(mistakes) => {
                    mistakes.into_iter().for_each(|mistake| section.wrong(mistake.place, mistake.text));
                    None
                }
            }
        }
    }
}

/// What is said of a template, which is looked at whether or not there is one: the ring names, and how many.
fn read_template(section: &mut Section<'_, '_>) -> (String, Option<u16>) {
    let names = section.setting("servers_names", names);
    let count = section.value_if_set::<u16>("servers_count");
    if count.is_some() && !section.has("servers_dns") {
        let place = section.place("servers_count");
        section.wrong(place, "servers_count is the number of shards in servers_dns, which is not set");
    }
    if section.has("servers_srv") && !section.has("servers_dns") {
        let place = section.place("servers_srv");
        section.wrong(place, "servers_srv is for the ports of servers_dns, which is not set");
    }
    (names, count)
}

/// The list in a file that the setting names. Each mistake in it is told where the setting is, with its place in the file.
fn read_file(
    section: &mut Section<'_, '_>,
    setting: &str,
    place: Place,
    file: &File,
    text: &str,
) -> Option<Vec<Shard>> {
    let told = file.parse(text).map_err(|mistakes| mistakes.to_string());
    told.map_err(|told| told.lines().for_each(|line| section.wrong(place, format!("{setting}: {line}")))).ok()
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
            .wrong(place, "servers_within_attempt is a copy of the list in servers_within, which is not set");
    }
    let attempt = section.optional("servers_within_attempt", read_file).flatten();
    let read = |path: &str| Ok(read_file(path)?.map(|text| (File { path: path.into() }, text)));
    let (file, text) = section.optional("servers_within", read)??;
    let named = self::read_file(section, "servers_within", place, &file, &text)?;
    let is_shard = |other: &Shard| shards.iter().any(|shard| shard.name == other.name);
    if named.len() == shards.len() || !named.iter().all(is_shard) {
        return None;
    }
    let all = shards.clone();
    shards.retain(|shard| named.iter().any(|other| other.name == shard.name));
    Some(Within { all, text: fnv(text.as_bytes()), is_attempted: attempt.is_some_and(|copy| copy == text) })
}
