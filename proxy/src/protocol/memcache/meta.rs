//! The flags of meta commands: which there are, and what may stand behind them.
//!
//! A server that refuses the line of an `ms` may leave its value unread, and runs it as commands then; which lines those
//! are depends on its version. So a line reaches a server only if all versions take all of it. What is here is what
//! memcached 1.6.18 to 1.6.45 have in common: `_meta_flag_preparse`, `tokenize_command` and, since 1.6.40, the tokenizer
//! that reads numbers of 32 bits only up to ten digits.

use super::commands::Meta;

/// Words of a meta line: memcached counts 20 with the end of the line (`MFLAG_MAX_OPT_LENGTH`).
pub const WORDS_MAX: usize = 19;
/// Longest opaque, its `O` included (`MFLAG_MAX_OPAQUE_LENGTH`).
const OPAQUE_MAX: usize = 32;

const INVALID: &str = "CLIENT_ERROR invalid flag";
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_FLAGS: &str = "CLIENT_ERROR bad command line format";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";
const BAD_MODE_LENGTH: &str = "CLIENT_ERROR incorrect length for M token";
const BAD_MS_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
const BAD_MA_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";

/// What stands behind a flag's letter.
#[derive(Clone, Copy)]
enum Argument {
    /// Nothing that anybody looks at.
    Nothing,
    /// The same, up to [`OPAQUE_MAX`].
    Opaque,
    /// A time, perhaps below zero.
    Time,
    U32,
    U64,
    /// One letter, which ones depends on the command.
    Mode,
}

/// What a letter means. memcached reads the flags of all meta commands alike, and passes over those that are of no use.
fn argument(letter: u8) -> Option<Argument> {
    Some(match letter {
        b'b' | b'c' | b'f' | b'h' | b'k' | b'l' | b'q' | b's' | b't' | b'u' | b'v' | b'x' | b'I' => {
            Argument::Nothing
        }
        // For memcached's own proxy.
        b'L' | b'P' => Argument::Nothing,
        b'O' => Argument::Opaque,
        b'N' | b'R' | b'T' => Argument::Time,
        b'F' => Argument::U32,
        b'C' | b'D' | b'E' | b'J' => Argument::U64,
        b'M' => Argument::Mode,
        _ => return None,
    })
}

/// What the proxy has to know of the flags.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags {
    /// The client wants no reply of the usual kind (`q`).
    pub quiet: bool,
    /// The key is written in base64 (`b`).
    pub base64: bool,
    /// The client wants parts of its request in the reply (`O`, `k`).
    pub reflects: bool,
}

/// Judges the flags of a line; an error is the line to refuse it with, in memcached's words.
pub fn judge<'l>(meta: Meta, flags: impl Iterator<Item = &'l [u8]>) -> Result<Flags, &'static str> {
    judge_each(meta, flags).map_err(|reply| match meta {
        // It has one word for all of them there.
        Meta::Delete | Meta::Arithmetic if ![OPAQUE_TOO_LONG, BAD_MA_MODE].contains(&reply) => {
            INVALID_OR_DUPLICATE
        }
        _ => reply,
    })
}

fn judge_each<'l>(meta: Meta, flags: impl Iterator<Item = &'l [u8]>) -> Result<Flags, &'static str> {
    let mut found = Flags::default();
    let mut seen = 0_u128;
    for flag in flags {
        let (&letter, rest) = flag.split_first().ok_or(INVALID)?;
        let argument = argument(letter).ok_or(INVALID)?;
        if seen & (1 << letter) != 0 {
            return Err(DUPLICATE);
        }
        seen |= 1 << letter;
        match argument {
            Argument::Opaque if flag.len() > OPAQUE_MAX => return Err(OPAQUE_TOO_LONG),
            Argument::Time if number(rest.strip_prefix(b"-").unwrap_or(rest), i32::MAX as u64).is_none() => {
                return Err(BAD_TOKEN);
            }
            Argument::U32 if number(rest, u64::from(u32::MAX)).is_none() => return Err(BAD_FLAGS),
            Argument::U64 if number(rest, u64::MAX).is_none() => {
                return Err(match letter {
                    b'J' => BAD_INITIAL,
                    b'D' => BAD_DELTA,
                    _ => BAD_TOKEN,
                });
            }
            Argument::Mode => judge_mode(meta, rest)?,
            _ => {}
        }
        match letter {
            b'q' => found.quiet = true,
            b'b' => found.base64 = true,
            b'O' | b'k' => found.reflects = true,
            _ => {}
        }
    }
    Ok(found)
}

fn judge_mode(meta: Meta, word: &[u8]) -> Result<(), &'static str> {
    let [mode] = word else { return Err(BAD_MODE_LENGTH) };
    match meta {
        Meta::Set if !b"EAPRS".contains(mode) => Err(BAD_MS_MODE),
        Meta::Arithmetic if !b"Ii+Dd-".contains(mode) => Err(BAD_MA_MODE),
        // To the others it is of no use.
        _ => Ok(()),
    }
}

/// A number as all versions read it: digits alone, none too many.
pub fn number(word: &[u8], most: u64) -> Option<u64> {
    let is_plain =
        !word.is_empty() && word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || word[0] != b'0');
    let number = std::str::from_utf8(word).ok().filter(|_| is_plain)?.parse().ok()?;
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(meta: Meta, flags: &str, expected: Result<(), &str>) {
        let judged = judge(meta, flags.split(' ').filter(|flag| !flag.is_empty()).map(str::as_bytes));
        assert_eq!(judged.map(|_| ()), expected, "{flags}");
    }

    #[test]
    fn flags_are_known_once_and_within_bounds() {
        for flags in [
            "",
            "b c f h k l q s t0 u v x I",
            "L Pwhatever quiet",
            "O T0 F0",
            "T-1 N30 R2147483647",
            "F4294967295 C18446744073709551615 E1 J0 D1",
            &format!("O{}", "o".repeat(31)),
        ] {
            check(Meta::Set, flags, Ok(()));
        }
        for (flags, expected) in [
            ("z", INVALID),
            ("S5", INVALID),
            ("\u{e4}", INVALID),
            ("k k", DUPLICATE),
            ("P0 P1", DUPLICATE),
            ("T", BAD_TOKEN),
            ("T+1", BAD_TOKEN),
            ("T01", BAD_TOKEN),
            ("T2147483648", BAD_TOKEN),
            ("T--1", BAD_TOKEN),
            ("F4294967296", BAD_FLAGS),
            ("F-1", BAD_FLAGS),
            ("Jx", BAD_INITIAL),
            ("D", BAD_DELTA),
            ("C18446744073709551616", BAD_TOKEN),
            ("C00000000000000000001", BAD_TOKEN),
            ("M", BAD_MODE_LENGTH),
            ("MSET", BAD_MODE_LENGTH),
            ("MX", BAD_MS_MODE),
            ("M+", BAD_MS_MODE),
            (&format!("O{}", "o".repeat(32)), OPAQUE_TOO_LONG),
        ] {
            check(Meta::Set, flags, Err(expected));
        }
        check(Meta::Arithmetic, "M+ N0 J1 D2", Ok(()));
        check(Meta::Arithmetic, "ME", Err(BAD_MA_MODE));
        check(Meta::Arithmetic, "Dx", Err(INVALID_OR_DUPLICATE));
        check(Meta::Delete, "Z", Err(INVALID_OR_DUPLICATE));
        check(Meta::Delete, &format!("O{}", "o".repeat(32)), Err(OPAQUE_TOO_LONG));
    }
}
