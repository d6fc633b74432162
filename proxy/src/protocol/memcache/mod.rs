//! memcached's text protocol, classic and meta.
//!
//! [`Memcache::plan`] is the way of every request: its row in the command table says whether it is answered here,
//! refused, forwarded or split. One client's wish for silence is kept here and not passed on: a shard answers every
//! request, so responses and requests never lose step. Not here: the binary protocol, which memcached has deprecated.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use crate::buffer::Output;
use crate::privacy::Privacy;
use crate::protocol::caching::Caching;
use crate::protocol::channels::Channels;
use crate::protocol::strangers::Stranger;
use crate::protocol::{
    ClientRow, Confirming, Facts, Found, Greeting, Malformed, Monitoring, Owners, Part, Plan, Protocol,
    Question, Request, Route, Scripting, ShardIdentity, Spread, Transferring, Waiting, Watching, Wide,
    first_line,
};
use commands::{Answers, Everywhere, Handling, Local, Meta};
use decode::{RequestDecoder, Verdict};
use response::ResponseDecoder;
use split::Merge;

mod canonical;
pub mod commands;
pub mod decode;
mod decoders;
mod encode;
mod meta;
pub mod response;
mod shown;
mod split;
mod stats;
mod totals;
mod words;

/// memcached's text protocol.
#[derive(Debug)]
pub enum Memcache {}

/// What all clients of a pool share.
#[derive(Clone, Copy, Default, Debug)]
pub struct Settings {
    /// Gets that a shard cannot serve are answered as misses.
    pub miss_on_get_errors: bool,
}

/// How a client wants to be answered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Manner {
    withheld: Withheld,
    failure: Failure,
}

/// Which replies the client does not want to hear.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Withheld {
    #[default]
    None,
    /// All of them (`noreply`).
    All,
    /// A miss (`mg` with `q`).
    Miss,
    /// A success (`ms` and `md` with `q`).
    Success,
    /// A success, also one with a value (`ma` with `q`).
    SuccessOrValue,
}

/// How a failure is told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Failure {
    #[default]
    ServerError,
    /// As a miss of a classic get.
    End,
    /// As a miss of `mg`.
    MetaMiss,
}

/// memcached wants the padding, and does not look at bits that are left over.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Nothing waits for data here.
impl Waiting for Memcache {}

impl Scripting for Memcache {}

impl Watching for Memcache {}

impl Confirming for Memcache {}

impl Caching for Memcache {}

impl Wide for Memcache {}

impl Transferring for Memcache {}

impl Channels for Memcache {}

impl Monitoring for Memcache {
    fn command_name(Request { decoder, .. }: Request<'_, Self>) -> &[u8] {
        decoder.command().map_or(b"", |command| command.name.as_bytes())
    }
}

impl Protocol for Memcache {
    type Settings = Settings;
    type Session = ();
    type Lane = ();
    type RequestDecoder = RequestDecoder;
    type ResponseDecoder = ResponseDecoder;
    type Merge = Merge;
    type Manner = Manner;
    type Expected = Answers;

