//! ACL: what a server with the one user `default` says of its users. Its password is never shown, nor a digest of it.

use super::command;
use crate::protocol::resp::command::Categories;
use crate::protocol::resp::session::{Session, Settings};
use crate::protocol::resp::{Resp, encode};
use crate::protocol::{Facts, Plan};

/// The user that every client is.
pub const USER: &[u8] = b"default";

/// `ACL USERS`
pub fn users(out: &mut Vec<u8>) {
    encode::array(out, 1);
    encode::bulk(out, USER);
}

/// `ACL LIST`: as a server has it in its file, but for the password.
pub fn list(settings: &Settings, out: &mut Vec<u8>) {
    let open = if settings.password.is_none() { " nopass" } else { "" };
    encode::array(out, 1);
    encode::bulk(out, format!("user default on{open} ~* &* +@all").as_bytes());
}

/// `ACL GETUSER name`
pub fn user(name: &[u8], session: &Session, settings: &Settings, out: &mut Vec<u8>) {
    let resp3 = session.resp3;
    if name != USER {
        return encode::null(out, resp3);
    }
    let flags: &[&str] = if settings.password.is_none() { &["on", "nopass"] } else { &["on"] };
    encode::map(out, resp3, 6);
    encode::bulk(out, b"flags");
    encode::set(out, resp3, flags.len());
    flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
    encode::bulk(out, b"passwords");
    encode::array(out, 0);
    for (name, value) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"selectors");
    encode::array(out, 0);
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
