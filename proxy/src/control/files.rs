//! The files of the configuration: whether they have changed since they were read.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::fnv;

/// Files, and a hash of what is in them.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// Which.
    pub paths: Vec<PathBuf>,
    state: Vec<Option<u64>>,
}

impl Files {
    /// As they are now, where they were like this before.
    pub fn look(paths: Vec<PathBuf>, former: &Self) -> Self {
        Self::read_by(|path| std::fs::read(path), paths, former)
    }

    /// As they are by now.
    pub fn again(&self) -> Self {
        Self::look(self.paths.clone(), self)
    }

    fn read_by(read: impl Fn(&Path) -> io::Result<Vec<u8>>, paths: Vec<PathBuf>, former: &Self) -> Self {
        let hash = |path: &PathBuf| match read(path) {
            Ok(bytes) => Some(fnv(&bytes)),
            // That says nothing of the file: without a descriptor nobody knows of a change, and nobody could read it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                let place = former.paths.iter().position(|known| known == path);
                place.and_then(|place| former.state[place])
            }
            Err(_) => None,
        };
        Self { state: paths.iter().map(hash).collect(), paths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_there_is_no_descriptor_for_has_not_changed() {
        let paths = || vec![PathBuf::from("a"), PathBuf::from("b")];
        let read = Files::read_by(|_| Ok(b"text".to_vec()), paths(), &Files::default());
        for lack in [libc::EMFILE, libc::ENFILE] {
            let lacking = |_: &Path| Err(io::Error::from_raw_os_error(lack));
            assert_eq!(Files::read_by(lacking, paths(), &read), read);
        }
        let gone = |_: &Path| Err(io::Error::from_raw_os_error(libc::ENOENT));
        assert_ne!(Files::read_by(gone, paths(), &read), read);
    }
}
