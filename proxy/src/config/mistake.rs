//! What is wrong with a configuration, and where: everything at once, so that nobody has to mend it line by line.

use std::fmt;
use std::path::PathBuf;

/// A position in the file, both counted from 1.
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

/// `; did you mean X?` if one of the names is close enough to what was written, else nothing.
pub fn did_you_mean<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let written = written.to_lowercase();
    // Of two that are as close, one that goes on as it began, then the one that is listed first.
    let close = names
        .into_iter()
        .map(|name| ((strsim::damerau_levenshtein(&written, name), !name.starts_with(&written)), name))
        .filter(|((distance, differs), name)| {
            *distance <= 1 + name.len() / 4 || (!differs && written.len() > 2)
        })
        .min_by_key(|(order, _)| *order);
    close.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_that_is_left_out_is_the_usual_one() {
        let hashes = ["fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32"];
        assert_eq!(did_you_mean("fnv1a", hashes), "; did you mean fnv1a_64?");
        assert_eq!(did_you_mean("FNV1", hashes), "; did you mean fnv1_64?");
        assert_eq!(did_you_mean("murmur", hashes), "");
    }
}
