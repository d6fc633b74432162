//! Users, as Redis' access control lists know them: which commands, keys and channels a user may use.
//!
//! [`rules`] has which commands; it reads and keeps rules such as `+get` and `-@dangerous`, one bit for each row of our table.

pub mod rules;
