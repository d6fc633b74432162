//! A wrong number of arguments, in the words of Redis.

use std::fmt;

use super::Command;

/// Writes the words of Redis for a wrong number of arguments.
pub struct WrongArity<'t>(
    /// The row of the command.
    pub &'t Command<'t>,
);

impl fmt::Display for WrongArity<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ERR wrong number of arguments for '{}' command", self.0.name)
    }
}
