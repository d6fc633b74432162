//! The scripts that a shard was sent on a connection. The shard may forget them, but not while the connection lasts, unless
//! somebody makes it.

use crate::scripts::Mark;

/// For each place in the book of scripts, the number of the one that was sent; at most as many as there are places.
#[derive(Default)]
pub struct Loaded {
    sent: Vec<u32>,
    /// The same of those that the shard has refused: it is not sent them again.
    refused: Vec<u32>,
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

    /// The shard knows none of them any more. What it has refused it is not sent again all the same.
    pub fn clear(&mut self) {
        self.sent.clone_from(&self.refused);
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        (self.sent.capacity() + self.refused.capacity()) * size_of::<u32>()
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
        assert!(!loaded.has(second));
        loaded.add(first);
        loaded.refuse(second);
        assert!(!loaded.is_refused(first) && !loaded.is_refused(second));
        loaded.refuse(first);
        let other = Mark { place: 4, number: 9 };
        loaded.add(other);
        loaded.clear();
        assert!(loaded.has(first) && loaded.is_refused(first) && !loaded.has(other));
    }
}
