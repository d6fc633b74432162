//! The scripts that a shard was sent on a connection. The shard may forget them, but not while the connection lasts, unless
//! somebody makes it.

use crate::scripts::Mark;

/// For each place in the book of scripts, the number of the one that was sent; at most as many as there are places.
#[derive(Default)]
pub struct Loaded(Vec<u32>);

impl Loaded {
    /// Whether this one was sent.
    pub fn has(&self, mark: Mark) -> bool {
        self.0.get(mark.place as usize) == Some(&mark.number)
    }

    /// This one was sent.
    pub fn add(&mut self, mark: Mark) {
        let place = mark.place as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] = mark.number;
    }

    /// The shard has refused it, or does not know it any more.
    pub fn remove(&mut self, mark: Mark) {
        if self.has(mark) {
            self.0[mark.place as usize] = 0;
        }
    }

    /// The shard knows none of them any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u32>()
    }
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
    }
}
