//! What nodes are told for each [`Step`].

use std::time::{Duration, Instant};

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::resolver::Resolver;
use shard_discovery::source::cluster::view;

use super::step::{NodeFacts, Step};
use super::{NODE_TIMEOUT, Reconcile, enter};
use crate::config::Auth;
use crate::net::conversation::{Conversation, ConversationError};

/// How long one batch of keys may take to move, as the nodes count it and as we do.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to drop its keys.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before a node is asked again to save, while it still does so by itself.
const SAVE_PAUSE: Duration = Duration::from_millis(100);
/// Keys moved at a time at most. A node answers nobody while it moves some, and must not seem to have failed.
const MIGRATE_KEYS: usize = 100;
/// Fewer are moved at a time from here on, and more below half of it.
const MIGRATE_SLOW: Duration = Duration::from_millis(50);

/// Takes one step.
pub(super) async fn take(
    step: &Step,
    seen: &[Result<NodeFacts, String>],
    reconcile: &Reconcile,
    names: &Resolver,
) -> Result<(), ConversationError> {
    let facts = |node: usize| {
        seen[node].as_ref().map_err(|reason| ConversationError::Refused(format!("node {node}: {reason}")))
    };
    let id = |node: usize| {
        let own = facts(node)?.own();
        own.map(|own| own.id.clone())
            .ok_or_else(|| ConversationError::Refused("the node does not report its ID".into()))
    };
    let open = async |node: usize, limit: Duration| {
        enter(&reconcile.goal.nodes[node], names, &reconcile.way, limit).await.map(|(node, _)| node)
    };
    let tell =
        async |node: usize, words: &[&str]| open(node, NODE_TIMEOUT).await?.ask(words).await.map(|_| ());
    match step {
        Step::SetEpoch { node, epoch } => {
            tell(*node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await
        }
        Step::Meet { node, other } | Step::Rejoin { node, other } => {
            if matches!(step, Step::Rejoin { .. }) {
                reset(&mut open(*node, EMPTY_TIMEOUT).await?).await?;
            }
            // Each the other: an address that one of them has of the other may be out of date.
            let (here, there) = (facts(*node)?, facts(*other)?);
            tell(*node, &["CLUSTER", "MEET", &there.ip, &there.port.to_string()]).await?;
            tell(*other, &["CLUSTER", "MEET", &here.ip, &here.port.to_string()]).await
        }
        Step::Forget { node, id } => match tell(*node, &["CLUSTER", "FORGET", id]).await {
            // It has already.
            Err(ConversationError::Refused(words)) if words.contains("Unknown node") => Ok(()),
            other => other,
        },
        Step::AddSlots { node, slots } => {
            let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            words.extend(slots.iter().flat_map(|&(first, last)| first..=last).map(|slot| slot.to_string()));
            open(*node, NODE_TIMEOUT).await?.ask(&words).await.map(|_| ())
        }
        Step::Replicate { node, primary } => tell(*node, &["CLUSTER", "REPLICATE", &id(*primary)?]).await,
        Step::TakeOver { node } => tell(*node, &["CLUSTER", "FAILOVER", "FORCE"]).await,
        Step::HandOver { node } => tell(*node, &["CLUSTER", "FAILOVER"]).await,
        Step::Settle { node, slot } => {
            tell(*node, &["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"]).await
        }
        Step::Reset { node } => reset(&mut open(*node, EMPTY_TIMEOUT).await?).await,
        Step::Discard { node } => {
            let mut node = open(*node, EMPTY_TIMEOUT).await?;
            match node.ask(&["FLUSHALL"]).await {
                // A replica: what it has goes when it is reset.
                Err(ConversationError::Refused(words)) if words.starts_with("READONLY") => {}
                other => drop(other?),
            }
            node.ask(&["CLUSTER", "RESET", "SOFT"]).await?;
            empty(&mut node).await
        }
        Step::Move { from, to, slots } => {
            let limit = MIGRATE_TIMEOUT + NODE_TIMEOUT;
            let (mut source, mut target) = (open(*from, limit).await?, open(*to, limit).await?);
            let (source_id, target_id, place) = (id(*from)?, id(*to)?, facts(*to)?);
            for &number in slots {
                let slot = number.to_string();
                let owner = place.view.nodes.iter().find(|node| node.each_slot().any(|slot| slot == number));
                if owner.is_none_or(|node| node.id != source_id && node.id != target_id) {
                    // A node that a slot is on its way to believes nobody else about it. Where its owner has failed it
                    // would serve nothing until then.
                    target.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &source_id]).await?;
                }
                target.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await?;
                source.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await?;
                move_keys(&mut source, &slot, place, reconcile.way.auth.as_ref()).await?;
                // The new owner first: in between the old one sends requests there.
                target.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await?;
                source.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await?;
            }
            Ok(())
        }
    }
}

