//! What those go by who need no more of a protocol than what it is called and whether a shard is well.

use super::Protocol;

/// [`Protocol::probed`].
pub type Probed = fn(&[u8]) -> Option<Result<(), String>>;

/// What those go by who need no more of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// [`Protocol::NAME`].
    pub name: &'static str,
    /// [`Protocol::FAMILIES`].
    pub families: &'static [&'static str],
    /// [`Protocol::TOO_MANY_CLIENTS`].
    pub too_many_clients: &'static [u8],
    /// [`Protocol::PROBE`].
    pub probe: &'static [u8],
    /// [`Protocol::probed`].
    pub probed: Probed,
}

impl About {
    /// What is to be known of this one.
    pub const fn of<P: Protocol>() -> Self {
        Self {
            name: P::NAME,
            families: P::FAMILIES,
            too_many_clients: P::TOO_MANY_CLIENTS,
            probe: P::PROBE,
            probed: P::probed,
        }
    }
}
