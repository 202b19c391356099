//! The key that was probably meant.
//!
//! Blind spots: it knows spelling only, not meaning; what people confuse for other reasons stands in `traps.rs`.

/// The candidate nearest to `wrong`, if any is near enough to be what was meant.
///
/// Near means, best first: equal but for upper and lower case and separators; a few typing mistakes away (a third of the length); one contains
/// the other.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter_map(|candidate| {
            rank(wrong, candidate).map(|rank| (rank, candidate.len().abs_diff(wrong.len()), candidate))
        })
        .min()
        .map(|(.., candidate)| candidate)
}

fn rank(wrong: &str, candidate: &str) -> Option<usize> {
    let (a, b) = (plain(wrong), plain(candidate));
    if a == b {
        return Some(0);
    }
    let distance = distance(&a, &b);
    if distance <= (a.len().max(b.len()) / 3).max(1) {
        return Some(distance);
    }
    let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    let inside = short.len() >= 4 && long.windows(short.len()).any(|window| window == short.as_slice());
    inside.then_some(100 + long.len() - short.len())
}

fn plain(key: &str) -> Vec<char> {
    key.chars()
        .filter(|c| c.is_alphanumeric())
        .take(64)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours between two texts.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = [
        vec![0; b.len() + 1],
        (0..=b.len()).collect::<Vec<_>>(),
        vec![0; b.len() + 1],
    ];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let substitution = rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_mistakes_other_case_and_parts() {
        let keys = [
            "accessModes",
            "volumeSnapshotClassName",
            "resources",
            "storageClassName",
        ];
        for (wrong, right) in [
            ("accesModes", "accessModes"),
            ("AccessModes", "accessModes"),
            ("access_modes", "accessModes"),
            ("snapshotClassName", "volumeSnapshotClassName"),
            ("storageClass", "storageClassName"),
            ("resuorces", "resources"),
        ] {
            assert_eq!(nearest(wrong, keys), Some(right), "{wrong}");
        }
        assert_eq!(nearest("controllerExpand", keys), None);
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("spce"), &chars("spec")), 1);
        assert_eq!(distance(&chars(""), &chars("spec")), 4);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
