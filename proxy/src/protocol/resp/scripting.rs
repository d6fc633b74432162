//! Scripts and functions: what a request runs, and what is said to shards of it.

use memchr::memmem;

use super::command::{Command, Handling, ScriptChange, ScriptKind, index};
use super::decode::{RequestDecoder, RequestLimits, ResponseDecoder};
use super::waiting::words_of;
use super::{Resp, Words, encode, mute};
use crate::protocol::{Facts, Refused, RequestBounds, Run, Scripting};
use crate::scripts::{Digest, LibraryChange};

/// What servers say of a script that they do not know, but for what they advise behind it, and how long it is at most.
const UNKNOWN: &[u8] = b"-NOSCRIPT No matching script";
const UNKNOWN_MAX: usize = 128;

/// What a request runs whose command runs scripts of this kind.
pub fn run(script: ScriptKind, words: &Words<'_>) -> Run {
    match script {
        ScriptKind::Text => {
            words.decoder.place(1).map_or(Run::Unknown, |(start, length)| Run::Text { start, length })
        }
        ScriptKind::Digest => {
            let digest = words.decoder.head(1, words.canonical).and_then(digest);
            digest.map_or(Run::Unknown, Run::Named)
        }
        ScriptKind::Function => Run::Unknown,
    }
}

/// Remembers a script, where the command is to make shards do so. They have not done it yet: until they have, it is sent to those that
/// lack it.
pub fn note(command: &Command, words: &Words<'_>, facts: &Facts<'_, Resp>) {
    if command.scripts == Some(ScriptChange::Shown) {
        let forgotten = words.iter().last().map(|text| facts.scripts.remember(text, Resp::load_script));
        facts.counters.scripts_forgotten.add(forgotten.unwrap_or_default());
    }
}

