//! ACL: what a server says of its users. Those of the file are shown as the file has them, with the hashes of their passwords, as a
//! server shows them to whoever may ask. The password of the pool is never shown, nor a digest of it.

use super::command;
use crate::denied::Entry;
use crate::protocol::resp::acl::file::DEFAULT;
use crate::protocol::resp::acl::user::User;
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::{Categories, WrongArity};
use crate::protocol::resp::session::{Session, Settings, number};
use crate::protocol::resp::{Resp, encode, rights};
use crate::protocol::{Facts, Plan};

/// `ACL WHOAMI`
pub fn who(session: &Session) -> &[u8] {
    session.login().map_or(DEFAULT, |login| &login.user.name).as_bytes()
}

/// The users of the file, and before them whether there is another default user.
fn all(settings: &Settings) -> (bool, impl ExactSizeIterator<Item = &User>) {
    let users: &[_] = settings.users.as_ref().map_or(&[], |users| users.all());
    (settings.default_user().is_none(), users.iter().map(|user| &**user))
}

/// `ACL USERS`
pub fn users(settings: &Settings, out: &mut Vec<u8>) {
    let (has_other_default, users) = all(settings);
    encode::array(out, users.len() + usize::from(has_other_default));
    if has_other_default {
        encode::bulk(out, DEFAULT.as_bytes());
    }
    users.for_each(|user| encode::bulk(out, user.name.as_bytes()));
}

/// `ACL LIST`: as a server has it in its file, but for the password of the pool.
pub fn list(settings: &Settings, out: &mut Vec<u8>) {
    let (has_other_default, users) = all(settings);
    encode::array(out, users.len() + usize::from(has_other_default));
    if has_other_default {
        let open = if settings.password.is_none() { " nopass" } else { "" };
        encode::bulk(out, format!("user default on{open} ~* &* +@all").as_bytes());
    }
    users.for_each(|user| encode::bulk(out, user.to_string().as_bytes()));
}

/// `ACL GETUSER name`
pub fn user(name: &[u8], session: &Session, settings: &Settings, out: &mut Vec<u8>) {
    let resp3 = session.resp3;
    if let Some(user) = settings.users.as_ref().and_then(|users| users.find(name)) {
        let hashes: Vec<_> = user.hashes().collect();
        let mut selectors: Vec<_> = user.selectors().collect();
        let root = selectors.remove(0);
        return describe(user.is_on, user.needs_none, &hashes, &root, &selectors, resp3, out);
    }
    if name != DEFAULT.as_bytes() {
        return encode::null(out, resp3);
    }
    let root = ["+@all", "~*", "&*"].map(str::to_owned);
    describe(true, settings.password.is_none(), &[], &root, &[], resp3, out);
}

fn describe(
    is_on: bool,
    needs_none: bool,
    hashes: &[String],
    root: &[String; 3],
    selectors: &[[String; 3]],
    resp3: bool,
    out: &mut Vec<u8>,
) {
    encode::map(out, resp3, 6);
    encode::bulk(out, b"flags");
    encode::set(out, resp3, 1 + usize::from(needs_none));
    encode::bulk(out, if is_on { &b"on"[..] } else { b"off" });
    if needs_none {
        encode::bulk(out, b"nopass");
    }
    encode::bulk(out, b"passwords");
    encode::array(out, hashes.len());
    hashes.iter().for_each(|hash| encode::bulk(out, hash.as_bytes()));
    describe_selector(root, out);
    encode::bulk(out, b"selectors");
    encode::array(out, selectors.len());
    for selector in selectors {
        encode::map(out, resp3, 3);
        describe_selector(selector, out);
    }
}

