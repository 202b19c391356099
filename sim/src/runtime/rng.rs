//! Chance: a tree of named generators. One more draw in one place moves nothing elsewhere.
//!
//! The algorithm is pinned (xoshiro256++ seeded by BLAKE3 of seed and name): the same token must draw the same in every build.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// The root of all chance in a run.
#[derive(Clone, Debug)]
pub struct Chance {
    key: [u8; 32],
}

impl Chance {
    /// The chance of this seed. No seed given means seed 0.
    pub fn new(seed: u64) -> Chance {
        Chance {
            key: blake3::derive_key("wavetank 2026 chance of a run", &seed.to_le_bytes()),
        }
    }

    /// A generator of its own for `name`, e.g. `kubelet/node-1/status-phase`.
    pub fn stream(&self, name: &str) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::from_seed(*blake3::keyed_hash(&self.key, name.as_bytes()).as_bytes())
    }

    /// One draw for `name` and its `nth` occasion, uniform in `[0, 1)`.
    ///
    /// Cheap enough for the latency of every delivery; it depends on its arguments only.
    pub fn unit(&self, name: &[&str], nth: u64) -> f64 {
        self.draws(name).unit(nth)
    }

    /// All draws for `name`: for who draws often.
    pub fn draws(&self, name: &[&str]) -> Draws {
        let mut hash = Fold::new(&self.key);
        for part in name {
            hash.bytes(part.as_bytes());
            hash.word(0xff);
        }
        Draws(hash)
    }

    /// One draw below `bound` for `name` and its `nth` occasion.
    pub fn below(&self, bound: u64, name: &[&str], nth: u64) -> u64 {
        assert!(bound > 0, "a draw needs something to choose from");
        (self.unit(name, nth) * bound as f64) as u64
    }
}

/// What one name draws, occasion by occasion.
#[derive(Clone, Copy, Debug)]
pub struct Draws(Fold);

impl Draws {
    /// As [`Chance::unit`].
    pub fn unit(self, nth: u64) -> f64 {
        let mut hash = self.0;
        hash.word(nth);
        (hash.finish() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// 128 bits that stand for these parts, begun with `seed`: for keys of caches and parts of names, where nobody seeks collisions. Pinned like [`Chance`].
pub fn fold(seed: u128, parts: &[&str]) -> u128 {
    let mut low = Fold(seed as u64);
    let mut high = Fold((seed >> 64) as u64 ^ 0x5bd1_e995_9e37_79b9);
    for half in [&mut low, &mut high] {
        for part in parts {
            half.bytes(part.as_bytes());
            half.word(part.len() as u64);
        }
        half.word(parts.len() as u64);
    }
    u128::from(high.finish()) << 64 | u128::from(low.finish())
}

/// A 64-bit mixing hash (the finaliser of SplitMix64 over 8-byte words), pinned here so that no library can change it.
#[derive(Clone, Copy, Debug)]
struct Fold(u64);

impl Fold {
    fn new(key: &[u8; 32]) -> Fold {
        let mut fold = Fold(0);
        fold.bytes(key);
        fold
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn word(&mut self, word: u64) {
        let mut z = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }

    fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Chance, fold};
    use rand::Rng;

    #[test]
    fn a_draw_depends_on_seed_name_and_occasion_only() {
        let chance = Chance::new(7);
        assert_eq!(
            chance.unit(&["watch", "pod"], 3),
            Chance::new(7).unit(&["watch", "pod"], 3)
        );
        assert_ne!(chance.unit(&["watch", "pod"], 3), chance.unit(&["watch", "pod"], 4));
        assert_ne!(chance.unit(&["watch", "pod"], 3), chance.unit(&["watchp", "od"], 3));
        assert_ne!(chance.unit(&["watch"], 3), Chance::new(8).unit(&["watch"], 3));
    }

    #[test]
    fn the_algorithm_is_pinned() {
        // A change of these numbers changes what every token means: it belongs into the changelog.
        assert_eq!(Chance::new(0).stream("pinned").next_u64(), PINNED_STREAM);
        assert_eq!(Chance::new(0).below(1_000_000, &["pinned"], 1), PINNED_DRAW);
    }

    #[test]
    fn a_fold_depends_on_its_seed_and_on_where_its_parts_end() {
        let all = [
            fold(0, &["ab", "c"]),
            fold(0, &["a", "bc"]),
            fold(0, &["abc"]),
            fold(1, &["abc"]),
            fold(0, &["abc", ""]),
            fold(0, &[]),
        ];
        let different: std::collections::BTreeSet<u128> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(all.iter().all(|f| (f >> 64) as u64 != *f as u64), "the halves differ");
    }

    const PINNED_STREAM: u64 = 7_435_444_800_806_794_724;
    const PINNED_DRAW: u64 = 656415;
}
