//! A request that was sent in fragments: what has come of each, until one reply is made of all.

use bytes::BytesMut;

use crate::buffer::{Output, Piece, SETTLE_MAX};
use crate::protocol::{Owners, Part, Protocol};

/// A split request whose fragments are under way.
pub struct Merging<P: Protocol> {
    /// How they are joined.
    merge: P::Merge,
    /// Which keys each fragment has.
    owners: Owners,
    /// Its fragments.
    parts: Vec<Part>,
    /// Fragments without a complete response.
    pub missing: usize,
    /// Bytes of the responses so far; none once they are too many to be kept.
    kept: Option<usize>,
}

impl<P: Protocol> Merging<P> {
    /// Nothing has come but what the proxy itself has said; so many fragments have no response.
    pub fn new(merge: P::Merge, owners: Owners, parts: Vec<Part>, missing: usize) -> Self {
        let kept = parts.iter().map(|part| part.bytes.len()).sum();
        Self { merge, owners, parts, missing, kept: Some(kept) }
    }

    /// Memory it holds beside the responses.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + P::merge_bytes(&self.merge)
            + self.owners.bytes()
            + self.parts.len() * size_of::<Part>()
    }

    /// Bytes of the responses that it holds.
    pub fn kept(&self) -> usize {
        self.kept.unwrap_or(0)
    }

    /// A piece of the response to a fragment. Returns how many bytes are not kept, of this and earlier ones.
    pub fn take(&mut self, fragment: u32, piece: Piece<'_>, last: bool) -> usize {
        self.missing -= usize::from(last);
        let length = piece.as_slice().len();
        let Some(kept) = &mut self.kept else { return length };
        *kept += length;
        if *kept > P::parts_max(&self.merge) {
            let dropped = *kept;
            self.kept = None;
            self.parts.iter_mut().for_each(|part| part.bytes = BytesMut::new());
            return dropped;
        }
        let part = &mut self.parts[fragment as usize].bytes;
        match piece {
            Piece::Shared(bytes) if part.is_empty() && bytes.len() >= SETTLE_MAX => {
                *part = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            }
            piece => part.extend_from_slice(piece.as_slice()),
        }
        0
    }

    /// What has come of a fragment is dropped; returns its size.
    pub fn forget(&mut self, fragment: u32) -> usize {
        let length = std::mem::take(&mut self.parts[fragment as usize].bytes).len();
        if let Some(kept) = &mut self.kept {
            *kept -= length;
        }
        length
    }

    /// Whether the complete response to a fragment cannot be one.
    pub fn is_odd(&self, fragment: u32) -> bool {
        self.kept.is_some()
            && P::is_odd(&self.merge, &self.owners, fragment, &self.parts[fragment as usize].bytes)
    }

    /// Writes the reply. Whether that is a refusal of the proxy itself.
    pub fn join(self, reply: &mut Output) -> bool {
        if self.kept.is_none() {
            P::overlong(&self.merge, reply.tail());
            return true;
        }
        P::merge(self.merge, &self.owners, self.parts, reply)
    }
}
