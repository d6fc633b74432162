//! Whether a file has changed, without reading it.

use std::path::Path;
use std::time::SystemTime;

/// What tells a file from the one that was there before: not its time alone, which archives and volumes set, which may go
/// backwards, and which counts in steps that two writes may fall into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Which file it is, and when anything about it changed last.
    #[cfg(unix)]
    place: [i64; 4],
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt as _;
            [found.dev() as i64, found.ino() as i64, found.ctime(), found.ctime_nsec()]
        };
        Some(Self {
            modified: found.modified().ok(),
            length: found.len(),
            #[cfg(unix)]
            place,
        })
    }
}
