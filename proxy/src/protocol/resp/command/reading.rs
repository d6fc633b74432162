//! Reads what a server says to COMMAND, in RESP2. Nothing is copied, and whatever is not understood is passed over.
//!
//! Source of the parts and their order: <https://redis.io/docs/latest/commands/command/>; of key specs:
//! <https://redis.io/docs/latest/develop/reference/key-specs/>.

use super::keys::GROUPS_MAX;
use super::{Access, Begin, Categories, Find, Flags, KeyNumWords, KeySpec, Keyword, access, flag};

/// What a server says of one command.
#[derive(Debug)]
pub(super) struct Told<'b> {
    /// As it is registered; of a subcommand with its container.
    pub name: &'b [u8],
    /// As in a row; what fits in none accepts any number.
    pub arity: i8,
    pub flags: Flags,
    pub categories: Categories,
    /// Where its keys stand; none where only the code of the server knows.
    pub keys: Option<Vec<KeySpec>>,
    /// How many subcommands it has; none where the server is too old to say.
    pub subcommands: Option<usize>,
}

/// Shows all that a server tells of, containers before their subcommands. None if it is no answer to COMMAND.
pub(super) fn read<'b>(answer: &'b [u8], see: &mut impl FnMut(Told<'b>)) -> Option<()> {
    let mut reader = Reader { rest: answer };
    for _ in 0..reader.array()? {
        reader.command(true, see)?;
    }
    reader.rest.is_empty().then_some(())
}

