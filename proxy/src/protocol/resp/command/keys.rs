//! The keys of a request decide which shard gets it, so they are found as the server itself would find them: by the
//! key specs of the command's row, without copying or allocating. What the keys hash to is nobody's business here.

use super::{Begin, BlocksWith, Command, Find, KeyNumWords, KeySpec, Keyword, LeavesDatabase, access, flag};

impl Command<'_> {
    /// Where the timeout stands if this request waits for data. Only asked of commands that may or may not; the others say
    /// it by [`Handling::Block`](super::Handling::Block).
    ///
    /// A server version may know options that the row does not. From such a word on every BLOCK counts, for a shared
    /// connection must not stand still; where the timeout is nobody knows then, and it is said to be behind the request.
    pub fn waits<'a>(&self, args: usize, arg: impl Fn(usize) -> &'a [u8]) -> Option<usize> {
        let BlocksWith { option, until, options } = self.blocks_with?;
        let is_option = |at: usize| arg(at).eq_ignore_ascii_case(option.as_bytes());
        let (mut at, mut found) = (1, None);
        while at < args {
            if is_option(at) {
                // The last one counts.
                found = Some(at + 1);
            }
            if arg(at).eq_ignore_ascii_case(until.as_bytes()) {
                return found;
            }
            match values_of(options, arg(at)) {
                Some(values) => at += 1 + values,
                None => return (found.is_some() || (at..args).any(is_option)).then_some(args),
            }
        }
        found
    }

    /// The words of such a request up to its keys, without the option to wait and with nothing but options of these names; none if
    /// there are others.
    pub fn heads_without_waiting<'a>(&self, words: &[&'a [u8]], known: &[&str]) -> Option<Vec<&'a [u8]>> {
        let BlocksWith { option, until, options } = self.blocks_with?;
        let (mut at, mut kept) = (1, words.get(..1)?.to_vec());
        loop {
            let word = words.get(at)?;
            if word.eq_ignore_ascii_case(until.as_bytes()) {
                kept.push(word);
                return Some(kept);
            }
            let behind = at + 1 + values_of(options, word)?;
            if !word.eq_ignore_ascii_case(option.as_bytes()) {
                known.iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes()))?;
                kept.extend(words.get(at..behind)?);
            }
            at = behind;
        }
    }

    /// Whether this request reaches another database than the client's.
    pub fn is_leaving_database<'a>(&self, args: usize, arg: impl Fn(usize) -> &'a [u8]) -> bool {
        match self.leaves_database {
            None => false,
            Some(LeavesDatabase::All | LeavesDatabase::To(_)) => true,
            Some(LeavesDatabase::With(option)) => {
                (3..args).any(|at| arg(at).eq_ignore_ascii_case(option.as_bytes()))
            }
        }
    }

    /// The arguments that name other databases.
    pub fn databases_named<'a>(
        &self,
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> {
        let how = self.leaves_database;
        (1..args).filter_map(move |at| match how {
            Some(LeavesDatabase::To(named)) => (at == usize::from(named)).then(|| arg(at)),
            Some(LeavesDatabase::With(option)) => {
                (at > 3 && arg(at - 1).eq_ignore_ascii_case(option.as_bytes())).then(|| arg(at))
            }
            Some(LeavesDatabase::All) | None => None,
        })
    }

    /// Where its keys stand when the server executes it.
    pub fn executed_keys(&self) -> &[KeySpec] {
        self.executed.unwrap_or(self.keys)
    }

    /// The options of a request that make the server read keys which the request does not name, or may: `BY` with an asterisk, and `GET`
    /// whatever it says.
    pub fn options_of_patterns<'a>(
        &self,
        args: usize,
        arg: &impl Fn(usize) -> &'a [u8],
    ) -> impl Iterator<Item = &'static str> {
        let of_spec = move |spec: &KeySpec| match (spec.begin, spec.find) {
            (Begin::Option { words, from, options, .. }, Find::Pattern) => {
                let named = |at: usize| words.iter().find(|word| arg(at - 1).eq_ignore_ascii_case(word.as_bytes()));
                let found = option_values(words, from, options, args, arg)
                    .filter_map(|at| Some((at, *named(at)?)))
                    .find(|&(at, word)| word != BY || arg(at).contains(&b'*'));
                found.map(|(_, word)| word)
            }
            _ => None,
        };
        self.keys.iter().filter_map(of_spec).collect::<Vec<_>>().into_iter()
    }

    /// The positions of all keys in a request of `args` arguments, as the server takes them when it executes the request.
    /// Channels are not keys.
    ///
    /// Positions are where Redis looks, even if the request is wrong elsewhere: then the shard says so.
    pub fn key_positions<'a>(
        &self,
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Result<KeyPositions, KeyError> {
        self.positions_by(self.executed.unwrap_or(self.keys), args, arg)
    }

    /// The same by the key specs that the server publishes, which is what `COMMAND GETKEYS` goes by. They do not know that
    /// the last of two STORE counts, nor that a group may be called STREAMS.
    pub fn published_key_positions<'a>(
        &self,
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Result<KeyPositions, KeyError> {
        self.positions_by(self.keys, args, arg)
    }

    fn positions_by<'a>(
        &self,
        keys: &[KeySpec],
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Result<KeyPositions, KeyError> {
        let mut found = KeyPositions::default();
        let mut groups = found.groups.iter_mut();
        for spec in keys.iter().filter(|spec| !spec.access.has(access::NOT_KEY)) {
            // `PFMERGE key` without sources: the server's own key specs call it wrong, the server executes it.
            if self.accepts(args) && spec.begin.is_beyond(args) {
                continue;
            }
            if let Some(group) = spec.group(args, &arg)? {
                *groups.next().expect("no row has more key specs than a request has groups") = group;
            }
        }
        if found.is_empty() && !self.keys.is_empty() && !self.flags.has(flag::NO_MANDATORY_KEYS) {
            return Err(KeyError::Missing);
        }
        Ok(found)
    }

    /// Whether the command knows options whose values are patterns of keys.
    pub fn has_patterns(&self) -> bool {
        self.keys.iter().any(|spec| matches!(spec.find, Find::Pattern))
    }

    /// The positions of the patterns that make the server read keys other than those of the request: `SORT list BY weight_*`. Behind a
    /// proxy those keys may live on other shards, where they would silently count as absent.
    ///
    /// `BY nosort` and `GET #` read no keys, nor does any pattern without an asterisk.
    pub fn foreign_patterns<'a>(&self, args: usize, arg: impl Fn(usize) -> &'a [u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for spec in self.keys {
            if let (Begin::Option { words, from, options, .. }, Find::Pattern) = (spec.begin, spec.find) {
                found.extend(
                    option_values(words, from, options, args, &arg).filter(|at| arg(*at).contains(&b'*')),
                );
            }
        }
        found
    }
}

