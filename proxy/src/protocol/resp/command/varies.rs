//! What becomes of the key of a command where its key spec says `variable_flags`: other arguments say whether it is read or written.
//!
//! Servers find this out by code, which is followed here.

use super::Command;

/// What it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varies {
    /// It is written, and read as well if this option stands behind its value.
    ReadsWith(&'static str),
    /// It is written, and read as well if there are more arguments than the key.
    ReadsWithMore,
    /// It is read, and written as well if there is anything but these options, which take so many arguments.
    WritesUnless(&'static [(&'static str, u8)]),
}

impl Command<'_> {
    /// Whether such a request reads its key, and whether it writes it. Where nothing is known both.
    pub fn reads_and_writes<'a>(&self, args: usize, arg: impl Fn(usize) -> &'a [u8]) -> (bool, bool) {
        match self.varies {
            None => (true, true),
            Some(Varies::ReadsWith(option)) => {
                ((3..args).any(|at| arg(at).eq_ignore_ascii_case(option.as_bytes())), true)
            }
            Some(Varies::ReadsWithMore) => (args > 2, true),
            Some(Varies::WritesUnless(options)) => {
                let mut at = 2;
                while at < args {
                    let known = options.iter().find(|(name, _)| arg(at).eq_ignore_ascii_case(name.as_bytes()));
                    let Some((_, values)) = known else { return (true, true) };
                    at += 1 + usize::from(*values);
                    if at > args {
                        return (true, true);
                    }
                }
                (true, false)
            }
        }
    }
}
