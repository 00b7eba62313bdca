use super::terms::{Term, content_terms, occurrences};
use super::*;

fn same(a: &str, b: &str) -> bool {
    content_terms(a).eq(content_terms(b))
}

#[test]
fn terms_forget_what_does_not_matter() {
    assert!(same("Bridges", "the bridge"));
    assert!(same("cities' mayors", "City Mayor"));
    assert!(same("Röntgen’s", "RÖNTGEN"));
    assert!(same("the U.S. navy", "US Navy"));
    assert!(same("1,000 men", "1000 men"));
    assert!(!same("glass", "glas") && !same("bus", "bu"));
    assert_eq!(content_terms("What was it that they did?").count(), 0);
}

#[test]
fn numbers_and_identifiers_stay_whole() {
    let holds = |text: &str, word: &str| {
        let wanted: Vec<Term> = content_terms(word).collect();
        wanted.iter().all(|term| content_terms(text).any(|other| other == *term))
            && !wanted.is_empty()
    };
    assert!(holds("error AB-1234 came up", "ab-1234"));
    let phrase: Vec<Term> = content_terms("AB-1234").collect();
    let text: Vec<Term> = content_terms("error AB-1234 came up").collect();
    assert!(
        phrase.len() == 3 && text.windows(3).any(|run| run == phrase),
        "the same run of terms everywhere"
    );
    assert!(holds("version 3.14.1", "3.14.1") && !holds("version 3.14.1", "3"));
    assert!(holds("call max_new_tokens now", "max_new_tokens"));
    assert!(occurrences("in 1901 they").iter().filter(|o| o.term.is_number()).count() == 1);
}

#[test]
fn unspaced_scripts_become_pairs() {
    // Three characters make two pairs, a lone one stands for itself.
    assert_eq!(content_terms("東京都").count(), 2);
    assert_eq!(content_terms("東 京").count(), 2);
    assert!(content_terms("東京都").next() == content_terms("東京").next());
    assert_eq!(content_terms("한국어").count(), 2);
}

fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    index.push_section([""]);
    for text in texts {
        index.push(text, Place { section: 0, chunk: 0 });
    }
    index
}

const ALONE: Weights = Weights { heading: 0.0, chunk: 0.0, neighbor: 0.0, window: 0 };

/// The formula of Robertson and Zaragoza, written out over plain strings.
#[test]
fn scores_equal_the_formula() {
    let texts = [
        "red bridge river",
        "bridge bridge tower crane lamp",
        "quiet garden",
        "river river river bridge",
        "lamp",
    ];
    let query = "bridge river lamp lamp absent";
    let words: Vec<Vec<&str>> = texts.iter().map(|text| text.split(' ').collect()).collect();
    let average = words.iter().map(Vec::len).sum::<usize>() as f64 / words.len() as f64;
    let scores = score(&[&index(&texts)], query, ALONE, None);
    for ((lexical, share), sentence) in scores.lexical.iter().zip(&scores.share).zip(&words) {
        let mut expected = 0.0;
        for term in query.split(' ') {
            let found = words.iter().filter(|words| words.contains(&term)).count() as f64;
            let idf = (1.0 + (words.len() as f64 - found + 0.5) / (found + 0.5)).ln();
            let tf = sentence.iter().filter(|word| **word == term).count() as f64;
            let length = 1.2 * (0.25 + 0.75 * sentence.len() as f64 / average);
            expected += idf * tf * 2.2 / (tf + length);
        }
        assert!(
            (f64::from(*lexical) - expected).abs() < 1e-5,
            "{sentence:?}: {lexical} {expected}",
        );
        assert!((0.0..=1.0).contains(share));
    }
}

#[test]
fn headings_and_neighbours_lend_weight() {
    let mut bridge = Index::default();
    bridge.push_section(["Tolmin bridge"]);
    bridge.push("It opened in May.", Place { section: 0, chunk: 0 });
    let mut garden = Index::default();
    garden.push_section(["Garden"]);
    for text in ["It opened in May.", "Nothing.", "Roses bloom."] {
        garden.push(text, Place { section: 0, chunk: 0 });
    }
    let score = |query, weights| super::score(&[&bridge, &garden], query, weights, None);
    let weights = Weights { heading: 0.5, ..ALONE };
    let scores = score("When was the bridge opened?", weights);
    assert!(scores.share[0] > scores.share[1] && scores.lexical[0] == scores.lexical[1]);
    // A neighbour lends within its document only.
    let near = score("roses", Weights { neighbor: 0.2, window: 1, ..ALONE });
    assert!(near.share[2] > 0.0 && near.lexical[2] == 0.0 && near.share[3] > near.share[2]);
    assert_eq!(near.share[1], 0.0);
    let over = score("nothing", Weights { neighbor: 0.2, window: 3, ..ALONE });
    assert_eq!(over.share[0], 0.0);
}

#[test]
fn surroundings_count_less_the_further_away_they_are() {
    let texts: Vec<&str> = ["one", "two", "roses", "four", "five", "six"].to_vec();
    let (first, second) = (index(&texts), index(&["seven", "eight"]));
    let scores = score(&[&first, &second], "roses", ALONE, Some(0.5));
    let around = &scores.around;
    assert!(around[2] > around[1] && around[1] > around[0] && around[3] > around[4]);
    assert_eq!(around[1], around[3], "both sides alike");
    assert_eq!(around[6..], [0.0, 0.0], "and not beyond the document");
    assert!(score(&[&first], "roses", ALONE, None).around.is_empty());
}

#[test]
fn smoothing_adds_up_both_sides() {
    let mut values = [1.0, 0.0, 2.0, 0.0];
    smooth(&mut values, 0.5);
    assert_eq!(values, [1.5, 1.5, 2.25, 1.125]);
}