/// Leaves the cluster with nothing, in memory and on disk. Done again it changes nothing.
async fn reset(node: &mut Conversation) -> Result<(), ConversationError> {
    let refused = ConversationError::Refused;
    // It may have been given some since it was looked at.
    let nodes = view::nodes(&node.text(&["CLUSTER", "NODES"]).await?).map_err(refused)?;
    if nodes.iter().any(|node| node.myself && !node.slots.is_empty()) {
        return Err(refused("it owns slots".into()));
    }
    // Refused by a primary that has keys; what a replica has in memory goes here.
    node.ask(&["CLUSTER", "RESET", "SOFT"]).await?;
    empty(node).await
}

/// Drops all keys of a node that is alone: started again, it would take the slots of those that it has on disk.
async fn empty(node: &mut Conversation) -> Result<(), ConversationError> {
    let named = |command: &str, error| match error {
        ConversationError::Refused(words) => ConversationError::Refused(format!("{command}: {words}")),
        lost => lost,
    };
    // This empties the append-only file. The dump is written again only where the server is to save by itself, and the one
    // that a primary sent is there wherever it is not.
    node.ask(&["FLUSHALL"]).await.map_err(|error| named("FLUSHALL", error))?;
    let begin = Instant::now();
    loop {
        // Not in the background: there is nothing to write that could take time, and the answer is what came of it.
        match node.ask(&["SAVE"]).await {
            // FLUSHALL has put an end to that, which the server notices after some moments.
            Err(ConversationError::Refused(words))
                if words.contains("in progress") && begin.elapsed() < NODE_TIMEOUT =>
            {
                tokio::time::sleep(SAVE_PAUSE).await;
            }
            other => return other.map(|_| ()).map_err(|error| named("SAVE", error)),
        }
    }
}

/// Moves all keys of a slot.
async fn move_keys(
    source: &mut Conversation,
    slot: &str,
    target: &NodeFacts,
    auth: Option<&Auth>,
) -> Result<(), ConversationError> {
    let mut batch = 1;
    loop {
        let begin = Instant::now();
        let BytesFrame::Array(keys) =
            source.ask(&["CLUSTER", "GETKEYSINSLOT", slot, &batch.to_string()]).await?
        else {
            return Err(ConversationError::Refused("the keys of a slot are not a list".into()));
        };
        if keys.is_empty() {
            return Ok(());
        }
        let (port, limit) = (target.port.to_string(), MIGRATE_TIMEOUT.as_millis().to_string());
        let mut words: Vec<Vec<u8>> =
            ["MIGRATE", &target.ip, &port, "", "0", &limit].map(|word| word.as_bytes().to_vec()).into();
        if let Some(auth) = auth {
            words.push(if auth.user.is_some() { b"AUTH2".to_vec() } else { b"AUTH".to_vec() });
            words.extend(auth.user.iter().map(|user| user.as_bytes().to_vec()));
            words.push(auth.password.expose().as_bytes().to_vec());
        }
        words.push(b"KEYS".to_vec());
        words.extend(keys.iter().filter_map(|key| match key {
            BytesFrame::BulkString(key) => Some(key.to_vec()),
            _ => None,
        }));
        match source.ask(&words).await {
            Ok(_) => {}
            // A copy is there from an attempt that was interrupted; the source has the keys and what holds is there.
            Err(ConversationError::Refused(error)) if error.contains("BUSYKEY") => {
                words.insert(6, b"REPLACE".to_vec());
                source.ask(&words).await?;
            }
            // Too much at once.
            Err(ConversationError::Refused(error)) if error.starts_with("IOERR") && batch > 1 => batch = 1,
            Err(error) => return Err(error),
        }
        match begin.elapsed() {
            slow if slow > MIGRATE_SLOW => batch = (batch / 4).max(1),
            quick if quick < MIGRATE_SLOW / 2 => batch = (batch * 2).min(MIGRATE_KEYS),
            _ => {}
        }
    }
}
