//! What a new shard connection says first, and what has to be answered before requests flow.

use std::time::Duration;

use crate::buffer::Output;
use crate::failure::ShardFailure;
use crate::protocol::{Greeting, Protocol, ShardIdentity};
use crate::time::Time;

/// Longest response to the greeting.
const RESPONSE_MAX: usize = 64 * 1024;
/// The same where a node of a cluster is asked whom it knows.
const IDENTITY_MAX: usize = 4 * 1024 * 1024;
/// A shard that is asked who it is and does not say so in this time is taken for somebody else.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(1);
/// Characters of what a server says instead: every request that is refused meanwhile is told them.
const WORDS_MAX: usize = 256;

/// A greeting (AUTH, HELLO, SELECT) that is not answered yet.
#[derive(Debug)]
pub struct Handshake {
    /// Responses that it brings.
    all: usize,
    /// Responses still to come.
    missing: usize,
    /// What is not yet written of it.
    pub output: Output,
    /// Who has to be there, as long as that is not known.
    check: Option<Check>,
    /// The shard is asked for its number of the connection.
    asks_peer: bool,
    /// That number, once it has said so.
    pub peer: Option<i64>,
}

#[derive(Debug)]
struct Check {
    identity: ShardIdentity,
    /// The response that tells is the next one when so many are missing.
    place: usize,
    /// The same of the first question: what was sent before that is the same for all clients.
    first: usize,
    /// When it has to be known.
    until: Time,
    /// Since when it is waited for, or has been judged that it takes too long.
    since: Time,
    /// Why nobody waits for it, if that is so: the last attempt failed like this and took its time, or this one takes too long.
    after: Option<ShardFailure>,
}

/// What a response to the greeting has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Others are missing.
    Goes,
    /// There is a further question.
    Asks,
    /// It was the last.
    Done,
}

impl Handshake {
    /// The greeting has these bytes.
    pub fn new(greeting: Greeting, bytes: &[u8], identity: Option<ShardIdentity>, now: Time) -> Self {
        let Greeting { responses, identity: place } = greeting;
        let mut output = Output::default();
        output.copy(bytes);
        let check = identity.zip(place).map(|(identity, place)| Check {
            identity,
            place,
            first: place,
            until: now.plus(IDENTITY_TIMEOUT),
            since: now,
            after: None,
        });
        Self { all: responses, missing: responses, output, check, asks_peer: false, peer: None }
    }

    /// Asks for the shard's number of the connection, behind all else.
    pub fn ask_peer<P: Protocol>(greeting: &mut Greeting, bytes: &mut Vec<u8>) {
        let responses = P::ask_peer(bytes);
        greeting.responses += responses;
        greeting.identity = greeting.identity.map(|place| place + responses);
    }

    /// The same as [`Self::new`], where that was asked.
    pub fn with_peer(greeting: Greeting, bytes: &[u8], identity: Option<ShardIdentity>, now: Time) -> Self {
        Self { asks_peer: true, ..Self::new(greeting, bytes, identity, now) }
    }

    /// Whether the shard is asked who it is, and has not said so.
    pub fn is_identifying(&self) -> bool {
        self.check.is_some()
    }

    /// When the shard has to have said who it is, if it is asked and has not; each `timeout` is one in which requests would have
    /// failed.
    pub fn identity_deadline(&self, timeout: Option<Duration>) -> Option<Time> {
        let check = self.check.as_ref()?;
        let late = timeout.map(|timeout| check.since.plus(timeout));
        late.into_iter().chain([check.until]).min()
    }

    /// The deadline has passed. Where the shard may say who it is yet, nobody waits for that any more, and this is since when it
    /// has failed to; `None` where it is taken for somebody else.
    pub fn go_on_identifying(&mut self, failure: &ShardFailure, now: Time) -> Option<Time> {
        let check = self.check.as_mut().filter(|check| check.until > now)?;
        check.after = Some(failure.clone());
        Some(std::mem::replace(&mut check.since, now))
    }

    /// Whoever is there has to say first who it is, where the last attempt failed like this and took its time.
    pub fn refuse_until_identified(&mut self, after: Option<ShardFailure>) {
        if let Some(check) = &mut self.check {
            check.after = after;
        }
    }

    /// Why requests are refused meanwhile, if they are.
    pub fn refusal(&self) -> Option<&ShardFailure> {
        self.check.as_ref()?.after.as_ref()
    }

    /// Bytes that the response at hand may have.
    pub fn response_max(&self) -> usize {
        if self.check.is_some() { IDENTITY_MAX } else { RESPONSE_MAX }
    }

    /// Whether the next response is the shard's number of the connection: the last one, but for a further question.
    fn is_about_peer(&self) -> bool {
        let behind = self.check.as_ref().map_or(0, |check| usize::from(check.place == 1));
        self.asks_peer && self.missing == 1 + behind
    }

    /// One response has come.
    pub fn hear<P: Protocol>(
        &mut self,
        settings: &P::Settings,
        response: &[u8],
    ) -> Result<Step, ShardFailure> {
        if let Some(check) = &mut self.check
            && check.place == self.missing
        {
            let mut further = Vec::new();
            P::identified(&mut check.identity, response, &mut further)
                .map_err(|words| unidentified::<P>(&words))?;
            if !further.is_empty() {
                // It is answered behind all others.
                self.output.copy(&further);
                check.place = 1;
                return Ok(Step::Asks);
            }
            self.check = None;
            self.missing -= 1;
        } else if self.is_about_peer() {
            // One that must not say so lets waits end by themselves.
            self.peer = P::peer(response);
            self.missing -= 1;
        } else {
            match P::greeted(settings, response) {
                Ok(None) => self.missing -= 1,
                Ok(Some(first)) => self.missing = (self.missing - 1).min(self.all.saturating_sub(first)),
                // What is behind the question may be a client's choice.
                Err(words) if self.check.as_ref().is_some_and(|check| self.missing > check.first) => {
                    return Err(unidentified::<P>(&words));
                }
                Err(words) => return Err(ShardFailure::HandshakeRefused(shown(&words))),
            }
        }
        Ok(if self.missing == 0 { Step::Done } else { Step::Goes })
    }
}

