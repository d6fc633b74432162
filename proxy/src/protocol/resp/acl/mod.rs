//! Users, as Redis' access control lists know them: which commands, keys and channels a user may use.
//!
//! [`file`](mod@file) reads them, [`user`] judges requests, [`rules`] has which commands: one bit for each row of our table. [`patterns`]
//! has keys and channels, [`password`] what is kept of passwords, [`login`] which user a client is.

pub mod file;
pub mod login;
pub mod password;
pub mod patterns;
pub mod rules;
pub mod user;
