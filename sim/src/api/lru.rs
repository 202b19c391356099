//! A map that holds so many entries and forgets the one that was not used for longest.

use std::collections::BTreeMap;

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Lru<K, V> {
    capacity: usize,
    entries: BTreeMap<K, (u64, V)>,
    /// By last use.
    order: BTreeMap<u64, K>,
    uses: u64,
}

impl<K: Ord + Clone, V> Lru<K, V> {
    /// An empty map.
    pub(super) fn new(capacity: usize) -> Lru<K, V> {
        Lru {
            capacity,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    /// The entry of a key, made by `default` when there is none; using it makes it the youngest.
    pub(super) fn entry(&mut self, key: &K, default: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        match self.entries.get(key) {
            Some((used, _)) => {
                self.order.remove(used);
            }
            None => {
                if self.entries.len() == self.capacity
                    && let Some((_, oldest)) = self.order.pop_first()
                {
                    self.entries.remove(&oldest);
                }
                self.entries.insert(key.clone(), (0, default()));
            }
        }
        self.order.insert(self.uses, key.clone());
        let (used, value) = self.entries.get_mut(key).expect("it was just put there");
        *used = self.uses;
        value
    }

    /// The entry of a key; looking is not using.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The values, in order of key; looking is not using.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::Lru;

    #[test]
    fn the_entry_unused_for_longest_goes() {
        let mut lru = Lru::new(2);
        *lru.entry(&"a", || 1) += 10;
        lru.entry(&"b", || 2);
        assert_eq!(*lru.entry(&"a", || 0), 11);
        lru.entry(&"c", || 3);
        let left: Vec<_> = lru.iter().map(|(k, v)| (*k, *v)).collect();
        assert_eq!(left, [("a", 11), ("c", 3)]);
    }
}
