//! Which scripts never say themselves that a shard does not know them, as far as that can be read in their text.
//!
//! A script answers with an error of its own by `redis.error_reply`, by a table with `err`, or by `error`. One that does that with words
//! that stand in its text says those and no others. Everything that could make such an answer out of data, or by another name, is
//! taken for one that may say anything: then it only has to be asked for more often.

/// What may stand behind the libraries through which answers are made. Those that read data into tables are not among them.
const LIBRARIES: [(&str, &[&str]); 4] =
    [("redis", REDIS), ("server", REDIS), ("cjson", &["encode"]), ("cmsgpack", &["pack"])];
const REDIS: &[&str] = &[
    "call",
    "pcall",
    "error_reply",
    "status_reply",
    "sha1hex",
    "log",
    "replicate_commands",
    "setresp",
    "LOG_DEBUG",
    "LOG_VERBOSE",
    "LOG_NOTICE",
    "LOG_WARNING",
];
/// Other ways to make code or tables out of data.
const DYNAMIC: [&str; 6] = ["NOSCRIPT", "load", "rawset", "meta", "fenv", "_G"];

/// A longer text is not read.
const TEXT_MAX: usize = 32 * 1024;
/// An index of a table is not looked for further back.
const INDEX_MAX: usize = 64;

/// Whether this script never answers with an error but those that commands give it, and those whose words stand in its text and are not
/// NOSCRIPT.
pub fn is_mute(text: &[u8]) -> bool {
    if text.len() > TEXT_MAX {
        return false;
    }
    let Ok(text) = std::str::from_utf8(text) else { return false };
    !DYNAMIC.iter().any(|word| text.contains(word))
        && LIBRARIES.iter().all(|(library, members)| is_used_plainly(text, library, members))
        && behind_each(text, "err").all(is_plain_error)
        && places_of(text, "]").all(|at| is_plain_index(&text[..at], &text[at + 1..]))
}

fn places_of<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> {
    text.match_indices(word).map(|(at, _)| at)
}

fn behind_each<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(word).map(move |(at, _)| &text[at + word.len()..])
}

/// Whether one of these members stands behind the library wherever it is named.
fn is_used_plainly(text: &str, library: &str, members: &[&str]) -> bool {
    behind_each(text, library).all(|behind| {
        let member = behind.strip_prefix('.').unwrap_or_default();
        let end = member.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        members.contains(&&member[..end.unwrap_or(member.len())])
    })
}

/// Whether what stands behind `err` makes an error of words that stand there, or none.
fn is_plain_error(behind: &str) -> bool {
    let call = behind.strip_prefix("or_reply").or_else(|| behind.strip_prefix("or"));
    if let Some(call) = call {
        let words = call.trim_start().strip_prefix('(').and_then(behind_words);
        return words.is_some_and(|rest| rest.trim_start().starts_with(')'));
    }
    match behind.trim_start().strip_prefix('=') {
        // It is compared.
        Some(value) if value.starts_with('=') => true,
        Some(value) => behind_words(value).is_some_and(|rest| {
            let rest = rest.trim_start();
            rest.is_empty() || rest.starts_with([',', '}', ';'])
        }),
        None => behind.starts_with(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'),
    }
}

/// What stands behind words in quotes.
fn behind_words(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
    let (words, rest) = text[1..].split_once(quote)?;
    (!words.contains('\\')).then_some(rest)
}

/// Whether nothing is put into a table here under a name that is not known: only numbers are.
fn is_plain_index(before: &str, behind: &str) -> bool {
    let behind = behind.trim_start();
    // Several are put at once, or a comment stands between.
    let is_put = behind.starts_with(',')
        || behind.starts_with("--")
        || behind.strip_prefix('=').is_some_and(|value| !value.starts_with('='));
    let near = &before.as_bytes()[before.len().saturating_sub(INDEX_MAX)..];
    let index = near.rsplit(|&byte| byte == b'[').next().unwrap_or_default().trim_ascii();
    let is_number = !index.is_empty() && index.iter().all(u8::is_ascii_digit);
    // `#t`, `#t + 1`.
    let is_end = index.strip_prefix(b"#").is_some_and(|end| {
        let mut parts = end.splitn(2, |&byte| byte == b'+').map(<[u8]>::trim_ascii);
        let is_word = |word: &[u8]| word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        parts.next().is_some_and(is_word)
            && parts.next().is_none_or(|more| more.iter().all(u8::is_ascii_digit))
    });
    !is_put || is_number || is_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_say_nothing_of_their_own() {
        for text in [
            "return 1",
            "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
            "local t = {} t[1] = 2 t[#t + 1] = redis.pcall('get', KEYS[1]) return t",
            "return redis.error_reply('LOCKED it is')",
            "return {err = \"LOCKED\"}",
            "local r = redis.pcall('incr', KEYS[1]) if r.err then return 0 end if r['err'] == 'x' then return 1 end return r",
            "error('no')",
            "return cjson.encode({1, 2})",
            "",
        ] {
            assert!(is_mute(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn scripts_that_may_say_anything() {
        for text in [
            "return redis.error_reply('NOSCRIPT No matching script. Please use EVAL.')",
            "return redis.error_reply(ARGV[1])",
            "return redis.error_reply('NO' .. 'SCRIPT No matching script.')",
            "return redis.error_reply('\\78OSCRIPT')",
            "return {err = ARGV[1]}",
            "return {err=x}",
            "return {['err'] = ARGV[1]}",
            "local t = {} t[ARGV[1]] = ARGV[2] return t",
            "local t, x = {} t['e'..'rr'], x = ARGV[1], 1 return t",
            "local t, k = {}, {'e'..'rr'} t[k[#k]] = ARGV[1] return t",
            "local t = {} t[#t and 'e'..'rr'] = ARGV[1] return t",
            "local t = {} t['e'..'rr'] --\n = ARGV[1] return t",
            "local r = {} r.err = KEYS[1] return r",
            "return cjson.decode(ARGV[1])",
            "local c = cjson return c.decode(ARGV[1])",
            "return cmsgpack.unpack(ARGV[1])",
            "return redis['error' .. '_reply'](ARGV[1])",
            "local r = redis return r.x(ARGV[1])",
            "local e = redis.error_reply return e(ARGV[1])",
            "return loadstring(ARGV[1])()",
            "rawset(t, 'e' .. 'rr', ARGV[1])",
            "return _G['redis']",
            "error(ARGV[1])",
            "local ok, err = pcall(f) return err",
            "return server.error_reply(ARGV[1])",
        ] {
            assert!(!is_mute(text.as_bytes()), "{text}");
        }
        assert!(!is_mute(b"return '\xff'"), "it is no text");
    }
}
