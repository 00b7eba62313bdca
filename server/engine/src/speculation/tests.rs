use proptest::prelude::*;

use super::*;

/// What a scan of everything finds: the longest agreement, the newest of equals.
fn scanned(tokens: &[u32]) -> Option<Source> {
    let agreement = |next: usize| {
        (1..=next).take_while(|&n| tokens[next - n] == tokens[tokens.len() - n]).count().min(32)
    };
    let sources = (2..tokens.len()).map(|next| Source { next, length: agreement(next) });
    sources.filter(|s| s.length >= 2).max_by_key(|s| (s.length, s.next))
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(tokens in prop::collection::vec(0..6u32, 0..40), step in 1..5usize) {
        let mut ngrams = Ngrams::new(tokens.len());
        let mut known = 0;
        while known < tokens.len() {
            known = (known + step).min(tokens.len());
            ngrams.extend(&tokens[..known]);
            let (found, want) = (ngrams.longest_match(&tokens[..known]), scanned(&tokens[..known]));
            // Only so many places are looked at: of a pair that stands everywhere, an older one may agree longer.
            match (found, want) {
                (Some(found), Some(want)) => {
                    prop_assert!(found.length >= 2 && found.length <= want.length);
                    prop_assert!(found == want || known > 16);
                }
                (found, want) => prop_assert_eq!(found, want),
            }
        }
    }
}

#[test]
fn the_longest_agreement_wins_over_a_newer_one() {
    let tokens = [1, 2, 3, 4, 50, 9, 3, 4, 60, 8, 1, 2, 3, 4];
    let mut ngrams = Ngrams::new(100);
    ngrams.extend(&tokens);
    assert_eq!(ngrams.longest_match(&tokens), Some(Source { next: 4, length: 4 }));
    let again = [1, 2, 3, 50, 2, 3, 60, 2, 3];
    let mut ngrams = Ngrams::new(100);
    ngrams.extend(&again);
    assert_eq!(ngrams.longest_match(&again), Some(Source { next: 6, length: 2 }));
    assert_eq!(Ngrams::new(0).longest_match(&[]), None);
}

#[test]
fn memory_is_bounded_and_what_left_the_window_is_not_found() {
    let length = 200_000u32;
    // No pair stands twice in the middle; the first one comes again at the end.
    let mut tokens: Vec<u32> = (0..length).collect();
    tokens.extend([10, 11]);
    let mut ngrams = Ngrams::new(tokens.len());
    ngrams.extend(&tokens);
    assert_eq!(ngrams.longest_match(&tokens), None);
    tokens.extend([length - 5, length - 4]);
    ngrams.extend(&tokens);
    assert_eq!(
        ngrams.longest_match(&tokens),
        Some(Source { next: length as usize - 3, length: 2 })
    );
    assert!(ngrams.bytes() <= 384 << 10, "{} bytes", ngrams.bytes());
    // A short sequence takes little.
    let mut short = Ngrams::new(100);
    short.extend(&tokens[..100]);
    assert!(short.bytes() <= 2048, "{} bytes", short.bytes());
}

/// A sequence of `prompt` that went on with `said`, one token after the other.
fn told(prompt: &[u32], said: &[u32]) -> (Vec<u32>, Speculation, Acceptance) {
    let mut tokens = prompt.to_vec();
    let mut everyone = Acceptance::of_everyone();
    let mut speculation = Speculation::new(1000);
    for &token in said {
        tokens.push(token);
        speculation.observe(&tokens, &mut everyone);
    }
    (tokens, speculation, everyone)
}

#[test]
fn a_draft_is_what_followed_before() {
    let (tokens, speculation, _) = told(&[1, 2, 3, 4, 5, 6, 9], &[2, 3]);
    assert_eq!(speculation.draft(&tokens, 3), [4, 5, 6]);
    assert!(speculation.draft(&tokens, 0).is_empty());
    // Past the end of what was said it goes in circles.
    let (tokens, speculation, _) = told(&[7, 8], &[9, 7, 8, 9]);
    assert_eq!(speculation.draft(&tokens, 7), [7, 8, 9, 7, 8, 9, 7]);
    let (tokens, speculation, everyone) = told(&[1, 2, 3], &[4, 5]);
    assert!(speculation.draft(&tokens, 3).is_empty());
    assert_eq!(speculation.chances(&everyone).count(), 0);
}

#[test]
fn chances_fall_along_a_draft_and_follow_what_was_seen() {
    let circle: Vec<u32> = (0..200).map(|i| i % 5).collect();
    let (_, sure, everyone) = told(&[0, 1, 2, 3, 4], &circle);
    let chances: Vec<f64> = sure.chances(&everyone).take(8).collect();
    assert!(chances.is_sorted_by(|a, b| a >= b), "{chances:?}");
    assert!(chances[0] > 0.85 && chances[7] > 0.3, "{chances:?}");

    // Every pair stands before, and what follows it is always another token.
    let misled: Vec<u32> = (0..100).flat_map(|i| [1, 2, 100 + i]).collect();
    let (tokens, mut doubtful, mut everyone) = told(&[], &misled);
    let tokens = [tokens, vec![1, 2]].concat();
    doubtful.observe(&tokens[..tokens.len() - 1], &mut everyone);
    doubtful.observe(&tokens, &mut everyone);
    let first = doubtful.chances(&everyone).next().unwrap();
    assert!(first < 0.1, "{first}");
}

#[test]
fn a_new_sequence_is_taken_for_one_like_the_others() {
    let circle: Vec<u32> = (0..2000).map(|i| i % 5).collect();
    let (_, _, experienced) = told(&[0, 1, 2, 3, 4], &circle);
    let (_, new, naive) = told(&[1, 2, 3], &[8, 1, 2]);
    let chance = |everyone| new.chances(everyone).next().unwrap();
    // Long agreement has been proved right, short agreement hardly seen.
    assert_eq!(chance(&naive), 0.5);
    assert!(experienced.alone(40) > 0.9 && chance(&experienced) >= 0.5);
}