enum Item<'b> {
    Text(&'b [u8]),
    Number(i64),
    Array(usize),
    Null,
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn item(&mut self) -> Option<Item<'b>> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end + 1);
        let (kind, text) = line.strip_suffix(b"\r\n")?.split_first()?;
        self.rest = rest;
        let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        Some(match kind {
            b'+' => Item::Text(text),
            b':' => Item::Number(number()?),
            b'$' | b'*' if text == b"-1" => Item::Null,
            b'$' => {
                let (text, rest) = self.rest.split_at_checked(usize::try_from(number()?).ok()?)?;
                self.rest = rest.strip_prefix(b"\r\n")?;
                Item::Text(text)
            }
            b'*' => Item::Array(usize::try_from(number()?).ok()?),
            _ => return None,
        })
    }

    fn array(&mut self) -> Option<usize> {
        match self.item()? {
            Item::Array(count) => Some(count),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        match self.item()? {
            Item::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<i64> {
        match self.item()? {
            Item::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Passes over one value, however deep it is.
    fn skip(&mut self) -> Option<()> {
        let mut missing = 1_u64;
        while missing > 0 {
            missing -= 1;
            if let Item::Array(count) = self.item()? {
                missing = missing.checked_add(count as u64)?;
            }
        }
        Some(())
    }

    /// Names and values in turn; each value is read by `see`.
    fn pairs(&mut self, mut see: impl FnMut(&'b [u8], &mut Self) -> Option<()>) -> Option<()> {
        for _ in 0..self.array()? / 2 {
            let name = self.text()?;
            see(name, self)?;
        }
        Some(())
    }

    /// The bits of an array of words.
    fn words<N: Copy + Default + std::ops::BitOr<Output = N>>(&mut self, bit: fn(&[u8]) -> N) -> Option<N> {
        let mut found = N::default();
        for _ in 0..self.array()? {
            found = found | bit(self.text()?);
        }
        Some(found)
    }

    fn command(&mut self, may_contain: bool, see: &mut impl FnMut(Told<'b>)) -> Option<()> {
        let parts = match self.item()? {
            Item::Array(parts) => parts,
            Item::Null => return Some(()),
            _ => return None,
        };
        let name = self.text()?;
        let arity = i8::try_from(self.number()?).ok().filter(|arity| *arity > i8::MIN).unwrap_or(-1);
        let flags = Flags(self.words(Flags::bit)?);
        let range = [self.number()?, self.number()?, self.number()?];
        let mut specs = Vec::new();
        let mut told =
            Told { name, arity, flags, categories: Categories(0), keys: None, subcommands: None };
        for part in 6..parts {
            match part {
                6 => told.categories = Categories(self.words(Categories::bit)?),
                8 => {
                    for _ in 0..self.array()? {
                        let spec = self.key_spec()?;
                        // What goes beyond what a row has is as good as hidden.
                        if specs.len() <= GROUPS_MAX {
                            specs.push(spec);
                        }
                    }
                }
                9 if may_contain => {
                    let count = self.array()?;
                    told.subcommands = Some(count);
                    told.keys = keys(flags, range, &specs);
                    see(told);
                    for _ in 0..count {
                        self.command(false, see)?;
                    }
                    return (10..parts).try_for_each(|_| self.skip());
                }
                _ => self.skip()?,
            }
        }
        told.keys = keys(flags, range, &specs);
        see(told);
        Some(())
    }

    /// A key spec; none within where it says too little.
    fn key_spec(&mut self) -> Option<Option<KeySpec>> {
        let (mut flags, mut begin, mut find) = (0, None, None);
        self.pairs(|name, reader| {
            match name {
                b"flags" => flags = reader.words(Access::bit)?,
                b"begin_search" => begin = reader.half()?.begin(),
                b"find_keys" => find = reader.half()?.find(),
                _ => reader.skip()?,
            }
            Some(())
        })?;
        let access = Access(flags);
        let spec = |(begin, find)| KeySpec { begin, find, access, notes: "" };
        Some(begin.zip(find).map(spec).filter(|_| !access.has(access::INCOMPLETE)))
    }

    /// `type`, and what is said of a spec of that type.
    fn half(&mut self) -> Option<Half<'b>> {
        let mut half = Half::default();
        self.pairs(|name, reader| {
            match name {
                b"type" => half.kind = reader.text()?,
                b"spec" => reader.pairs(|name, reader| {
                    match reader.item()? {
                        Item::Text(word) => half.word = word,
                        Item::Number(number) => {
                            let place = NUMBERS.iter().position(|known| known.as_bytes() == name);
                            if let Some(place) = place {
                                half.numbers[place] = Some(number);
                            }
                        }
                        Item::Array(_) => return None,
                        Item::Null => {}
                    }
                    Some(())
                })?,
                _ => reader.skip()?,
            }
            Some(())
        })?;
        Some(half)
    }
}

/// The numbers in key specs.
const NUMBERS: [&str; 7] =
    ["index", "startfrom", "lastkey", "keystep", "limit", "keynumidx", "firstkey"];

/// Where keys begin, or which there are from there on.
#[derive(Default)]
struct Half<'b> {
    kind: &'b [u8],
    word: &'b [u8],
    /// In the order of [`NUMBERS`].
    numbers: [Option<i64>; NUMBERS.len()],
}

impl Half<'_> {
    fn number<N: TryFrom<i64>>(&self, name: &str) -> Option<N> {
        let place = NUMBERS.iter().position(|known| *known == name)?;
        N::try_from(self.numbers[place]?).ok()
    }

    fn begin(&self) -> Option<Begin> {
        match self.kind {
            // The name of the command is no key.
            b"index" => Some(Begin::Index(self.number("index").filter(|index| *index > 0)?)),
            b"keyword" => {
                Some(Begin::Keyword { word: Keyword::read(self.word)?, from: self.number("startfrom")? })
            }
            _ => None,
        }
    }

    fn find(&self) -> Option<Find> {
        let step = self.number("keystep").filter(|step| *step > 0);
        match self.kind {
            b"range" => {
                Some(Find::Range { last: self.number("lastkey")?, step: step?, limit: self.number("limit")? })
            }
            b"keynum" => Some(Find::KeyNum {
                index: self.number("keynumidx")?,
                first: self.number("firstkey")?,
                step: step?,
                words: KeyNumWords::Script,
            }),
            _ => None,
        }
    }
}

/// Where the keys of a command stand, as far as its key specs, or before there were any the first and last key and the step, tell
/// all of them. None where they do not.
fn keys(flags: Flags, [first, last, step]: [i64; 3], specs: &[Option<KeySpec>]) -> Option<Vec<KeySpec>> {
    let plain = |spec: &KeySpec| matches!((spec.begin, spec.find), (Begin::Index(_), Find::Range { .. }));
    let mut found = Vec::new();
    if specs.is_empty() && first > 0 {
        let last = if last >= first { last - first } else { last };
        let (begin, last) = (Begin::Index(u8::try_from(first).ok()?), i8::try_from(last).ok()?);
        let find = Find::Range { last, step: u8::try_from(step).ok().filter(|step| *step > 0)?, limit: 0 };
        found.push(KeySpec { begin, find, access: Access(0), notes: "" });
    }
    for spec in specs {
        found.push((*spec)?);
    }
    // Its code says more than that: the specs alone would not make them move.
    let has_code = flags.has(flag::MOVABLEKEYS) && found.iter().all(plain);
    found.retain(|spec| !spec.access.has(access::NOT_KEY));
    (found.len() <= GROUPS_MAX && !has_code).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name arity flags first last step` and what is behind it as it is.
    fn row(name: &str, arity: i64, flags: &[&str], range: [i64; 3], behind: &[&str]) -> String {
        let flags: String = flags.iter().map(|flag| format!("+{flag}\r\n")).collect();
        let numbers: String = range.iter().map(|number| format!(":{number}\r\n")).collect();
        format!(
            "*{}\r\n${}\r\n{name}\r\n:{arity}\r\n*{}\r\n{flags}{numbers}{}",
            6 + behind.len(),
            name.len(),
            flags.matches('+').count(),
            behind.concat()
        )
    }

    fn spec(flags: &[&str], begin: &str, find: &str) -> String {
        let half = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            let pairs: String = words[1..]
                .iter()
                .map(|word| match word.parse::<i64>() {
                    Ok(number) => format!(":{number}\r\n"),
                    Err(_) => format!("${}\r\n{word}\r\n", word.len()),
                })
                .collect();
            let kind = words[0];
            format!("*4\r\n+type\r\n+{kind}\r\n+spec\r\n*{}\r\n{pairs}", words.len() - 1)
        };
        let words: String = flags.iter().map(|flag| format!("+{flag}\r\n")).collect();
        format!(
            "*6\r\n+flags\r\n*{}\r\n{words}+begin_search\r\n{}+find_keys\r\n{}",
            flags.len(),
            half(begin),
            half(find)
        )
    }

    fn keys_of(flags: &[&str], range: [i64; 3], specs: &[String]) -> Option<Vec<KeySpec>> {
        let specs = format!("*{}\r\n{}", specs.len(), specs.concat());
        let answer = format!("*1\r\n{}", row("m.x", -1, flags, range, &["*0\r\n", "*0\r\n", &specs, "*0\r\n"]));
        let mut found = Vec::new();
        read(answer.as_bytes(), &mut |told| found.push(told.keys)).expect("a good answer");
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    const ONE: &str = "range lastkey 0 keystep 1 limit 0";

    #[test]
    fn all_kinds_of_key_specs_are_read() {
        let found = keys_of(
            &["readonly", "movablekeys"],
            [1, 1, 1],
            &[
                spec(&["RO", "access"], "index index 1", "range lastkey -1 keystep 2 limit 2"),
                spec(&["RW"], "keyword keyword STREAMS startfrom -2", ONE),
                spec(&["OW"], "index index 2", "keynum keynumidx 0 firstkey 1 keystep 1"),
            ],
        );
        let found = found.expect("all of it can be used");
        assert_eq!(found[0].begin, Begin::Index(1));
        assert_eq!(found[0].find, Find::Range { last: -1, step: 2, limit: 2 });
        assert_eq!(found[1].begin, Begin::Keyword { word: Keyword::new("STREAMS"), from: -2 });
        assert_eq!(
            found[2].find,
            Find::KeyNum { index: 0, first: 1, step: 1, words: KeyNumWords::Script }
        );
        assert!(found[0].access.has(access::RO | access::ACCESS));
    }

    #[test]
    fn keys_that_are_not_told_are_not_guessed() {
        let at_1 = || spec(&["RW"], "index index 1", ONE);
        assert_eq!(keys_of(&["module"], [1, 1, 1], &[at_1()]).map(|keys| keys.len()), Some(1));
        for (flags, specs) in [
            (&["movablekeys"][..], vec![at_1()]),
            (&[], vec![at_1(), spec(&["RW", "incomplete"], "index index 2", ONE)]),
            (&[], vec![spec(&["RW"], "unknown", "unknown")]),
            (&[], vec![spec(&["RW"], "index index 0", ONE)]),
            (&[], vec![spec(&["RW"], "index index 300", ONE)]),
            (&[], vec![spec(&["RW"], "index index 1", "range lastkey 0 keystep 0 limit 0")]),
            (&[], vec![spec(&["RW"], "keyword keyword AVERYLONGWORDINDEED startfrom 1", ONE)]),
            (&[], vec![at_1(), at_1(), at_1(), at_1()]),
        ] {
            assert_eq!(keys_of(flags, [1, 1, 1], &specs), None, "{flags:?} {specs:?}");
        }
        // A channel is no key.
        assert_eq!(keys_of(&[], [0, 0, 0], &[spec(&["not_key"], "index index 1", ONE)]), Some(Vec::new()));
    }

    #[test]
    fn servers_without_key_specs_tell_of_a_range() {
        for (range, expected) in [
            ([1, -1, 3], Some(Find::Range { last: -1, step: 3, limit: 0 })),
            ([2, 3, 1], Some(Find::Range { last: 1, step: 1, limit: 0 })),
            ([1, 1, 0], None),
        ] {
            let answer = format!("*1\r\n{}", row("m.x", 2, &[], range, &[]));
            let mut found = None;
            read(answer.as_bytes(), &mut |told| found = told.keys).expect("a good answer");
            assert_eq!(found.map(|keys| keys[0].find), expected);
        }
    }

    #[test]
    fn subcommands_come_behind_their_container() {
        let subcommands = format!("*2\r\n{}{}", row("m|a", 3, &[], [2, 2, 1], &[]), row("m|b", 2, &[], [0; 3], &[]));
        let empty = "*0\r\n";
        let answer =
            format!("*2\r\n{}*-1\r\n", row("m", -2, &["module"], [0; 3], &[empty, empty, empty, &subcommands, ":7\r\n"]));
        let mut found = Vec::new();
        let mut see = |told: Told| found.push((String::from_utf8_lossy(told.name).into_owned(), told.subcommands));
        read(answer.as_bytes(), &mut see).expect("a good answer");
        let names = [("m", Some(2)), ("m|a", None), ("m|b", None)];
        assert_eq!(found, names.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for answer in [
            "",
            "-ERR unknown command\r\n",
            "*1\r\n",
            "*1\r\n*6\r\n",
            "*9999999999999999999\r\n",
            "*1\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*0\r\n*0\r\n",
            "*1\r\n*7\r\n+a\r\n:1\r\n*0\r\n:0\r\n:0\r\n:0\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
        ] {
            assert!(read(answer.as_bytes(), &mut |_| {}).is_none(), "{answer:?}");
        }
    }
}
