//! What a driver does for its pool at the end of a pass: what that wishes for, and the writing.

use bytes::BytesMut;

use super::sockets::{More, Turn};
use super::{
    Driver, OWED_PARTS, READ_LATE, SWEEP, WRITE_MAX, WRITE_MAX_OF_SHARD, WRITTEN_MORE, find, find_client,
};
use crate::failure::ShardFailure;
use crate::net::socket::Written;
use crate::pool::{Parting, Pool, Shell, Verdict, Wish};
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Shell<P> for Driver<P> {
    fn pool(&mut self) -> (&mut Pool<P>, &mut BytesMut) {
        (&mut self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Close(id, failure) => self.close_shard(id, &failure, now),
            Wish::CloseUnlessDelivered(id) => {
                if find(&mut self.shards, id).is_some_and(|shard| !shard.socket.has_delivered()) {
                    self.close_shard(id, &ShardFailure::ResponseTimeout, now);
                }
            }
            Wish::Finish(id) => {
                if let Some(shard) = find(&mut self.shards, id) {
                    shard.socket.finish();
                }
            }
            Wish::Connect(id) => self.connects.push(id),
            Wish::Ask(asked) => self.put_question(asked, now),
            Wish::Wake(worker) => self.setup.alarms[worker].ring(),
            Wish::Weigh => {
                let weighed = self
                    .clients
                    .iter()
                    .map(|(place, client)| (client.id(place), client.socket.layer_memory()));
                self.pool.transports_hold(weighed.filter(|&(_, bytes)| bytes > 0).collect());
            }
            Wish::Log(notice) => self.log(notice),
            Wish::Show(seen) => self.show(&seen),
            Wish::Note(noted) => {
                let address = self.address_of(noted.client).to_string();
                self.pool.tell_of(*noted, address);
            }
        }
    }

    fn write_shards(&mut self, now: Time) {
        self.connect_shards(now);
        let mut dirty = std::mem::take(&mut self.dirty_shards);
        self.pool.take_dirty_shards(&mut dirty);
        for id in dirty.drain(..) {
            let Some(shard) = find(&mut self.shards, id).filter(|shard| !shard.paused) else { continue };
            let Some(output) = self.pool.shard_output(id) else { continue };
            match shard.socket.write(output, WRITE_MAX_OF_SHARD) {
                // What waits is written when the socket is ready, or in its next turn.
                Ok(written) => {
                    if written == Written::Paused {
                        shard.paused = true;
                        self.paused_shards.push(id);
                    }
                    self.pool.settle_shard(id);
                }
                // Responses that came before the reset are still worth reading; that also tells how it ended.
                Err(_) => {
                    self.read_shard(id, now);
                    self.close_shard(id, &ShardFailure::Reset, now);
                }
            }
        }
        self.dirty_shards = dirty;
    }

    fn write_clients(&mut self, now: Time) {
        let share = self.share_to_go(now);
        let mut dirty = std::mem::take(&mut self.dirty_clients);
        self.pool.take_dirty_clients(&mut dirty);
        // They come after those that were not written at all.
        let mut had_turn = Vec::new();
        for id in dirty.drain(..) {
            let Some(client) = find_client(&mut self.clients, id) else { continue };
            if client.paused {
                continue;
            }
            if self.written >= self.written_max
                && self.pool.client_output(id).is_some_and(|output| output.len() > READ_LATE)
            {
                client.paused = true;
                self.paused_clients.push(id);
                continue;
            }
            let share = if client.leaving { 1024 } else { share };
            // What is unread would be lost with the connection.
            let mut leaves = share > 0 && self.pool.may_leave(id, share) && !client.socket.has_unread();
            if let Some(output) = self.pool.client_output(id)
                && !output.is_sent()
            {
                if leaves {
                    client.socket.hold_back(true);
                }
                let (queued, held) = (output.len(), output.held());
                let most = (queued / OWED_PARTS).clamp(WRITE_MAX, WRITTEN_MORE.0);
                let written = client.socket.write(output, most);
                let taken = queued - output.len();
                let moved = taken > 0 || output.held() < held;
                self.written += taken;
                self.pool.counters().client_sent_bytes.add(taken as u64);
                if leaves && !matches!(written, Ok(Written::All)) {
                    client.socket.hold_back(false);
                    leaves = false;
                }
                let written = match written {
                    Ok(written) => written,
                    Err(error) => {
                        self.close_client(id, Some(&error), now);
                        continue;
                    }
                };
                if written == Written::Paused {
                    client.paused = true;
                    had_turn.push(id);
                    self.pool.client_takes(id, now);
                } else if written == Written::Pending {
                    self.pool.client_blocked(id, moved, now);
                    self.next_sweep.get_or_insert(now.plus(SWEEP));
                    // It waits for itself.
                    client.left = None;
                }
            }
            if leaves {
                self.pool.part_with(id, if client.leaving { Parting::Aged } else { Parting::Drained }, now);
            }
            match self.pool.settle_client(id) {
                Verdict::Read => {
                    let is_waiting = client.ended && self.pool.is_waiting(id);
                    if is_waiting {
                        self.pool.client_ended(id);
                    } else if client.more == More::Unwanted {
                        client.more = More::Queued;
                        self.again.push_back(Turn::Client(id));
                    }
                }
                Verdict::Wait => {}
                Verdict::Finish => self.finish_client(id, now),
                Verdict::Close => self.close_client(id, None, now),
            }
        }
        self.dirty_clients = dirty;
        self.paused_clients.append(&mut had_turn);
    }
}