/// As a client writes it: 40 hexadecimal digits, in either case.
fn digest(word: &[u8]) -> Option<Digest> {
    let mut digest = Digest::default();
    if word.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(word.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(digest)
}

/// The name of a library, which stands in the first line of its code: `#!lua name=mylib`.
fn library_name(code: &[u8]) -> Option<&[u8]> {
    const LINE_MAX: usize = 1024;
    let line = code[..code.len().min(LINE_MAX)].split(|&byte| byte == b'\n').next()?;
    let mut words = line.strip_prefix(b"#!")?.split(u8::is_ascii_whitespace);
    words.find_map(|word| word.strip_prefix(b"name="))
}

impl Scripting for Resp {
    fn load_script(text: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(text.len() + 48);
        encode::request(&mut request, &[b"SCRIPT", b"LOAD", text]);
        request
    }

    fn script_refused(response: &[u8]) -> Refused {
        let is_passing = |word: &&[u8]| response.starts_with(word);
        if [&b"-BUSY "[..], b"-LOADING ", b"-OOM "].iter().any(is_passing) {
            Refused::ForNow
        } else if response.starts_with(b"-ERR Error compiling script") {
            Refused::Everywhere
        } else {
            Refused::Here
        }
    }

    fn forgets_scripts(request: &[u8]) -> bool {
        let Some(row) = request.get(8..14).and_then(index::lookup).filter(|row| row.name == "script") else {
            return false;
        };
        let bounds = RequestBounds { bytes: u64::MAX, arguments: usize::MAX };
        let mut decoder = RequestDecoder::default();
        let Ok(Some(length)) = decoder.decode(request, RequestLimits { bounds, authenticated: true }) else {
            return false;
        };
        let canonical = decoder.canonical(&request[..length]);
        let command = decoder.head(1, canonical).and_then(|word| row.subcommand(word));
        let mut options = decoder.arguments(canonical).skip(2).map(|option| option.value);
        let is_option =
            |word: &[u8]| word.eq_ignore_ascii_case(b"ASYNC") || word.eq_ignore_ascii_case(b"SYNC");
        command.is_some_and(|command| command.scripts == Some(ScriptChange::Forgotten))
            && options.next().is_none_or(is_option)
            && options.next().is_none()
    }

    fn library_change(request: &[u8]) -> Option<LibraryChange<'_>> {
        // Most of what all shards are asked is something else.
        let container =
            request.get(8..16).and_then(index::lookup).filter(|row| !row.subcommands.is_empty())?;
        let mut decoder = RequestDecoder::default();
        let words = words_of(&mut decoder, request)?;
        let change = container.subcommand(words.get(1)?)?.scripts?;
        // The last word, as it stands in the request.
        let start = (words.last()?.as_ptr() as usize).checked_sub(request.as_ptr() as usize)?;
        let last = request.get(start..start + words.last()?.len())?;
        Some(match change {
            // Shards refuse one that has no name.
            ScriptChange::LibraryLoaded => LibraryChange::Loaded(library_name(last)?, last),
            ScriptChange::LibraryDeleted => LibraryChange::Deleted(last),
            // Shards refuse any other word, and forget nothing.
            ScriptChange::LibrariesDeleted
                if words.len() == 2
                    || words.len() == 3
                        && [&b"ASYNC"[..], b"SYNC"].iter().any(|how| last.eq_ignore_ascii_case(how)) =>
            {
                LibraryChange::AllDeleted
            }
            ScriptChange::LibrariesDeleted => return None,
            ScriptChange::LibrariesRestored => LibraryChange::Any,
            ScriptChange::Shown | ScriptChange::Forgotten => return None,
        })
    }

    fn is_unknown_script(response: &[u8]) -> bool {
        response.starts_with(UNKNOWN) && response.len() <= UNKNOWN_MAX
    }

    fn is_mute(load: &[u8]) -> bool {
        let mut decoder = RequestDecoder::default();
        let words = words_of(&mut decoder, load).unwrap_or_default();
        words.last().is_some_and(|text| mute::is_mute(text))
    }

    fn has_unknown_script(response: &[u8]) -> bool {
        if memmem::find(response, UNKNOWN).is_none() {
            return false;
        }
        let Some(head) = response.iter().position(|&byte| byte == b'\n') else { return false };
        let mut rest = &response[head + 1..];
        while !rest.is_empty() {
            let progress = ResponseDecoder::default().decode(rest);
            let Some(progress) = progress.ok().filter(|progress| progress.complete) else { return false };
            let (element, behind) = rest.split_at(progress.length);
            if Self::is_unknown_script(element) {
                return true;
            }
            rest = behind;
        }
        false
    }

    fn ask_scripts(scripts: &[Digest]) -> Vec<u8> {
        let hexadecimal = |digest: &Digest| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let names: Vec<String> = scripts.iter().map(hexadecimal).collect();
        let words: Vec<&[u8]> =
            [&b"SCRIPT"[..], b"EXISTS"].into_iter().chain(names.iter().map(String::as_bytes)).collect();
        let mut request = Vec::new();
        encode::request(&mut request, &words);
        request
    }

    fn scripts_known(response: &[u8], count: usize) -> Option<Vec<bool>> {
        let mut lines = std::str::from_utf8(response).ok()?.split_terminator("\r\n");
        if lines.next()?.strip_prefix('*')?.parse() != Ok(count) {
            return None;
        }
        let known = |line| match line {
            ":0" => Some(false),
            ":1" => Some(true),
            _ => None,
        };
        let known: Option<Vec<bool>> = lines.map(known).collect();
        known.filter(|known| known.len() == count)
    }

    fn scripts_named(mut requests: &[u8], most: usize) -> Vec<Digest> {
        let bounds = RequestBounds { bytes: u64::MAX, arguments: usize::MAX };
        let mut found = Vec::new();
        let mut decoder = RequestDecoder::default();
        while found.len() < most
            && let Ok(Some(length)) = decoder.decode(requests, RequestLimits { bounds, authenticated: true })
        {
            let canonical = decoder.canonical(&requests[..length]);
            let row = decoder.head(0, canonical).and_then(index::lookup);
            let is_named = row.is_some_and(|row| row.handling == Handling::Run(ScriptKind::Digest));
            let named = decoder.head(1, canonical).filter(|_| is_named).and_then(digest);
            found.extend(named.filter(|named| !found.contains(named)));
            decoder.reset();
            requests = &requests[length..];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_servers_read_them() {
        let known = digest(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8dB").expect("a digest");
        assert_eq!((known[0], known[19]), (0xe0, 0xdb));
        assert_eq!(digest(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8d"), None);
        assert_eq!(digest(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8dbb"), None);
        assert_eq!(digest(b"g0e1f9fabfc9d4800c877a703b823ac0578ff8db"), None);
        assert_eq!(digest(b"+0e1f9fabfc9d4800c877a703b823ac0578ff8db"), None);
    }

    #[test]
    fn what_makes_shards_forget_is_told_from_what_they_refuse() {
        for (words, forgets) in [
            (&[&b"SCRIPT"[..], b"FLUSH"][..], true),
            (&[b"script", b"flush", b"Async"], true),
            (&[b"SCRIPT", b"FLUSH", b"SYNC"], true),
            (&[b"SCRIPT", b"FLUSH", b"NOW"], false),
            (&[b"SCRIPT", b"FLUSH", b"SYNC", b"SYNC"], false),
            (&[b"SCRIPT", b"EXISTS", b"FLUSH"], false),
            (&[b"SCRIPT"], false),
            (&[b"FLUSHALL"], false),
            (&[b"GET", b"k"], false),
        ] {
            let mut request = Vec::new();
            encode::request(&mut request, words);
            assert_eq!(Resp::forgets_scripts(&request), forgets, "{words:?}");
        }
    }

    #[test]
    fn changes_of_libraries_are_told_from_other_requests() {
        for (words, change) in [
            (
                &[&b"FUNCTION"[..], b"LOAD", b"#!lua name=lib\nx"][..],
                Some(LibraryChange::Loaded(b"lib", b"#!lua name=lib\nx")),
            ),
            (
                &[b"function", b"load", b"Replace", b"#!lua name=a"],
                Some(LibraryChange::Loaded(b"a", b"#!lua name=a")),
            ),
            (&[b"FUNCTION", b"LOAD", b"no code"], None),
            (&[b"FUNCTION", b"DELETE", b"lib"], Some(LibraryChange::Deleted(b"lib"))),
            (&[b"FUNCTION", b"FLUSH", b"ASYNC"], Some(LibraryChange::AllDeleted)),
            (&[b"FUNCTION", b"FLUSH"], Some(LibraryChange::AllDeleted)),
            (&[b"FUNCTION", b"FLUSH", b"NOW"], None),
            (&[b"FUNCTION", b"FLUSH", b"SYNC", b"SYNC"], None),
            (&[b"FUNCTION", b"RESTORE", b"dump"], Some(LibraryChange::Any)),
            (&[b"FUNCTION", b"LIST"], None),
            (&[b"SCRIPT", b"FLUSH"], None),
            (&[b"FLUSHALL"], None),
            (&[b"FUNCTION"], None),
        ] {
            let mut request = Vec::new();
            encode::request(&mut request, words);
            assert_eq!(Resp::library_change(&request), change, "{words:?}");
        }
    }

    #[test]
    fn scripts_are_found_in_requests_that_are_sent_again() {
        let mut requests = Vec::new();
        let name = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        encode::request(&mut requests, &[b"MULTI"]);
        encode::request(&mut requests, &[b"evalsha", name, b"1", b"k"]);
        encode::request(&mut requests, &[b"SET", b"k", name]);
        encode::request(&mut requests, &[b"EVALSHA_RO", name, b"1", b"k"]);
        encode::request(&mut requests, &[b"EXEC"]);
        assert_eq!(Resp::scripts_named(&requests, 9), [digest(name).expect("a digest")]);
        assert!(Resp::scripts_named(&requests, 0).is_empty());
        assert!(Resp::scripts_named(b"*1\r\n$5\r\nMUL", 9).is_empty());
    }
}
