use super::*;

#[test]
fn pointing_words_lean_on_the_sentence_before() {
    for leaning in ["He left.", "\"This was it.\"", "Their names", "it’s late", "These"] {
        assert!(leans_on_previous(leaning), "{leaning}");
    }
    for free in ["Herman left.", "The bridge", "", "...", "Thesis: all", "Itself"] {
        assert!(!leans_on_previous(free), "{free}");
    }
}
