//! What becomes of a request.

use std::time::Duration;

use super::channels::Listening;
use super::clients::Question;
use super::scripting::Run;

/// What is to be done with a request.
#[derive(PartialEq, Eq, Debug)]
pub enum Route<M> {
    /// Nothing, and nothing is said.
    Ignore,
    /// It is refused because serving it would take too much memory now.
    NoRoom,
    /// [`super::Plan::reply`] is the reply, or [`super::Plan::shared`].
    Answer,
    /// [`super::Plan::reply`] is the reply, and the last one.
    AnswerAndClose,
    /// [`super::Plan::reply`] is the reply, and the client listens to nothing any more.
    AnswerAndForget,
    /// [`super::Plan::reply`] is the reply, and the client is shown all requests from now on, unless too many are shown them.
    Monitor,
    /// The client wants to hear of what [`super::Plan::keys`] name, or no more; of nothing of that kind where none is named.
    Listen(Listening),
    /// [`super::Plan::reply`] refuses a wrong password.
    Deny {
        /// The client has tried often: its next request waits a little.
        slowly: bool,
    },
    /// The request goes as it is to the shard that owns all of [`super::Plan::keys`].
    Forward,
    /// The same, if that shard owns all keys that patterns in the request may mean, which are the last so many of those.
    ForwardWith {
        /// How many patterns.
        patterns: usize,
    },
    /// The request goes as it is to the shard that owns all of [`super::Plan::keys`], and runs this there.
    Run(Run),
    /// The same on this shard of the topology, because there are no keys.
    RunOn {
        /// What.
        run: Run,
        /// Its place in the topology.
        shard: usize,
    },
    /// It goes to the shard that owns all of [`super::Plan::keys`], on a connection of its own: it waits there for data, at most for
    /// so long.
    Wait(Option<Duration>),
    /// All shards say how many replicas have what they executed before, and wait for that at most for so long.
    Confirm {
        /// `None` for ever.
        patience: Option<Duration>,
        /// Some are asked for; else it is only said how many there are.
        marks: bool,
    },
    /// The shard that owns all of [`super::Plan::keys`] watches them, and what its client says there goes over the same connection.
    Watch,
    /// Each key goes to its owner.
    Split(M),
    /// It goes to every server of the pool.
    Everywhere(M),
    /// It goes to every shard that has keys; where [`super::Plan::keys`] has what all keys begin with that it is about, and one shard has
    /// all that begin so, to that one. [`super::Plan::reply`] may have what the proxy says itself: it is the part behind those of the
    /// shards, and the reply where no shard can be asked.
    AllShards(M),
    /// It goes to the shard whose name is at the last of [`super::Plan::keys`]; [`super::Plan::reply`] is the reply where no shard can be asked.
    OnShard(M),
    /// The shard is asked for names of keys whose turn it is at this number of a scan. [`super::Plan::keys`] may have what all begin
    /// with that are looked for.
    Scan(u64),
    /// To be planned again once all earlier requests of the client are answered.
    WhenQuiet,
    /// It is queued, to be executed with others later: by a shard, or `here`, by the proxy itself. [`super::Plan::reply`] is the reply.
    Queue {
        /// By the proxy.
        here: bool,
    },
    /// It is queued for a shard, and runs this there. [`super::Plan::reply`] is the reply.
    QueueRun(Run),
    /// What is queued is executed; the replies to it are joined so.
    Execute(M),
    /// Only the whole process knows: the control thread is asked. In a box, because a route is made for every request, and a
    /// question is large.
    Ask(Box<Question>),
    /// The same, and the request is planned again once [`super::Protocol::found`] was told.
    AskFirst(Box<Question>),
}