/// The option of SORT that names no keys where there is no asterisk in its value.
const BY: &str = "BY";

/// Why the keys of a request could not be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// The request ends before its keys, or a keyword is missing.
    Missing,
    /// The number of keys is not a number.
    NotANumber(KeyNumWords),
    /// The number of keys is below zero.
    Negative(KeyNumWords),
    /// The number of keys is zero where that is not allowed.
    Zero(KeyNumWords),
    /// More keys are announced than there are arguments.
    TooMany(KeyNumWords),
}

impl KeyError {
    /// Whether the server looks at something else before it sees the error, so that its words depend on that.
    pub fn is_judged_late(self) -> bool {
        match self {
            Self::Missing => false,
            Self::NotANumber(words) | Self::Negative(words) | Self::Zero(words) | Self::TooMany(words) => {
                words == KeyNumWords::NamedScript
            }
        }
    }

    /// The error as Redis words it; `name` is the command's.
    pub fn text(self, name: &str) -> String {
        use KeyNumWords::{AtLeastOne, GreaterThanZero, GreaterThanZeroOfArgs, NamedScript, Pairs, Script};
        let text = match self {
            Self::Missing | Self::TooMany(AtLeastOne | GreaterThanZero) => "ERR syntax error",
            Self::TooMany(Script | NamedScript | GreaterThanZeroOfArgs) => {
                "ERR Number of keys can't be greater than number of args"
            }
            Self::NotANumber(Pairs) | Self::Negative(Pairs) | Self::Zero(Pairs) => {
                "ERR invalid numkeys value"
            }
            Self::TooMany(Pairs) => "ERR wrong number of key-value pairs",
            Self::NotANumber(AtLeastOne | Script | NamedScript) => {
                "ERR value is not an integer or out of range"
            }
            Self::NotANumber(GreaterThanZero | GreaterThanZeroOfArgs)
            | Self::Negative(GreaterThanZero | GreaterThanZeroOfArgs)
            | Self::Zero(GreaterThanZero | GreaterThanZeroOfArgs) => "ERR numkeys should be greater than 0",
            Self::Negative(Script | NamedScript) | Self::Zero(Script | NamedScript) => {
                "ERR Number of keys can't be negative"
            }
            Self::Negative(AtLeastOne) | Self::Zero(AtLeastOne) => {
                return format!("ERR at least 1 input key is needed for '{name}' command");
            }
        };
        text.to_owned()
    }
}

