//! The chance of a strategy: one generator for each run, named by scenario, strategy and number.

use rand::Rng as _;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::runtime::Chance;
use crate::storm::Fault;

/// Draws for one run.
pub(super) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// The dice of run `nth` of a strategy over the scenario with this digest.
    pub fn new(digest: &str, strategy: &str, nth: u64) -> Dice {
        Dice(Chance::new(nth).stream(&format!("explore/{digest}/{strategy}")))
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        let at = self.below(items.len());
        items.get(at)
    }

    /// A fault of a menu: first its kind, each kind as likely as any other, then one of the kind. `allowed` says which kinds may strike.
    pub fn pick(&mut self, menu: &[Fault], allowed: impl Fn(&str) -> bool) -> Option<usize> {
        let kinds: Vec<&str> = menu.iter().map(Fault::kind).collect();
        let mut distinct: Vec<&str> = kinds.iter().copied().filter(|kind| allowed(kind)).collect();
        distinct.sort();
        distinct.dedup();
        let kind = *self.one_of(&distinct)?;
        let entries: Vec<usize> = (0..menu.len()).filter(|at| kinds[*at] == kind).collect();
        self.one_of(&entries).copied()
    }

    /// The items in a drawn order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.below(at + 1);
            items.swap(at, other);
        }
    }
}
