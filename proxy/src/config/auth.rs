//! Passwords: what is said to the shards, and asked of clients.

use std::io::ErrorKind;
use std::path::Path;

use super::Surroundings;
use super::section::Section;
use super::value::text;
use crate::secret::{Secret, without_line_ends};

/// What is said to the shards, and asked of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// A user beside the password.
    pub user: Option<String>,
    /// The password.
    pub password: Secret,
    /// The one before it, while it is being changed.
    pub previous: Option<Secret>,
}

/// What becomes of clients once their password has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reauth {
    /// They are closed between two requests.
    Close,
    /// They stay.
    Keep,
}

/// The password comes from the file itself, from another file, or from the environment.
pub(super) fn read_auth(
    section: &mut Section<'_, '_>,
    redis: bool,
    around: &Surroundings<'_>,
) -> Option<Auth> {
    const SOURCES: [&str; 3] = ["redis_auth", "redis_auth_file", "redis_auth_env"];
    let given: Vec<_> = SOURCES.into_iter().filter(|name| section.has(name)).collect();
    let user = section.optional("redis_user", text);
    let beside = ["redis_user", "redis_auth_previous_file"].into_iter().find(|name| section.has(name));
    if let Some(name) = given.first().copied().or(beside) {
        let place = section.place(name);
        if !redis {
            section.wrong(
                place,
                format!("{name} is for Redis pools; this one is a memcache pool (redis: false)"),
            );
            return None;
        }
        if given.is_empty() {
            section.wrong(
                place,
                format!("{name} needs a password as well: redis_auth, redis_auth_file or redis_auth_env"),
            );
        }
    }
    if let [first, second, ..] = given[..] {
        let place = section.place(second);
        section.wrong(place, format!("{first} and {second} are both set; keep one of them"));
    }
    let password = match *given.first()? {
        "redis_auth" => section.optional("redis_auth", text),
        "redis_auth_file" => section.optional("redis_auth_file", |path| secret_file(path, around)),
        _ => section.optional("redis_auth_env", |name| {
            let secret = (around.environment)(name).ok_or("there is no such environment variable")?;
            if secret.is_empty() { Err("the environment variable is empty".into()) } else { Ok(secret) }
        }),
    };
    let previous = section.optional("redis_auth_previous_file", |path| {
        match (around.read_file)(Path::new(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
            // Empty is as good as not there.
            Ok(text) => Ok(Some(without_line_ends(&text).to_owned()).filter(|text| !text.is_empty())),
        }
    });
    Some(Auth { user, password: Secret::new(password?), previous: previous.flatten().map(Secret::new) })
}

/// The secret in a file, without the line end that editors leave.
pub(super) fn secret_file(path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    let secret = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
    let secret = without_line_ends(&secret);
    if secret.is_empty() { Err("the file is empty".into()) } else { Ok(secret.to_owned()) }
}
