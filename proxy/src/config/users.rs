//! Users: who may come in beside those that know the password of the pool, and what each may do.

use std::path::Path;
use std::sync::Arc;

use super::Surroundings;
use super::auth::Auth;
use super::mistake::did_you_mean;
use super::section::Section;
use crate::protocol::acl::file::{DEFAULT, Mistake, Users};
use crate::protocol::acl::password::Hash;
use crate::protocol::acl::rules;

/// Mistakes of a file that are told; there may be one in every line.
const MISTAKES_MAX: usize = 20;

/// The users of the file, if one is named.
pub(super) fn read_users(
    section: &mut Section<'_, '_>,
    redis: bool,
    auth: Option<&Auth>,
    around: &Surroundings<'_>,
) -> Option<Arc<Users>> {
    const NAME: &str = "users_file";
    if !section.has(NAME) {
        return None;
    }
    let place = section.place(NAME);
    if !redis {
        section.wrong(place, "users_file is for Redis pools; this one is a memcache pool (redis: false)");
        return None;
    }
    let mut mistakes = Vec::new();
    let mut path = String::new();
    let users = section.optional(NAME, |named| {
        path = named.to_owned();
        let text = (around.read_file)(Path::new(named)).map_err(|error| error.to_string())?;
        match Users::read(&text) {
            Ok(users) => Ok(Some(users)),
            Err(wrong) => {
                mistakes = wrong;
                Ok(None)
            }
        }
    })?;
    let count = mistakes.len();
    for mistake in mistakes.into_iter().take(MISTAKES_MAX) {
        section.wrong(place, format!("users_file: {}", told(&path, &mistake)));
    }
    if count > MISTAKES_MAX {
        section.wrong(place, format!("users_file: {path}: {} more mistakes", count - MISTAKES_MAX));
    }
    let users = users?;
    if let Some(why) = contradiction(&users, auth) {
        section.wrong(place, format!("users_file: {path}: {why}"));
        return None;
    }
    Some(Arc::new(users))
}

fn told(path: &str, mistake: &Mistake) -> String {
    let Mistake { line, word, shown, text, is_name } = mistake;
    let word = word.map(|word| format!(", word {word}")).unwrap_or_default();
    let shown_word = shown.as_ref().map(|shown| format!(" {shown}:")).unwrap_or_default();
    let meant = match shown {
        Some(shown) if *is_name => did_you_mean(&shown[1..], rules::names()),
        _ => String::new(),
    };
    format!("{path}: line {line}{word}:{shown_word} {text}{meant}")
}

/// The password of the pool is that of the user `default`, for clients and shards, unless it belongs to another user (`redis_user`). Where the
/// file has a user `default` as well both have to mean the same, or that one is off.
fn contradiction(users: &Users, auth: Option<&Auth>) -> Option<String> {
    let of_default = auth.filter(|auth| auth.user.is_none());
    match (users.find(DEFAULT.as_bytes()), of_default) {
        (None, None) => Some(
            "there is no user default, and no redis_auth, so everybody would be let in without a password; add a line \
             \"user default off\", or \"user default on nopass ~* &* +@all\" if that is meant"
                .into(),
        ),
        (Some(user), Some(auth)) if user.is_on => {
            let accepts = |password: &str| user.accepts(Hash::of(password.as_bytes()).as_ref());
            if user.needs_none {
                Some("user default needs no password, but redis_auth is set; leave one of them out, or name the user that the password belongs to (redis_user)".into())
            } else if !accepts(auth.password.expose()) {
                Some("user default does not accept redis_auth; add that password to the line, switch the user off, or name the user that the password belongs to (redis_user)".into())
            } else {
                None
            }
        }
        _ => None,
    }
}