fn describe_selector(selector: &[String; 3], out: &mut Vec<u8>) {
    for (name, value) in ["commands", "keys", "channels"].into_iter().zip(selector) {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
}

/// `ACL DRYRUN user command [argument ...]`
pub fn dry_run(all: &[&[u8]], facts: &Facts<'_, Resp>, out: &mut Vec<u8>) {
    let [_, _, name, request @ ..] = all else { return encode::error(out, "ERR syntax error") };
    let users = facts.settings.users.as_ref();
    let user = users.and_then(|users| users.find(name));
    if user.is_none() && *name != DEFAULT.as_bytes() {
        let name = String::from_utf8_lossy(name).into_owned();
        return encode::error(out, &format!("ERR User '{name}' not found"));
    }
    let word = request.first().copied().unwrap_or_default();
    let ours = lookup(word).filter(|row| !facts.store.commands.lacks(row));
    let ours = ours.and_then(|row| match request.get(1) {
        Some(word) if !row.subcommands.is_empty() => row.subcommand(word),
        _ => Some(row),
    });
    let learnt = match lookup(word) {
        None => facts.store.commands.find(word, request.get(1).copied()),
        Some(_) => None,
    };
    let Some(command) = ours.or(learnt.as_ref()) else {
        let word = String::from_utf8_lossy(word).into_owned();
        return encode::error(out, &format!("ERR Command '{word}' not found"));
    };
    if !command.accepts(request.len()) {
        return encode::error(out, &WrongArity(command).to_string());
    }
    match user.map(|user| (user, user.check(command, request.len(), |place| request[place]))) {
        Some((user, Err(denied))) => {
            let told = rights::told(denied, command, request, user, rights::is_older(facts));
            encode::bulk(out, told.as_bytes());
        }
        // The default user of a pool that has none in its file may do everything.
        Some((_, Ok(()))) | None => encode::simple(out, "OK"),
    }
}

/// Entries that are told of who does not say how many.
const ENTRIES_USUAL: usize = 10;

/// `ACL LOG [count | RESET]`
pub fn log(words: &[&[u8]], resp3: bool, facts: &Facts<'_, Resp>, out: &mut Vec<u8>) {
    let count = match words {
        [] => ENTRIES_USUAL,
        [word] if word.eq_ignore_ascii_case(b"reset") => {
            facts.denied.reset();
            return encode::simple(out, "OK");
        }
        [word] => match number(word) {
            Some(count) => usize::try_from(count).unwrap_or(0),
            None => return encode::error(out, "ERR value is not an integer or out of range"),
        },
        _ => return encode::error(out, "ERR wrong number of arguments for 'acl|log' command"),
    };
    let entries = facts.denied.latest(count);
    encode::array(out, entries.len());
    let now = facts.unix_micros() / 1000;
    entries.iter().for_each(|entry| write(entry, now, resp3, out));
}

fn write(entry: &Entry, now: u64, resp3: bool, out: &mut Vec<u8>) {
    let Entry { id, event, count, created, updated } = entry;
    encode::map(out, resp3, 10);
    encode::bulk(out, b"count");
    encode::integer(out, i64::try_from(*count).unwrap_or(i64::MAX));
    for (name, value) in [
        ("reason", event.reason.word()),
        ("context", event.context.word()),
        ("object", &event.object),
        ("username", &event.user),
    ] {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"age-seconds");
    let age = now.saturating_sub(*updated) as f64 / 1000.0;
    if resp3 {
        out.extend_from_slice(format!(",{age}\r\n").as_bytes());
    } else {
        encode::bulk(out, age.to_string().as_bytes());
    }
    encode::bulk(out, b"client-info");
    encode::bulk(out, event.client.as_bytes());
    for (name, value) in
        [("entry-id", id), ("timestamp-created", created), ("timestamp-last-updated", updated)]
    {
        encode::bulk(out, name.as_bytes());
        encode::integer(out, i64::try_from(*value).unwrap_or(i64::MAX));
    }
}

/// `ACL CAT [category]`: the commands that the proxy does.
pub fn categories(all: &[&[u8]], facts: &Facts<'_, Resp>, plan: &mut Plan<Resp>) {
    let Plan { reply: out, searched, .. } = plan;
    match all[2..] {
        [] => {
            let names = Categories::ALL.names();
            encode::array(out, names.clone().count());
            names.for_each(|name| encode::bulk(out, &name.as_bytes()[1..]));
        }
        [name] => {
            if !command::of_category(name, facts.settings.one_shard, &facts.store.commands, searched, out) {
                encode::error(out, &format!("ERR Unknown category '{}'", String::from_utf8_lossy(name)));
            }
        }
        _ => {
            // Redis cuts the word at 128 bytes.
            let word = String::from_utf8_lossy(&all[1][..all[1].len().min(128)]);
            encode::error(
                out,
                &format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try ACL HELP."),
            );
        }
    }
}
