//! Token counts stay with their content, for a few models.

use super::*;

#[test]
fn counts_go_with_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let content = store.put("one", "guide", &words("harbour mole", 8)).unwrap().version.content;
    let before = store.check().unwrap();
    let kept = |store: &Store, model: u8| store.counts("one", &content, &[model; 32]).unwrap();
    assert!(store.put_counts("one", &content, &[1; 32], b"seven").unwrap());
    assert!(store.put_counts("one", &content, &[2; 32], b"eight tokens").unwrap());
    assert!(store.put_counts("one", &content, &[1; 32], b"nine").unwrap());
    assert_eq!(kept(&store, 1), Some(b"nine".to_vec()));
    assert_eq!(kept(&store, 3), None);
    assert_eq!(store.counts("two", &content, &[1; 32]).unwrap(), None);
    assert_eq!(store.check().unwrap().counts, 2);
    // Neither of a content that is not stored nor of another tenant's.
    assert!(!store.put_counts("one", &[9; 32], &[1; 32], b"x").unwrap());
    assert!(!store.put_counts("two", &content, &[1; 32], b"x").unwrap());
    drop(store);
    let store = open(folder.path());
    assert_eq!(kept(&store, 2), Some(b"eight tokens".to_vec()));
    // The content stands in another document still.
    store.put("one", "copy", &words("harbour mole", 8)).unwrap();
    store.delete("one", "guide").unwrap();
    assert_eq!(store.check().unwrap().counts, 2);
    store.delete("one", "copy").unwrap();
    assert_eq!(kept(&store, 2), None);
    let after = store.check().unwrap();
    assert_eq!((after.counts, after.documents, before.documents), (0, 0, 1));
}

#[test]
fn a_fifth_model_takes_the_place_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let content = store.put("one", "guide", &words("harbour mole", 8)).unwrap().version.content;
    for (model, counts) in [(1, 1), (2, 2), (3, 3), (4, 4), (4, 4), (5, 1)] {
        store.put_counts("one", &content, &[model; 32], b"some").unwrap();
        assert_eq!(store.check().unwrap().counts, counts, "{model}");
    }
}

#[test]
fn they_count_as_what_the_tenant_stores() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { tenant_bytes: 2000, ..small() };
    let store = Store::open(folder.path(), limits).unwrap();
    let content = store.put("one", "guide", &words("harbour mole", 8)).unwrap().version.content;
    let refused = store.put_counts("one", &content, &[1; 32], &[0; 2000]);
    assert!(matches!(refused, Err(StoreError::Quota { what: "bytes", .. })), "{refused:?}");
    assert_eq!(store.check().unwrap().counts, 0);
}
