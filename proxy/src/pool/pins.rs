//! Clients that have a connection of one shard to themselves beside those they share: whatever they ask of that shard goes over
//! it, and nothing else does.
//!
//! Such a client is in no lane of its number: its `lane` is the place of its pin, beyond all lanes. So who looks for a connection
//! finds out by the check that there is such a lane, which is made anyway, and other clients pay nothing for it.

use super::connections::{ClientPin, ConnectionId, Connections};
use super::members::MemberIndex;
use crate::protocol::Protocol;

/// Places of pins begin there.
const FIRST: u32 = 1 << 31;

impl<P: Protocol> Connections<P> {
    /// The client in this lane asks that shard on the connection from now on.
    pub fn pin(&mut self, lane: &mut u32, member: MemberIndex, connection: ConnectionId) {
        debug_assert!(*lane < FIRST, "it has one already");
        let place = self.pins.insert(ClientPin { lane: *lane, member, connection });
        *lane = FIRST + place as u32;
    }

    /// The client asks it as all others do again. Returns the connection that it had.
    pub fn unpin(&mut self, lane: &mut u32) -> Option<ConnectionId> {
        let place = lane.checked_sub(FIRST)?;
        let ClientPin { lane: before, connection, .. } = self.pins.remove(place as usize);
        *lane = before;
        Some(connection)
    }

    /// What the client in this lane has.
    pub fn pin_of(&self, lane: u32) -> Option<ClientPin> {
        Some(self.pins[lane.checked_sub(FIRST)? as usize])
    }

    /// Whether it has a connection to that shard.
    pub fn is_pinned(&self, lane: u32, member: MemberIndex) -> bool {
        self.pin_of(lane).is_some_and(|pin| pin.member == member)
    }

    /// Whether nobody has one.
    pub fn has_no_pins(&self) -> bool {
        self.pins.is_empty()
    }

    /// The lane of a client that has one.
    #[cold]
    pub(super) fn lane_of_pinned(&self, lane: u32) -> u32 {
        self.pin_of(lane).expect("there is no such lane").lane
    }

    /// The connection of a client that has one to that shard or another.
    #[cold]
    pub(super) fn shared_by_pinned(&self, lane: u32, member: MemberIndex, number: u64) -> ConnectionId {
        let pin = self.pin_of(lane).expect("there is no such lane");
        if pin.member == member { pin.connection } else { self.shared(pin.lane, member, number) }
    }
}
