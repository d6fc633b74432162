//! What others say, as text that orders no terminal about.

use std::fmt::Write as _;

/// Without what a terminal would take for orders: some of it is in the words of a shard.
pub fn clean(text: &str) -> String {
    let shown = |character| if is_order(character) { '?' } else { character };
    text.chars().map(shown).collect()
}

/// The same of an answer of several lines, or of a JSON document, which stays one: there such characters stand in strings only.
pub fn clean_lines(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut cleaned, character| {
        if is_order(character) && character != '\n' {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(cleaned, "\\u{unit:04x}");
            }
        } else {
            cleaned.push(character);
        }
        cleaned
    })
}

/// A terminal would do something else than show it, or show what is beside it elsewhere.
fn is_order(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_is_ordered_about() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}c\u{202e}"), "a?[2Jb??c?");
        assert_eq!(
            clean_lines("{\"k\u{e4}\": \"\u{9b}2J\u{202e}\"}\n\u{1b}"),
            "{\"k\u{e4}\": \"\\u009b2J\\u202e\"}\n\\u001b"
        );
    }
}
