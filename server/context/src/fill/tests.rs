use super::duplicates::Kept;
use crate::index::terms::{Term, content_terms};

fn terms(text: &str) -> Vec<Term> {
    content_terms(text).collect()
}

#[test]
fn repetitions_are_seen_and_changed_numbers_are_not_repetitions() {
    let mut kept = Kept::default();
    kept.push(&terms("The bridge at Tolmin was opened by the mayor in May 1907."));
    assert!(kept.repeats(&terms("the bridge at Tolmin was opened by the Mayor, in May 1907")));
    assert!(!kept.repeats(&terms("The bridge at Tolmin was opened by the mayor in May 1908.")));
    assert!(!kept.repeats(&terms("The bridge at Tolmin was closed.")));
    assert!(!kept.repeats(&terms("mayor")));
    kept.pop(&terms("The bridge at Tolmin was opened by the mayor in May 1907."));
    assert!(!kept.repeats(&terms("The bridge at Tolmin was opened by the mayor in May 1907.")));
}
