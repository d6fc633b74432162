//! What a shard has said of a transaction so far: to MULTI, and to each command as it was queued.

/// Bytes that are kept of an error.
const ERROR_MAX: usize = 1024;

/// The responses to a transaction that nobody waits for, as far as they have come.
#[derive(Default)]
pub struct HeardOfBlock {
    /// How many there were.
    pub responses: u32,
    /// The first of them that was an error.
    pub error: Option<Box<[u8]>>,
    /// It was the very first: there is no transaction, and the commands are executed one by one.
    pub is_not_begun: bool,
    /// The one at hand is long and dropped as it comes.
    pub drops: bool,
}

impl HeardOfBlock {
    /// One of them is this error.
    pub fn refused(&mut self, error: &[u8]) {
        self.is_not_begun |= self.responses == 0;
        self.error.get_or_insert_with(|| error[..error.len().min(ERROR_MAX)].into());
    }
}
