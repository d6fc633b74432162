//! Which user a client is, and how it came in.

use std::sync::Arc;

use super::file::Users;
use super::password::Hash;
use super::user::User;

/// A client that is a user of the file.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user, as the file has it.
    pub user: Arc<User>,
    /// What let it in.
    pub by: Proof,
}

/// What let a client in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Proof {
    /// Nothing was asked for.
    Nothing,
    /// This password.
    Password(Hash),
}

impl Login {
    /// Whether what let it in still does.
    pub fn is_good(&self) -> bool {
        match &self.by {
            Proof::Nothing => self.user.accepts(None),
            Proof::Password(hash) => self.user.accepts(Some(hash)),
        }
    }

    /// The same client under other users; none if there is none of its name any more.
    pub fn under(&self, users: &Users) -> Option<Self> {
        let user = users.find(self.user.name.as_bytes())?.clone();
        Some(Self { user, by: self.by })
    }
}

impl Users {
    /// Who has this name and this password, if anybody.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> Option<Login> {
        // Also for a name that nobody has, so that it takes as long.
        let hash = Hash::of(password)?;
        let user = self.find(name)?;
        let by = if user.needs_none { Proof::Nothing } else { Proof::Password(hash) };
        user.accepts(Some(&hash)).then(|| Login { user: user.clone(), by })
    }
}
