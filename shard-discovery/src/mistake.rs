//! What is wrong with a file, and where: everything at once, so that nobody has to mend it line by line.

use std::fmt;
use std::path::PathBuf;

/// A position in a file, both counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Place {
    /// Where a file begins.
    pub const START: Place = Place { line: 1, column: 1 };
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What is wrong, and the way out.
    pub text: String,
}

/// All mistakes of one file, in the order of their places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes {
    /// The file.
    pub origin: PathBuf,
    /// At least one.
    pub list: Vec<Mistake>,
}

impl Mistakes {
    /// One mistake that has to do with the whole file.
    pub fn of_all(origin: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let list = vec![Mistake { place: Place::START, text: text.into() }];
        Self { origin: origin.into(), list }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { place, text }) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{}:{}:{}: {text}", self.origin.display(), place.line, place.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
