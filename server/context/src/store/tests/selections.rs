//! Selections are found again, go with their documents, and are not too many.

use super::*;

#[test]
fn a_selection_lives_as_long_as_what_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let a = store.put("one", "a", &words("harbour", 8)).unwrap().version.content;
    let b = store.put("one", "b", &words("mole", 8)).unwrap().version.content;
    assert!(store.put_selection("one", [1; 32], b"both", &[a, b, a]).unwrap());
    assert!(store.put_selection("one", [2; 32], b"b", &[b]).unwrap());
    assert!(store.put_selection("one", [3; 32], b"none", &[]).unwrap());
    assert!(store.put_selection("one", [2; 32], b"b again", &[b]).unwrap());
    drop(store);
    let store = open(folder.path());
    let value = |key: u8| store.selection("one", &[key; 32]).unwrap();
    assert_eq!(value(1).as_deref(), Some(&b"both"[..]));
    assert_eq!(store.check().unwrap().selections, 3);
    store.delete("one", "a").unwrap();
    assert_eq!(value(1), None);
    assert_eq!(value(2).as_deref(), Some(&b"b again"[..]));
    assert_eq!(value(3).as_deref(), Some(&b"none"[..]));
    assert!(!store.put_selection("one", [1; 32], b"late", &[a, b]).unwrap());
    assert_eq!(store.check().unwrap().selections, 2);
    // Old versions still hold their contents, until they go too.
    for n in 0..2 {
        store.put("one", "b", &words(&format!("mole {n}"), 8)).unwrap();
        assert!(value(2).is_some());
    }
    store.put("one", "b", &words("mole three", 8)).unwrap();
    assert_eq!(value(2), None);
    store.check().unwrap();
}

#[test]
fn the_oldest_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { selections: 2, selection_bytes: 4, ..small() };
    let store = Store::open(folder.path(), limits).unwrap();
    for key in 1..=3 {
        store.put_selection("one", [key; 32], &[key], &[]).unwrap();
        store.put_selection("two", [key; 32], &[key], &[]).unwrap();
    }
    let kept = |key: u8| store.selection("one", &[key; 32]).unwrap().is_some();
    assert_eq!([1, 2, 3].map(kept), [false, true, true]);
    let long = store.put_selection("one", [4; 32], &[0; 5], &[]);
    assert!(matches!(long, Err(StoreError::Invalid { field: "value", .. })));
    assert_eq!(store.check().unwrap().selections, 4);
}
