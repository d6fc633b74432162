//! What the proxy answers itself: a file for each family, the small ones here.
//!
//! Texts of replies and errors are Redis' own, because clients compare them.

use super::command::index::lookup;
use super::command::{Local, Merge};
use super::session::Session;
use super::{Resp, Words, encode, transaction};
use crate::protocol::{Facts, Plan, Route, Running};

mod access;
mod acl;
pub mod caching;
pub mod client;
pub mod cluster;
pub mod command;
mod encoded;
pub mod info;
pub mod slowlog;

/// Answers a command that the proxy itself answers.
pub fn answer(
    local: Local,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let all = words.to_vec();
    let out = &mut plan.reply;
    match local {
        // In this mode whatever comes has the form of a message.
        Local::Ping if session.mode.is_listening() && all.len() <= 2 => {
            encode::array(out, 2);
            encode::bulk(out, b"pong");
            encode::bulk(out, all.get(1).unwrap_or(&&b""[..]));
        }
        Local::Ping => match all[1..] {
            [] => encode::simple(out, "PONG"),
            [message] => encode::bulk(out, message),
            // COMMAND says that any number is right, the server does not.
            _ => encode::error(out, "ERR wrong number of arguments for 'ping' command"),
        },
        Local::Echo => encode::bulk(out, all[1]),
        Local::Time => {
            encode::array(out, 2);
            encode::bulk(out, (facts.unix_micros() / 1_000_000).to_string().as_bytes());
            encode::bulk(out, (facts.unix_micros() % 1_000_000).to_string().as_bytes());
        }
        Local::Quit => {
            encode::simple(out, "OK");
            return Route::AnswerAndClose;
        }
        Local::Reset => {
            let fresh = Session::new(facts.settings);
            if !facts.quiet {
                return Route::WhenQuiet;
            }
            // It ends CLIENT REPLY OFF, but SKIP was for this very reply.
            plan.manner.silent = session.reply_mode.skips_this();
            *session = fresh;
            encode::simple(out, "RESET");
            return Route::AnswerAndForget;
        }
        Local::Monitor if facts.settings.monitor => {
            encode::simple(out, "OK");
            return Route::Monitor;
        }
        Local::Monitor => {
            let words = "ERR MONITOR is refused: it needs monitor: true in the configuration of the pool; memstore monitor does not";
            encode::error(out, words);
        }
        Local::Hello => return access::hello(&all, session, facts, plan),
        Local::Auth => return access::authenticate(&all, session, facts, out),
        Local::Select => match access::select(all[1], session, facts) {
            Ok(db) if db != session.db && session.mode.may_watch() => {
                transaction::refuse_change("select", session, out);
            }
            Ok(db) if db != session.db && !facts.quiet => return Route::WhenQuiet,
            Ok(db) => {
                session.db = db;
                encode::simple(out, "OK");
            }
            Err(reply) => encode::error(out, &reply),
        },
        Local::Command => {
            command::answer(&all, facts.settings.one_shard, &facts.store.commands, session.resp3, plan);
        }
        Local::Help => {
            let container = lookup(all[0]).expect("its subcommand was found");
            command::help(container, facts.settings.one_shard, out);
        }
        Local::ClientList => return client::ask(client::list_question(&all[2..]), facts, plan),
        Local::ClientInfo => return client::ask(Ok(client::own_question(facts.client)), facts, plan),
        Local::ClientKill => {
            let users = facts.settings.users.as_deref();
            return client::ask(client::kill_question(&all[2..], facts.client, users), facts, plan);
        }
        Local::ClientUnblock => return client::ask(client::unblock_question(&all[2..]), facts, plan),
        Local::ClientReply => return client::reply_mode(all[2], session, plan),
        Local::ClientId => encode::integer(out, facts.client as i64),
        Local::ClientGetname => client::name(session, out),
        Local::ClientSetname => client::set_name(all[2], session, out),
        Local::ClientSetinfo => client::set_info(all[2], all[3], session, out),
        Local::ClientTracking => return caching::track(&all, session, facts, plan),
        Local::ClientCaching => caching::name_next(all[2], session, out),
        Local::ClientTrackinginfo => caching::info(session, out),
        Local::ClientGetredir => caching::redirection(session, out),
        Local::ClientNoEvict | Local::ClientNoTouch => client::on_or_off(all[2], out),
        // Nobody is ever paused.
        Local::ClientUnpause => encode::simple(out, "OK"),
        Local::AclWhoami => encode::bulk(out, acl::who(session)),
        Local::AclUsers => acl::users(facts.settings, out),
        Local::AclList => acl::list(facts.settings, out),
        Local::AclDryrun => acl::dry_run(&all, facts, out),
        Local::AclLog => acl::log(&all[2..], session.resp3, facts, out),
        Local::AclGetuser => acl::user(all[2], session, facts.settings, out),
        Local::AclCat => acl::categories(&all, facts, plan),
        Local::Multi => transaction::begin(session, out),
        Local::Exec => return transaction::execute(session, out),
        Local::Discard => transaction::discard(session, out),
        Local::Unwatch => transaction::unwatch(session, out),
        Local::Role => {
            encode::array(out, 3);
            encode::bulk(out, b"master");
            encode::integer(out, 0);
            encode::array(out, 0);
        }
        Local::ConfigGet => {
            // Each pattern is held against each parameter.
            plan.searched = all.len() * info::PARAMETERS_MAX;
            return info::config(&all, session.resp3, facts, out);
        }
        Local::ConfigSet => match info::config_set(&all[2..]) {
            Ok(flags) => return client::ask(Ok(client::notify_question(flags)), facts, plan),
            Err(words) => encode::error(out, &words),
        },
        Local::ScriptKill => return client::ask(client::stop_question(Running::Script, facts), facts, plan),
        Local::FunctionKill => {
            return client::ask(client::stop_question(Running::Function, facts), facts, plan);
        }
        Local::SlowlogGet | Local::SlowlogLen | Local::SlowlogReset => {
            return slowlog::answer(local, words, facts, plan);
        }
        Local::Info => return info::info(words.canonical, &all, facts, session.resp3, plan),
        Local::Readonly | Local::Readwrite => encode::simple(out, "OK"),
        Local::Cluster(word) => return cluster::answer(word, &all, session, facts, plan),
        Local::Asking if facts.settings.facade.is_some() => encode::simple(out, "OK"),
        Local::Asking => encode::error(out, cluster::DISABLED),
        Local::Lolwut => {
            let (kind, version) = info::kind(facts);
            let server = if kind == "valkey" { "Valkey" } else { "Redis" };
            let text = format!("memstore ver. {}, {server} ver. {version}\n", env!("CARGO_PKG_VERSION"));
            encode::bulk(out, text.as_bytes());
        }
    }
    Route::Answer
}
