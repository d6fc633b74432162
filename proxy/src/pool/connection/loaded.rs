//! The scripts that a shard was sent on a connection. The shard may forget them, but not while the connection lasts, unless
//! somebody makes it.

use std::collections::VecDeque;

use crate::scripts::Mark;

/// For each place in the book of scripts, the number of the one that was sent; at most as many as there are places.
#[derive(Default)]
pub struct Loaded {
    sent: Vec<u32>,
    /// The same of those that the shard has refused: it is not sent them again.
    refused: Vec<u32>,
    /// The same of those that it was sent and has not answered.
    coming: Vec<u32>,
    /// Scripts that the shard was asked for whether it knows them, with the number of the question, oldest first.
    asked: VecDeque<(u32, Vec<Mark>)>,
}

impl Loaded {
    /// Whether this one was sent.
    pub fn has(&self, mark: Mark) -> bool {
        self.sent.get(mark.place as usize) == Some(&mark.number)
    }

    /// Whether this one was sent and refused.
    pub fn is_refused(&self, mark: Mark) -> bool {
        self.refused.get(mark.place as usize) == Some(&mark.number)
    }

    /// This one was sent.
    pub fn add(&mut self, mark: Mark) {
        set(&mut self.sent, mark);
        set(&mut self.coming, mark);
    }

    /// The shard has answered to this one.
    pub fn answered(&mut self, mark: Mark) {
        if self.is_coming(mark) {
            self.coming[mark.place as usize] = 0;
        }
    }

    /// Whether this one was sent and the shard has not answered. What it says meanwhile of requests ahead of it, it has said without
    /// it.
    pub fn is_coming(&self, mark: Mark) -> bool {
        self.coming.get(mark.place as usize) == Some(&mark.number)
    }

    /// The shard is asked whether it knows these.
    pub fn ask(&mut self, question: u32, marks: Vec<Mark>) {
        self.asked.push_back((question, marks));
    }

    /// Whether the shard should know this one, as far as anybody has heard, and is not asked already.
    pub fn is_worth_asking(&self, mark: Mark) -> bool {
        let is_asked = || self.asked.iter().any(|(_, marks)| marks.contains(&mark));
        self.has(mark) && !self.is_refused(mark) && !self.is_coming(mark) && !is_asked()
    }

    /// The question is answered: what it was about, unless it was asked on another connection.
    pub fn heard(&mut self, question: u32) -> Option<Vec<Mark>> {
        let (asked, _) = self.asked.front()?;
        if *asked == question { self.asked.pop_front().map(|(_, marks)| marks) } else { None }
    }

    /// The shard takes nothing for the moment: it is to be sent this one again.
    pub fn remove(&mut self, mark: Mark) {
        if self.has(mark) {
            self.sent[mark.place as usize] = 0;
        }
    }

    /// The shard has refused this one.
    pub fn refuse(&mut self, mark: Mark) {
        if self.has(mark) {
            set(&mut self.refused, mark);
        }
    }

    /// The shard knows none of them any more, but for those that it has not answered. What it has refused it is not sent again all
    /// the same.
    pub fn clear(&mut self) {
        for (place, sent) in self.sent.iter_mut().enumerate() {
            let stays = |of: &[u32]| of.get(place) == Some(sent);
            if !stays(&self.refused) && !stays(&self.coming) {
                *sent = 0;
            }
        }
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let numbers = self.sent.capacity() + self.refused.capacity() + self.coming.capacity();
        let marks: usize = self.asked.iter().map(|(_, marks)| marks.capacity()).sum();
        let asked = self.asked.capacity() * size_of::<(u32, Vec<Mark>)>() + marks * size_of::<Mark>();
        numbers * size_of::<u32>() + asked
    }
}

fn set(numbers: &mut Vec<u32>, mark: Mark) {
    let place = mark.place as usize;
    if numbers.len() <= place {
        numbers.resize(place + 1, 0);
    }
    numbers[place] = mark.number;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_the_place_of_another_was_not_sent() {
        let mut loaded = Loaded::default();
        let (first, second) = (Mark { place: 3, number: 7 }, Mark { place: 3, number: 8 });
        assert!(!loaded.has(first) && !loaded.has(Mark { place: 0, number: 1 }));
        loaded.add(first);
        assert!(loaded.has(first) && !loaded.has(second) && !loaded.has(Mark { place: 2, number: 7 }));
        loaded.remove(second);
        assert!(loaded.has(first));
        loaded.add(second);
        assert!(loaded.has(second) && !loaded.has(first));
        loaded.clear();
        assert!(loaded.has(second), "the shard has not heard of it yet");
        loaded.answered(second);
        loaded.clear();
        assert!(!loaded.has(second));
        loaded.add(first);
        loaded.refuse(second);
        assert!(!loaded.is_refused(first) && !loaded.is_refused(second));
        loaded.refuse(first);
        let other = Mark { place: 4, number: 9 };
        loaded.add(other);
        loaded.answered(other);
        loaded.clear();
        assert!(loaded.has(first) && loaded.is_refused(first) && !loaded.has(other));
    }
}
