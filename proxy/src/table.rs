//! A table of what every client has, that grows without being moved.
//!
//! A vector that grows leaves a hole in the heap as large as it was, which no other client fills: 16,000 idle clients would
//! hold the memory of half as many more. This one is made of chunks that stay where they are. A place that nobody has had yet
//! takes no memory.

/// Places of a chunk.
const CHUNK: usize = 256;

/// Values by their places.
pub struct Table<T> {
    /// All but the last have all their places.
    chunks: Vec<Vec<Option<T>>>,
    /// How many places are taken.
    taken: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), taken: 0 }
    }
}

impl<T> Table<T> {
    /// How many places there are, taken or not.
    pub fn places(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    /// How many of them are taken.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// Nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// What has this place.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    /// What has this place.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)?.as_mut()
    }

    /// Takes this place, and makes those that are missing before it.
    pub fn put(&mut self, place: usize, value: T) {
        while self.places() <= place {
            if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            self.chunks.last_mut().expect("there is room in it").push(None);
        }
        let slot = &mut self.chunks[place / CHUNK][place % CHUNK];
        self.taken += usize::from(slot.is_none());
        *slot = Some(value);
    }

    /// Frees this place. What had it.
    pub fn take(&mut self, place: usize) -> Option<T> {
        let value = self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)?.take();
        self.taken -= usize::from(value.is_some());
        value
    }

    /// What there is, by places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(place, slot)| Some((place, slot.as_ref()?)))
    }

    /// What there is, by places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let slots = self.chunks.iter_mut().flatten().enumerate();
        slots.filter_map(|(place, slot)| Some((place, slot.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A value that has a place of its own keeps it: it would be copied otherwise.
    #[test]
    fn what_is_there_is_not_moved() {
        let mut table = Table::default();
        table.put(0, [0_u64; 8]);
        let before: *const _ = table.get(0).unwrap();
        (1..100_000).for_each(|place| table.put(place, [0; 8]));
        assert_eq!(before, std::ptr::from_ref(table.get(0).unwrap()));
        let room: usize = table.chunks.iter().map(Vec::capacity).sum();
        assert!(room - table.places() < CHUNK, "{room}");
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0..3 * CHUNK, any::<Option<u8>>()), 0..200)) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (place, value) in steps {
                match value {
                    Some(value) => {
                        table.put(place, value);
                        map.insert(place, value);
                    }
                    None => prop_assert_eq!(table.take(place), map.remove(&place)),
                }
                prop_assert_eq!(table.get(place), map.get(&place));
                prop_assert_eq!(table.get_mut(place).copied(), map.get(&place).copied());
                prop_assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
            }
            prop_assert!(map.last_key_value().is_none_or(|(&place, _)| place < table.places()));
            prop_assert!(table.iter().eq(map.iter().map(|(&place, value)| (place, value))));
            prop_assert!(table.iter_mut().map(|(place, value)| (place, *value)).eq(map.into_iter()));
        }
    }
}