/// Instead of saying who it is a server refuses. It may be somebody else's by now; but one that is busy with a client's script
/// refuses whoever comes.
fn unidentified<P: Protocol>(words: &str) -> ShardFailure {
    let words_shown = shown(words);
    if P::is_busy(words) {
        ShardFailure::HandshakeRefused(words_shown)
    } else {
        ShardFailure::ConnectFailed(words_shown)
    }
}

/// As much of a server's words as everybody is told.
fn shown(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;
    use crate::secret::Secret;

    const TIMEOUT: Duration = Duration::from_millis(400);

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    /// AUTH, who it is, and SELECT.
    fn handshake() -> Handshake {
        let greeting = Greeting { responses: 3, identity: Some(2) };
        Handshake::new(greeting, b"", Some(ShardIdentity::Host("h".into())), at(0))
    }

    fn hear(handshake: &mut Handshake, response: &str) -> Result<Step, ShardFailure> {
        handshake.hear::<Resp>(&Settings::default(), response.as_bytes())
    }

    #[test]
    fn each_timeout_of_silence_is_judged_until_the_shard_is_taken_for_somebody_else() {
        let failure = ShardFailure::ConnectFailed("timed out".into());
        let mut handshake = handshake();
        let mut judged = Vec::new();
        while let Some(due) = handshake.identity_deadline(Some(TIMEOUT)) {
            let Some(began) = handshake.go_on_identifying(&failure, due) else { break };
            assert_eq!(handshake.refusal(), Some(&failure), "nobody waits any more");
            judged.push((began, due));
        }
        assert_eq!(judged, [(at(0), at(400)), (at(400), at(800))]);
        assert_eq!(handshake.identity_deadline(Some(TIMEOUT)), Some(at(1000)));
        assert_eq!(handshake.identity_deadline(None), Some(at(1000)));
    }

    /// Everybody who asks for something meanwhile is told them.
    #[test]
    fn words_of_a_server_are_cut() {
        let long = "\u{e4}".repeat(2 * 1024 * 1024);
        let cut = "\u{e4}".repeat(WORDS_MAX);
        let refused = format!("-{long}\r\n");
        assert_eq!(hear(&mut handshake(), &refused), Err(ShardFailure::ConnectFailed(cut.clone())));
        let mut handshake = handshake();
        assert_eq!(hear(&mut handshake, "+OK\r\n"), Ok(Step::Goes));
        assert_eq!(hear(&mut handshake, &refused), Err(ShardFailure::ConnectFailed(cut.clone())));
        let mut known = Handshake::new(Greeting { responses: 1, identity: None }, b"", None, at(0));
        assert_eq!(hear(&mut known, &refused), Err(ShardFailure::HandshakeRefused(cut)));
    }

    /// What it is asked then comes behind what a client has chosen.
    #[test]
    fn a_node_that_is_another_one_may_refuse_what_a_client_has_chosen() {
        let known = [Box::from("bbbb")].into();
        let node = ShardIdentity::Node { id: "aaaa".into(), known, found: None };
        let greeting = Greeting { responses: 2, identity: Some(2) };
        let mut handshake = Handshake::new(greeting, b"", Some(node), at(0));
        assert_eq!(hear(&mut handshake, "$4\r\ncccc\r\n"), Ok(Step::Asks));
        let refused = ShardFailure::HandshakeRefused("ERR DB index is out of range".into());
        assert_eq!(hear(&mut handshake, "-ERR DB index is out of range\r\n"), Err(refused));
        assert!(handshake.is_identifying());
    }

    /// The map of HELLO is no proof of a password any more once the shard has said who it is.
    #[test]
    fn the_version_comes_behind_two_passwords_and_who_the_shard_is() {
        let secret = |text: &str| Some(Secret::new(text.into()));
        let settings = Settings { password: secret("new"), previous: secret("old"), ..Settings::default() };
        let mut session = Resp::session(&settings);
        session.resp3 = true;
        let (mut asked, identity) = (Vec::new(), ShardIdentity::Host("h".into()));
        let greeting = Resp::greeting(&settings, Resp::lane(&session), false, Some(&identity), &mut asked);
        let asked = String::from_utf8(asked).expect("text");
        let places =
            ["AUTH", "PING", "replica-announce-ip", "HELLO"].map(|word| asked.find(word).expect(word));
        assert!(places.is_sorted(), "{asked}");
        let mut handshake = Handshake::new(greeting, b"", Some(identity), at(0));
        let who = "*2\r\n$19\r\nreplica-announce-ip\r\n$1\r\nh\r\n";
        // The wrong one is not answered.
        for (response, step) in
            [("+OK\r\n", Step::Goes), ("+PONG\r\n", Step::Goes), (who, Step::Goes), ("%0\r\n", Step::Done)]
        {
            assert_eq!(handshake.hear::<Resp>(&settings, response.as_bytes()), Ok(step), "{response}");
        }
    }
}
