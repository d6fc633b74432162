//! Which keys of a split request each of its fragments has, and what has come of each.

use std::sync::Arc;

use bytes::BytesMut;

/// For each key of a request the fragment it belongs to, and for each fragment its keys: the response to one is judged by
/// its own keys, or a request of many fragments would cost its keys as many times.
#[derive(Debug, Default)]
pub struct Owners {
    /// One piece of memory: for each key its fragment; for each fragment where its keys end in what follows; the numbers of
    /// the keys, those of each fragment together and in the order of the request.
    numbers: Box<[u32]>,
    keys: usize,
    fragments: usize,
}

impl Owners {
    /// `of_keys` names for each key its fragment, of so many.
    pub fn new(of_keys: &[u32], fragments: usize) -> Self {
        let keys = of_keys.len();
        let mut numbers = vec![0; 2 * keys + fragments].into_boxed_slice();
        let (of, rest) = numbers.split_at_mut(keys);
        of.copy_from_slice(of_keys);
        let (ends, places) = rest.split_at_mut(fragments);
        for &fragment in of_keys {
            ends[fragment as usize] += 1;
        }
        let mut start = 0;
        for end in &mut *ends {
            start += std::mem::replace(end, start);
        }
        for (key, &fragment) in of_keys.iter().enumerate() {
            let end = &mut ends[fragment as usize];
            places[*end as usize] = key as u32;
            *end += 1;
        }
        Self { numbers, keys, fragments }
    }

    /// The fragment of each key, in the order of the request.
    pub fn of_keys(&self) -> &[u32] {
        &self.numbers[..self.keys]
    }

    /// The keys of a fragment by their places in the request, in that order.
    pub fn keys_of(&self, fragment: u32) -> &[u32] {
        let (ends, places) = self.numbers[self.keys..].split_at(self.fragments);
        let end = |fragment: usize| ends[fragment] as usize;
        let start = (fragment as usize).checked_sub(1).map_or(0, end);
        &places[start..end(fragment as usize)]
    }

    /// Memory it holds beside itself.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.numbers)
    }
}

/// The response to one fragment of a split request.
#[derive(Debug)]
pub struct Part {
    /// Name of the shard it comes from.
    pub shard: Arc<str>,
    /// What has come of it.
    pub bytes: BytesMut,
}

impl Part {
    /// Nothing has come yet.
    pub fn new(shard: Arc<str>) -> Self {
        Self { shard, bytes: BytesMut::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fragment_has_its_keys_in_order() {
        let owners = Owners::new(&[0, 2, 0, 1, 2, 0], 4);
        assert_eq!(owners.of_keys(), [0, 2, 0, 1, 2, 0]);
        let keys: Vec<&[u32]> = (0..4).map(|fragment| owners.keys_of(fragment)).collect();
        assert_eq!(keys, [&[0, 2, 5][..], &[3], &[1, 4], &[]]);
        assert!(Owners::new(&[], 2).keys_of(1).is_empty(), "what goes to every shard has no keys");
    }
}