/// The positions of a request's keys, in the order of the row's key specs.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyPositions {
    /// What is left to walk; empty groups stand last.
    groups: [KeyGroup; GROUPS_MAX],
}

/// GEORADIUS has a key, STORE and STOREDIST; no command has more.
pub(super) const GROUPS_MAX: usize = 3;

#[derive(Debug, Clone, Copy, Default)]
struct KeyGroup {
    next: usize,
    left: usize,
    step: usize,
}

impl KeyPositions {
    /// Whether there is no key left.
    pub fn is_empty(&self) -> bool {
        self.groups[0].left == 0
    }
}

impl Iterator for KeyPositions {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let group = &mut self.groups[0];
        if group.left == 0 {
            return None;
        }
        let position = group.next;
        group.next += group.step;
        group.left -= 1;
        if group.left == 0 {
            self.groups.rotate_left(1);
        }
        Some(position)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.groups.iter().map(|group| group.left).sum();
        (left, Some(left))
    }
}

impl ExactSizeIterator for KeyPositions {}

impl Begin {
    /// The request ends before the place where keys of this spec would stand.
    fn is_beyond(self, args: usize) -> bool {
        matches!(self, Self::Index(index) if usize::from(index) >= args)
    }
}

impl KeySpec {
    /// The positions of this spec's keys alone.
    pub fn positions<'a>(
        &self,
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Result<KeyPositions, KeyError> {
        let mut found = KeyPositions::default();
        found.groups[0] = self.group(args, &arg)?.unwrap_or_default();
        Ok(found)
    }

    /// The keys of this spec; None where an option is absent.
    fn group<'a>(&self, args: usize, arg: &impl Fn(usize) -> &'a [u8]) -> Result<Option<KeyGroup>, KeyError> {
        let begin = match self.begin {
            Begin::Index(index) => Some(usize::from(index)),
            Begin::Keyword { word, from } => keyword(word, from, args, arg).map(|at| at + 1),
            Begin::Option { words, from, options, first } => {
                let mut values = option_values(words, from, options, args, arg);
                if first { values.next() } else { values.last() }
            }
        };
        let Some(begin) = begin.filter(|begin| *begin < args) else {
            return match self.begin {
                Begin::Index(_) => Err(KeyError::Missing),
                Begin::Keyword { .. } | Begin::Option { .. } => Ok(None),
            };
        };
        match self.find {
            Find::Range { last, step, limit } => {
                let end = match (last, limit) {
                    (0.., _) => begin + last.unsigned_abs() as usize + 1,
                    (_, 0 | 1) => (args + 1).checked_sub(last.unsigned_abs() as usize).ok_or(KeyError::Missing)?,
                    _ => begin + (args - begin) / usize::from(limit),
                };
                if end > args {
                    return Err(KeyError::Missing);
                }
                let step = usize::from(step);
                let left = end.saturating_sub(begin).div_ceil(step);
                Ok((left > 0).then_some(KeyGroup { next: begin, left, step }))
            }
            Find::KeyNum { index, first, step, words } => {
                let (number, first) = (begin + usize::from(index), begin + usize::from(first));
                if number >= args {
                    return Err(KeyError::Missing);
                }
                let step = usize::from(step);
                let left = key_number(arg(number), words)?;
                // the last key itself must be there, the value behind it is the server's business
                let room = args.saturating_sub(first).div_ceil(step);
                match left {
                    0 if matches!(words, KeyNumWords::Script | KeyNumWords::NamedScript) => Ok(None),
                    0 => Err(KeyError::Zero(words)),
                    _ if left > room => Err(KeyError::TooMany(words)),
                    _ => Ok(Some(KeyGroup { next: first, left, step })),
                }
            }
            Find::Pattern => Ok(None),
        }
    }
}

