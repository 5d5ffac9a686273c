//! Choosing one of several servers. Plain functions over weights and numbers, so that tables can test them.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A server to choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Where it stands among all servers.
    pub(super) at: usize,
    /// Its share now.
    pub(super) weight: f64,
    /// Requests that it has.
    pub(super) active: usize,
    /// Its own number, the same after a reload.
    pub(super) id: u64,
    /// When it is asked: those of the lowest that is left.
    pub(super) tier: u32,
    /// Whether it is well as far as anybody knows.
    pub(super) is_well: bool,
}

/// In turn: each gets its weight added, and the one that has gathered most pays for all (nginx's smooth round robin, so
/// that the requests of a heavy server do not come in a row). `gathered` is by the place among all servers.
pub(super) fn in_turn(candidates: &[Candidate], gathered: &mut Vec<f64>) -> Option<usize> {
    let needed = candidates.iter().map(|one| one.at + 1).max()?;
    if gathered.len() < needed {
        gathered.resize(needed, 0.0);
    }
    let mut total = 0.0;
    for one in candidates {
        total += one.weight;
        gathered[one.at] += one.weight;
    }
    // The first of equals.
    let best = candidates.iter().rev().max_by(|a, b| gathered[a.at].total_cmp(&gathered[b.at]))?;
    gathered[best.at] -= total;
    Some(best.at)
}

/// The one with the fewest requests for its weight; equals in turn.
pub(super) fn least(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let length = candidates.len();
    let rotated = (0..length).map(|at| &candidates[(at + turn) % length]);
    rotated.min_by(|a, b| load(a).total_cmp(&load(b))).map(|one| one.at)
}

/// The better of two that are drawn by weight.
pub(super) fn random_two(candidates: &[Candidate], draw: u64) -> Option<usize> {
    let first = drawn(candidates, mixed(draw), None)?;
    let second = drawn(candidates, mixed(draw ^ 0x9e37_79b9_7f4a_7c15), Some(first)).unwrap_or(first);
    let (first, second) = (&candidates[first], &candidates[second]);
    Some(if load(second) < load(first) { second.at } else { first.at })
}

/// The same server for the same key: each draws a number from key and name, and the largest wins (rendezvous hashing).
/// When one leaves, only its own keys move.
pub(super) fn by_hash(candidates: &[Candidate], key: u64) -> Option<usize> {
    let score = |one: &Candidate| {
        let drawn = (mixed(key ^ mixed(one.id)) >> 11) as f64 / (1_u64 << 53) as f64;
        -one.weight / drawn.max(f64::MIN_POSITIVE).ln()
    };
    candidates.iter().max_by(|a, b| score(a).total_cmp(&score(b))).map(|one| one.at)
}

/// A number for a key.
pub(super) fn hashed(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn load(one: &Candidate) -> f64 {
    (one.active as f64 + 1.0) / one.weight
}

/// The place of a candidate that is drawn by weight, not this one.
fn drawn(candidates: &[Candidate], draw: u64, but: Option<usize>) -> Option<usize> {
    let others = || candidates.iter().enumerate().filter(|&(at, _)| Some(at) != but);
    let total: f64 = others().map(|(_, one)| one.weight).sum();
    let mut left = (draw >> 11) as f64 / (1_u64 << 53) as f64 * total;
    for (at, one) in others() {
        left -= one.weight;
        if left < 0.0 {
            return Some(at);
        }
    }
    others().next_back().map(|(at, _)| at)
}

/// SplitMix64: every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(of: &[(f64, usize)]) -> Vec<Candidate> {
        let one =
            |(at, &(weight, active))| Candidate { at, weight, active, id: mixed(at as u64), tier: 0, is_well: true };
        of.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_turn_gives_each_its_weight_and_spreads_the_heavy_one() {
        let servers = candidates(&[(5.0, 0), (1.0, 0), (1.0, 0)]);
        let mut gathered = Vec::new();
        let order: Vec<usize> = (0..7).filter_map(|_| in_turn(&servers, &mut gathered)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_least_loaded_is_the_one_with_the_fewest_for_its_weight() {
        assert_eq!(least(&candidates(&[(1.0, 3), (1.0, 2), (1.0, 4)]), 0), Some(1));
        assert_eq!(least(&candidates(&[(1.0, 2), (4.0, 4)]), 0), Some(1));
        let equal = candidates(&[(1.0, 0), (1.0, 0), (1.0, 0)]);
        assert_eq!((0..3).filter_map(|turn| least(&equal, turn)).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(least(&[], 0), None);
    }

    #[test]
    fn of_two_that_are_drawn_the_busier_one_gets_nothing() {
        let servers = candidates(&[(1.0, 0), (1.0, 9)]);
        assert!((0..100).all(|draw| random_two(&servers, draw) == Some(0)));
        let even = candidates(&[(1.0, 0), (1.0, 0), (1.0, 0), (1.0, 0)]);
        let mut counts = [0; 4];
        (0..4000).filter_map(|draw| random_two(&even, draw)).for_each(|at| counts[at] += 1);
        assert!(counts.iter().all(|&count| count > 800), "{counts:?}");
    }

    #[test]
    fn when_a_server_leaves_only_its_own_keys_move() {
        let servers = candidates(&[(1.0, 0), (1.0, 0), (2.0, 0)]);
        let mut counts = [0; 3];
        for key in 0..3000_u64 {
            let key = hashed(&key.to_be_bytes());
            let all = by_hash(&servers, key);
            let left = by_hash(&[servers[0], servers[2]], key);
            assert!(all == left || all == Some(1));
            counts[all.unwrap()] += 1;
        }
        assert!((600..900).contains(&counts[0]) && (1350..1650).contains(&counts[2]), "{counts:?}");
    }
}
