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
}

#[derive(Debug)]
struct Check {
    identity: ShardIdentity,
    /// The response that tells is the next one when so many are missing.
    place: usize,
    /// When it has to be known.
    until: Time,
    /// Why the last attempt failed, if that took its time: then nobody waits for this one.
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
            until: now.plus(IDENTITY_TIMEOUT),
            after: None,
        });
        Self { all: responses, missing: responses, output, check }
    }

    /// When the shard has to have said who it is, if it is asked and has not.
    pub fn identity_deadline(&self) -> Option<Time> {
        self.check.as_ref().map(|check| check.until)
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
                .map_err(ShardFailure::ConnectFailed)?;
            if !further.is_empty() {
                // It is answered behind all others.
                self.output.copy(&further);
                check.place = 1;
                return Ok(Step::Asks);
            }
            self.check = None;
            self.missing -= 1;
        } else {
            match P::greeted(settings, response) {
                Ok(None) => self.missing -= 1,
                Ok(Some(first)) => self.missing = self.all.saturating_sub(first),
                // It may be somebody else's server by now.
                Err(words) if self.check.is_some() => return Err(ShardFailure::ConnectFailed(words)),
                Err(words) => return Err(ShardFailure::GreetingRefused(words)),
            }
        }
        Ok(if self.missing == 0 { Step::Done } else { Step::Goes })
    }
}