fn keyword<'a>(word: Keyword, from: i8, args: usize, arg: &impl Fn(usize) -> &'a [u8]) -> Option<usize> {
    let is_word = |at: &usize| arg(*at).eq_ignore_ascii_case(word.as_bytes());
    let from_or_back = from.unsigned_abs() as usize;
    if from >= 0 {
        (from_or_back..args).find(is_word)
    } else {
        (1..=args.checked_sub(from_or_back)?).rev().find(is_word)
    }
}

/// Positions of the values of options with one of these words.
fn option_values<'a>(
    words: &'static [&'static str],
    from: u8,
    options: &'static [(&'static str, u8)],
    args: usize,
    arg: &impl Fn(usize) -> &'a [u8],
) -> impl Iterator<Item = usize> {
    let mut at = usize::from(from);
    std::iter::from_fn(move || {
        while at < args {
            let option = at;
            at += 1 + values_of(options, arg(option)).unwrap_or(0);
            if words.iter().any(|word| arg(option).eq_ignore_ascii_case(word.as_bytes())) && option + 1 < args
            {
                return Some(option + 1);
            }
        }
        None
    })
}

fn values_of(options: &[(&str, u8)], word: &[u8]) -> Option<usize> {
    let found = options.iter().find(|(option, _)| word.eq_ignore_ascii_case(option.as_bytes()));
    found.map(|(_, values)| usize::from(*values))
}

/// Redis takes no sign but a minus, no leading zeros and nothing outside an i64.
fn key_number(text: &[u8], words: KeyNumWords) -> Result<usize, KeyError> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let number =
        std::str::from_utf8(text).ok().filter(|_| canonical).and_then(|text| text.parse::<i64>().ok());
    let is_beyond = |number: i64| words == KeyNumWords::Pairs && number > i64::from(i32::MAX);
    let number = number.filter(|&number| !is_beyond(number)).ok_or(KeyError::NotANumber(words))?;
    usize::try_from(number).map_err(|_| KeyError::Negative(words))
}

#[cfg(test)]
mod tests {
    use crate::protocol::resp::command::index::lookup;
    use crate::protocol::resp::command::table::COMMANDS;

    fn check(request: &str, expected: Result<&[usize], &str>) {
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let row = lookup(args[0]).expect("it has a row");
        let row = args.get(1).and_then(|name| row.subcommand(name)).unwrap_or(row);
        let found = row.key_positions(args.len(), |at| args[at]);
        let found = found.map(Iterator::collect::<Vec<_>>).map_err(|failure| failure.text(row.name));
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{request}");
    }

    #[test]
    fn keys_stand_where_the_specs_say() {
        check("GET a", Ok(&[1]));
        check("MSET a 1 b 2", Ok(&[1, 3]));
        check("BITOP AND dst a b", Ok(&[2, 3, 4]));
        check("OBJECT ENCODING a", Ok(&[2]));
        check("BLPOP a b 0", Ok(&[1, 2]));
        check("EVAL script 2 a b value", Ok(&[3, 4]));
        check("EVAL script 0 value", Ok(&[]));
        check("ZUNIONSTORE dst 2 a b WEIGHTS 1 2", Ok(&[1, 3, 4]));
        check("XREAD COUNT 1 STREAMS a b 0 0", Ok(&[4, 5]));
        check("SORT a BY STORE STORE dst", Ok(&[1, 5]));
        check("SORT a STORE LIMIT STORE dst", Ok(&[1, 5]));
        check("GEORADIUS a 1 1 1 m STORE b STOREDIST c", Ok(&[1, 9]));
        check("GEORADIUS a 1 1 1 m STOREDIST b STORE c", Ok(&[1, 9]));
        check("GEORADIUS a 1 1 1 m STORE STORE STORE c", Ok(&[1, 9]));
        check("GEORADIUSBYMEMBER a STORE 1 m COUNT 2 ANY STORE b", Ok(&[1, 9]));
        check("XREADGROUP COUNT 1 GROUP streams c STREAMS a >", Ok(&[7]));
        check("XREADGROUP GROUP g streams NOACK STREAMS a b > >", Ok(&[6, 7]));
        check("XREAD COUNT 1 STREAMS streams STREAMS 0 0", Ok(&[4, 5]));
        check("MSETEX 2 a 1 b 2 EX 10", Ok(&[2, 4]));
        check("PING a", Ok(&[]));
        check("VADD v VALUES 1 2 element", Ok(&[1]));
        check("ARSET a 0 x y", Ok(&[1]));
        check("SUNIONCARD 2 a b APPROX LIMIT 1", Ok(&[2, 3]));
        check("LMOVEM a b LEFT RIGHT COUNT 2 BULK", Ok(&[1, 2]));
        check("ZMOVE a b MIN", Ok(&[1, 2]));
        check("XREAD MAXCOUNT STREAMS STREAMS a 0", Ok(&[4]));
    }

