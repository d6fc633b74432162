//! A client that listens: what it is to hear, and what it hears.

use memstore_proxy::protocol::channels::Kind;

use super::text::{Value, value};
use crate::*;

impl Client {
    /// How many names it has, as it is told of one of this kind.
    pub fn count(&self, kind: Kind) -> usize {
        let [channels, patterns, sharded] = self.names.each_ref().map(BTreeSet::len);
        if kind == Kind::Sharded { sharded } else { channels + patterns }
    }

    pub fn listens(&self) -> bool {
        let wants = |expected: &Expected| matches!(expected, Expected::Change { on: true, .. });
        self.names.iter().any(|names| !names.is_empty()) || self.expected.iter().any(wants)
    }

    /// All that is whole of what it has heard.
    pub fn read(&mut self, is_faulty: bool) {
        while let Some((said, length)) = value(&self.inbox) {
            self.inbox.drain(..length);
            self.hear(said, is_faulty);
        }
    }

    pub fn hear(&mut self, said: Value, is_faulty: bool) {
        let word = said.elements.first().map_or("", |element| element.text.as_str());
        let number = self.number;
        if let Some(kind) = kind_of(MESSAGE, word) {
            assert_eq!(said.mark, if self.resp3 { b'>' } else { b'*' });
            let name = said.elements[1].text.clone();
            let listened = &self.names[kind.place()];
            assert!(listened.contains(&name), "client {number} hears of {name}, which it does not listen to");
            let message = said.elements.last().expect("a message").text.clone();
            let is_new = self.heard.insert((kind, name.clone(), message.clone()));
            assert!(
                is_new || (self.hears_twice && kind != Kind::Sharded),
                "client {number} hears {message} of {name} twice"
            );
            return;
        }
        let front =
            self.expected.front_mut().unwrap_or_else(|| panic!("client {number}: unexpected {said:?}"));
        let is_over = match front {
            Expected::Hello => said.mark == b'%',
            Expected::Pong => said.text == "PONG" || word == "pong",
            Expected::Number => said.mark == b':' || (is_faulty && said.mark == b'-'),
            Expected::Value => said.mark == b'$' || (is_faulty && said.mark == b'-'),
            Expected::Reset => {
                self.names.iter_mut().for_each(BTreeSet::clear);
                self.resp3 = false;
                said.text == "RESET"
            }
            Expected::Change { on: true, begun, .. } if said.mark == b'-' => {
                assert!(is_faulty && !*begun, "client {number}: {said:?}");
                true
            }
            Expected::Change { on, kind, names, all, begun } => {
                *begun = true;
                let kind = *kind;
                let wanted = if *on { LISTEN[kind.place()] } else { LISTEN_NO_MORE[kind.place()] };
                assert_eq!(word, wanted.to_ascii_lowercase(), "client {number}");
                assert_eq!(said.mark, if self.resp3 { b'>' } else { b'*' });
                let set = &mut self.names[kind.place()];
                let name = said.elements[1].text.clone();
                let is_over = if *all {
                    assert!(
                        set.remove(&name)
                            || (set.is_empty() && said.elements[1].mark != b'$')
                            || name == "-1"
                    );
                    set.is_empty()
                } else {
                    assert_eq!(names.pop_front().as_ref(), Some(&name), "client {number}: out of order");
                    if *on {
                        set.insert(name)
                    } else {
                        set.remove(&name)
                    };
                    names.is_empty()
                };
                assert_eq!(said.elements[2].text, self.count(kind).to_string(), "client {number}: {said:?}");
                if is_over {
                    self.expected.pop_front();
                }
                return;
            }
        };
        assert!(is_over, "client {number}: {said:?} instead of {front:?}");
        self.expected.pop_front();
    }
}