    const NAME: &'static str = "memcache";
    const FAMILIES: &'static [&'static str] = &commands::FAMILIES;
    const TOO_MANY_CLIENTS: &'static [u8] = b"ERROR Too many open connections\r\n";
    /// Of any version.
    const PROBE: &'static [u8] = b"version\r\n";
    // Every command with several keys can be split.

    fn probed(response: &[u8]) -> Option<Result<(), String>> {
        let line = first_line(response)?;
        let is_version = line.starts_with(b"VERSION ");
        Some(if is_version { Ok(()) } else { Err(String::from_utf8_lossy(line).into_owned()) })
    }

    fn session(_settings: &Settings) {}

    #[inline]
    fn lane(_session: &()) {}

    fn keep_lane(_session: &mut (), _lane: ()) {}

    fn shown(head: &[u8], privacy: Privacy) -> Vec<Box<[u8]>> {
        shown::words(head, privacy)
    }

    #[inline(always)]
    fn plan(
        Request { decoder, canonical }: Request<'_, Self>,
        _session: &mut (),
        facts: &Facts<'_, Self>,
        plan: &mut Plan<Self>,
    ) -> Route<Merge> {
        let refusal = match decoder.verdict() {
            Verdict::Good => None,
            Verdict::Refused(line) => Some(line),
            Verdict::Swallowed => return Route::Ignore,
        };
        plan.family = decoder.command().map_or(0, |command| command.handling.family());
        if decoder.noreply {
            plan.manner.withheld = Withheld::All;
        }
        if let Some(line) = refusal {
            return refuse(line, facts, plan);
        }
        let command = decoder.command().expect("a request that is served has a row");
        plan.expected = command.answers;
        plan.reads = command.handling.reads();
        match command.handling {
            Handling::Keys { first } => {
                if facts.settings.miss_on_get_errors {
                    plan.manner.failure = Failure::End;
                }
                if decoder.word_count() == first + 1 {
                    plan.keys.extend(decoder.place(first));
                    return Route::Forward;
                }
                let line = decoder.line(canonical);
                let base = line.as_ptr() as usize;
                let places = words::words(line).map(|word| (word.as_ptr() as usize - base, word.len()));
                plan.keys.extend(places.skip(first));
                if plan.keys.is_empty() {
                    encode::line(&mut plan.reply, "END");
                    return Route::Answer;
                }
                let keys = plan.keys.iter().map(|&(start, length)| (start as u32, length as u32)).collect();
                Route::Split(Merge::Values { line: line.into(), keys })
            }
            Handling::Key | Handling::Value => {
                plan.keys.extend(decoder.place(1));
                Route::Forward
            }
            Handling::Meta(meta) => {
                if decoder.flags.quiet {
                    plan.manner.withheld = match meta {
                        Meta::Get => Withheld::Miss,
                        Meta::Set | Meta::Delete => Withheld::Success,
                        Meta::Arithmetic => Withheld::SuccessOrValue,
                        Meta::Debug => Withheld::None,
                    };
                }
                // A miss that had to carry parts of the request would not be recognized without them.
                if facts.settings.miss_on_get_errors && meta == Meta::Get && !decoder.flags.reflects {
                    plan.manner.failure = Failure::MetaMiss;
                }
                let (start, length) = decoder.place(1).expect("a meta command has a key");
                if !decoder.flags.base64 {
                    plan.keys.push((start, length));
                    return Route::Forward;
                }
                let written = &canonical[start..start + length];
                if BASE64.decode_vec(written, &mut plan.decoded).is_err() || plan.decoded.is_empty() {
                    plan.decoded.clear();
                    return refuse("CLIENT_ERROR error decoding key", facts, plan);
                }
                plan.keys.push((0, plan.decoded.len()));
                Route::Forward
            }
            Handling::Everywhere(Everywhere::Version) => Route::Everywhere(Merge::Version),
            Handling::Everywhere(Everywhere::AllOk) => Route::Everywhere(Merge::AllOk),
            Handling::Answer(Local::MetaNoop) => {
                encode::line(&mut plan.reply, "MN");
                Route::Answer
            }
            Handling::Answer(Local::Quit) => Route::AnswerAndClose,
            Handling::Answer(Local::Stats) => plan_stats(decoder.line(canonical), facts, plan),
            Handling::Refuse(reason) => {
                refuse(&format!("CLIENT_ERROR {} is refused: {reason}", command.name), facts, plan)
            }
        }
    }

    fn split(
        merge: &Merge,
        Request { decoder, canonical }: Request<'_, Self>,
        owners: &[u32],
        fragments: &mut [Vec<u8>],
    ) {
        split::split(merge, decoder, canonical, owners, fragments);
    }

    fn parts_max(merge: &Merge) -> usize {
        split::parts_max(merge)
    }

    fn overlong(merge: &Merge, reply: &mut Vec<u8>) {
        // As others of ours, below 80 bytes.
        let mib = split::parts_max(merge) >> 20;
        encode::line(
            reply,
            &format!("SERVER_ERROR statistics have more than {mib} MiB; ask the servers directly"),
        );
    }

    fn merge(merge: Merge, owners: &Owners, parts: Vec<Part>, reply: &mut Output) -> bool {
        split::merge(merge, owners, parts, reply);
        false
    }

    #[inline]
    fn fits(expected: Answers, beginning: &[u8]) -> bool {
        response::fits(expected, beginning)
    }

    fn is_odd(merge: &Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool {
        split::is_odd(merge, owners, fragment, response)
    }

    fn greeting(
        _settings: &Settings,
        _lane: (),
        _is_replica: bool,
        _identity: Option<&ShardIdentity>,
        _out: &mut Vec<u8>,
    ) -> Greeting {
        Greeting { responses: 0, identity: None }
    }

    const ERROR: u8 = b'E';

    /// A miss (END, EN) and a conflict (EXISTS) begin as ERROR does, and other errors do not.
    fn error(response: &[u8]) -> Option<&[u8]> {
        response::is_error(response).then_some(response)
    }

    fn is_complaint(response: &[u8]) -> bool {
        response.starts_with(b"ERROR Too many open connections")
    }

    fn spread_keys(_spread: Spread) -> &'static str {
        "CLIENT_ERROR the keys belong to several shards\r\n"
    }

    fn greeted(_settings: &Settings, _response: &[u8]) -> Result<Option<usize>, String> {
        Ok(None)
    }

    #[inline]
    fn is_withheld(manner: Manner, beginning: &[u8]) -> bool {
        match manner.withheld {
            Withheld::None => false,
            Withheld::All => true,
            Withheld::Miss => beginning.starts_with(b"EN"),
            Withheld::Success => beginning.starts_with(b"HD"),
            Withheld::SuccessOrValue => beginning.starts_with(b"HD") || beginning.starts_with(b"VA"),
        }
    }

    fn is_served_partly(manner: Manner) -> bool {
        manner.failure == Failure::End
    }

    fn failure(manner: Manner, words: &str, reply: &mut Vec<u8>) {
        match manner.failure {
            Failure::ServerError => encode::line(reply, &format!("SERVER_ERROR {words}")),
            Failure::End => encode::line(reply, "END"),
            Failure::MetaMiss => encode::line(reply, "EN"),
        }
    }

    fn out_of_memory(reply: &mut Vec<u8>) {
        encode::line(reply, "SERVER_ERROR out of memory: the proxy has reached memory_max");
    }

    fn merge_bytes(merge: &Merge) -> usize {
        match merge {
            Merge::Values { line, keys } => line.len() + size_of_val(&**keys),
            Merge::General(own) => own.len(),
            Merge::Version
            | Merge::AllOk
            | Merge::AllReset
            | Merge::Stats
            | Merge::Totals
            | Merge::Items(_) => 0,
        }
    }

    fn malformed(reason: &Malformed, input: &[u8], reply: &mut Vec<u8>) {
        if !Stranger::reply(input, &reason.0, reply) {
            encode::line(reply, &format!("CLIENT_ERROR {}", reason.0));
        }
    }

    /// No command of memcached asks for clients; operators do. In the words of a server of Redis.
    fn list(client: &ClientRow<'_>, _session: &(), line: &mut String) {
        let _ = writeln!(
            line,
            "id={} addr={} laddr={} age={} idle={} flags=N tot-mem={}",
            client.id,
            client.address,
            client.local_address,
            client.age,
            client.idle,
            client.input_bytes + client.output_bytes
        );
    }

    fn answer(_: &Question, _session: &(), _: &Settings, _found: &Found, _reply: &mut Output) {}
}