    #[test]
    fn options_of_all_versions_are_told_from_keys_and_from_block() {
        for (request, waits) in [
            ("XREAD STREAMS block 0", None),
            ("XREAD BLOCK 0 STREAMS a $", Some(2)),
            ("XREAD BLOCK 0 block 1 STREAMS a $", Some(4)),
            ("XREAD COUNT 1 MAXCOUNT 10 MAXSIZE 10 STREAMS block 0", None),
            ("XREAD MAXSIZE 10 block 0 STREAMS a $", Some(4)),
            ("XREADGROUP GROUP block block CLAIM 1 STREAMS a >", None),
            ("XREADGROUP GROUP g c NOACK MAXCOUNT 5 BLOCK 0 STREAMS a >", Some(8)),
            ("XREAD SOMETHING 1 STREAMS block 0", Some(6)),
            ("XREAD BLOCK 0 SOMETHING STREAMS a 0", Some(7)),
            ("XREAD SOMETHING 1 STREAMS a 0", None),
        ] {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let row = lookup(args[0]).expect("it has a row");
            assert_eq!(row.waits(args.len(), |at| args[at]), waits, "{request}");
        }
    }

    #[test]
    fn requests_without_their_keys_are_refused_in_redis_words() {
        check("XREAD COUNT 1 a 0", Err("ERR syntax error"));
        check("XREAD COUNT 1 STREAMS", Err("ERR syntax error"));
        check("GET", Err("ERR syntax error"));
        check("EVAL script -1 a", Err("ERR Number of keys can't be negative"));
        check("EVAL script 2 a", Err("ERR Number of keys can't be greater than number of args"));
        check("ZINTER x a", Err("ERR value is not an integer or out of range"));
        check("ZINTER 0 a", Err("ERR at least 1 input key is needed for 'zinter' command"));
        check("LMPOP 9 a LEFT", Err("ERR syntax error"));
        check("SINTERCARD 9 a", Err("ERR Number of keys can't be greater than number of args"));
    }

    #[test]
    fn patterns_that_name_keys_elsewhere_are_found() {
        for (request, expected) in [
            ("SORT a", &[0_usize; 0][..]),
            ("SORT a BY nosort GET #", &[]),
            ("SORT a BY weight_*", &[3]),
            ("sort_ro a limit 0 1 get # get o_*->f by {a}*", &[8, 10]),
            ("SORT a STORE b*", &[]),
            ("SORT a GET", &[]),
            ("GET *", &[]),
        ] {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let row = lookup(args[0]).expect("it has a row");
            assert_eq!(row.foreign_patterns(args.len(), |at| args[at]), expected, "{request}");
        }
    }

    #[test]
    fn no_request_panics_and_no_position_lies_outside() {
        // every row with every length and the words that steer the walk in every place
        const WORDS: [&[u8]; 8] =
            [b"", b"0", b"2", b"-1", b"STREAMS", b"store", b"BY", b"9223372036854775807"];
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows {
            for args in 1..9 {
                for seed in 0..512_usize {
                    let arg = |at: usize| WORDS[(seed / (at * at + 1) + seed * at) % WORDS.len()];
                    let found = row.key_positions(args, arg).unwrap_or_default();
                    assert!(found.len() < args, "{} {args}", row.name);
                    for position in found {
                        assert!((1..args).contains(&position), "{} {args} {position}", row.name);
                    }
                    row.waits(args, arg);
                    assert!(row.foreign_patterns(args, arg).is_empty());
                }
            }
        }
    }
}
