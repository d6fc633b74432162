//! Passwords and tokens: what holds one does not show it, and compares it in one place.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;

/// A password; it does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// What a file holds, without the line end that editors leave.
    ///
    /// # Errors
    /// With the file's name, when it cannot be read or is empty.
    pub fn of_file(file: &Path) -> anyhow::Result<Self> {
        let named = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(named)?;
        let secret = without_line_ends(&text);
        anyhow::ensure!(!secret.is_empty(), "{}: the file is empty", named());
        Ok(Self(secret.to_owned()))
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it was given. How long this takes does not tell how much of it is right.
    pub fn is(&self, given: &[u8]) -> bool {
        let differences = self.0.bytes().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        differences == 0 && self.0.len() == given.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// A secret as it stands in a file, without the line end that editors leave.
pub(crate) fn without_line_ends(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_it() {
        let secret = Secret::new("secret".into());
        assert!(secret.is(b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secreT"] {
            assert!(!secret.is(wrong));
        }
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