fn refuse(line: &str, facts: &Facts<'_, Memcache>, plan: &mut Plan<Memcache>) -> Route<Merge> {
    facts.counters.refused.add(1);
    encode::line(&mut plan.reply, line);
    Route::Answer
}

/// `stats`: our own and those of all shards as one, as of `stats settings` and its like; `stats shards [what]`: those of each shard; `stats cachedump`: keys of all; `stats reset`: they count anew.
fn plan_stats(line: &[u8], facts: &Facts<'_, Memcache>, plan: &mut Plan<Memcache>) -> Route<Merge> {
    // What else a server lists does not come as lines, or changes it.
    const OF_SHARDS: [&[u8]; 7] =
        [b"settings", b"items", b"slabs", b"sizes", b"conns", b"extstore", b"proxy"];
    // What can be said of several servers as if they were one.
    const OF_ALL: [&[u8]; 4] = [b"settings", b"items", b"slabs", b"sizes"];
    let all: Vec<&[u8]> = words::words(line).collect();
    match all[1..] {
        [] => {
            let mut own = Vec::new();
            stats::stats(facts, &mut own);
            Route::Everywhere(Merge::General(own.into()))
        }
        [what] if OF_ALL.contains(&what) => Route::Everywhere(Merge::Totals),
        // Of how many, where the third word says that: 0 are all.
        [b"cachedump", _, most] => {
            let most = std::str::from_utf8(most).ok().and_then(|most| most.parse().ok()).unwrap_or(0);
            Route::Everywhere(Merge::Items(if most == 0 { usize::MAX } else { most }))
        }
        [b"reset"] => Route::Everywhere(Merge::AllReset),
        [b"shards"] => Route::Everywhere(Merge::Stats),
        [b"shards", what] if OF_SHARDS.contains(&what) => Route::Everywhere(Merge::Stats),
        // libmemcached's tests want no line above 79 bytes.
        _ => {
            refuse("CLIENT_ERROR the proxy supports stats [shards] [settings|items|slabs|sizes]", facts, plan)
        }
    }
}
