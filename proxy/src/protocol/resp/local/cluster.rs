//! CLUSTER, where the proxy poses as one: nodes and slots as [`super::super::facade`] has them, and no way to change them.
//!
//! What names the address that the client has connected to is asked of the worker, which alone knows it.

use super::{client, command};
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::{ClusterWord, Merge};
use crate::protocol::resp::facade::{self, Facade, SLOTS};
use crate::protocol::resp::session::{Session, number};
use crate::protocol::resp::{Resp, encode, slot};
use crate::protocol::{Facts, Plan, Question, Route};

/// What a client hears of a proxy that does not pose as a cluster.
pub const DISABLED: &str = "ERR This instance has cluster support disabled";
const NO_ADDRESS: &str = "ERR CLUSTER is refused: a client of a Unix socket has no address to be told; set cluster_facade_announce";
/// How the answers to [`ClusterWord::OF_ADDRESS`] are said, in that order, behind those of other questions.
const FORMS_FROM: u8 = 16;
/// A node in a reply costs as much as looking through so many names.
const NODE_SEARCHED: usize = 16;
/// Bytes of an ID that are shown in an error.
const SHOWN_MAX: usize = 128;

/// Answers a subcommand of CLUSTER.
pub fn answer(
    word: ClusterWord,
    all: &[&[u8]],
    session: &Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let out = &mut plan.reply;
    let Some(facade) = facts.settings.facade.as_deref() else {
        encode::error(out, DISABLED);
        return Route::Answer;
    };
    let refuse = |out: &mut Vec<u8>, reason: &str| {
        let name = String::from_utf8_lossy(all[1]).to_ascii_uppercase();
        encode::error(out, &format!("ERR CLUSTER {name} is refused: {reason}"));
    };
    match word {
        ClusterWord::Slots
        | ClusterWord::Shards
        | ClusterWord::Nodes
        | ClusterWord::Myid
        | ClusterWord::Myshardid => {
            plan.searched = facade.node_count() * NODE_SEARCHED;
            let form =
                ClusterWord::OF_ADDRESS.iter().position(|one| *one == word).expect("it is one of them");
            let form = FORMS_FROM + form as u8;
            return Route::Ask(Box::new(Question { form, ..client::own_question(facts.client) }));
        }
        ClusterWord::Info => facade::info(facade, session.resp3, out),
        ClusterWord::Keyslot => encode::integer(out, slot::of(all[2]).into()),
        ClusterWord::Links | ClusterWord::Getslotmigrations => encode::array(out, 0),
        ClusterWord::Help => {
            let container = lookup(all[0]).expect("its subcommand was found");
            command::help(container, facts.settings.one_shard, out);
        }
        ClusterWord::Replicas | ClusterWord::CountFailureReports if !facade.knows(all[2]) => {
            let id = String::from_utf8_lossy(&all[2][..all[2].len().min(SHOWN_MAX)]);
            encode::error(out, &format!("ERR Unknown node {id}"));
        }
        ClusterWord::Replicas => encode::array(out, 0),
        ClusterWord::CountFailureReports => encode::integer(out, 0),
        ClusterWord::Countkeysinslot | ClusterWord::Getkeysinslot if !facade.has_slots => {
            refuse(out, "the shards behind the proxy know no slots; use DBSIZE, or SCAN");
        }
        ClusterWord::Countkeysinslot | ClusterWord::Getkeysinslot => match slot_in(word, all[2]) {
            Ok(slot) => {
                plan.decoded.extend(slot::name_in(slot));
                plan.keys.push((0, plan.decoded.len()));
                return Route::Forward;
            }
            Err(error) => encode::error(out, error),
        },
        ClusterWord::SlotStats if facade.has_slots => {
            refuse(out, "each node tells of its own slots; ask the nodes directly");
        }
        ClusterWord::SlotStats => refuse(out, "the shards behind the proxy know no slots; use INFO"),
        ClusterWord::Change if facade.has_slots => refuse(
            out,
            "the proxy poses as a cluster (cluster_facade) and always owns all slots; ask the nodes of the cluster behind it",
        ),
        ClusterWord::Change => refuse(
            out,
            "the proxy poses as a cluster (cluster_facade) and always owns all slots; shards are added and removed in its configuration",
        ),
    }
    Route::Answer
}

/// The slot that a client names, or the error of Redis.
fn slot_in(word: ClusterWord, text: &[u8]) -> Result<u16, &'static str> {
    let slot = number(text).ok_or("ERR value is not an integer or out of range")?;
    let slot = u16::try_from(slot).ok().filter(|&slot| usize::from(slot) < SLOTS);
    slot.ok_or(match word {
        ClusterWord::Getkeysinslot => "ERR Invalid slot or number of keys",
        _ => "ERR Invalid slot",
    })
}

/// What is asked in this form, if it is about the cluster.
pub fn word_of(form: u8) -> Option<ClusterWord> {
    ClusterWord::OF_ADDRESS.get(usize::from(form.checked_sub(FORMS_FROM)?)).copied()
}

/// The reply to a client that has connected to the address `local`.
pub fn tell(word: ClusterWord, facade: Option<&Facade>, local: &[u8], resp3: bool, out: &mut Vec<u8>) {
    let Some(facade) = facade else { return encode::error(out, DISABLED) };
    let view = std::str::from_utf8(local).ok().and_then(|local| facade.view(local));
    let Some(view) = view else { return encode::error(out, NO_ADDRESS) };
    match word {
        ClusterWord::Slots => view.slots(resp3, out),
        ClusterWord::Shards => view.shards(resp3, out),
        ClusterWord::Nodes => view.lines(resp3, out),
        ClusterWord::Myshardid => view.shard_id(out),
        _ => view.id(out),
    }
}
