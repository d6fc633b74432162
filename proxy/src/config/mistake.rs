//! What is wrong with a configuration, and what was meant.

pub use shard_discovery::mistake::{Mistake, Mistakes, Place};

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
