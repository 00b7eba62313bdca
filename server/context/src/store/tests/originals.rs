//! What was uploaded stays beside the text it was made of, and goes with it.

use super::*;

/// Files of versions' texts and originals.
fn files(folder: &Path) -> usize {
    everything(&folder.join("documents")).len()
}

#[test]
fn an_original_comes_back_and_goes_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let content = page("harbour mole", 8);
    let put = store.put("one", "page", &content).unwrap();
    let original = content.original.clone().unwrap();
    assert_eq!(put.version.original_bytes, original.bytes.len() as u64);
    assert_eq!(put.version.text_bytes, 12);
    assert!(!store.put("one", "page", &content).unwrap().created);
    drop(store);
    let store = open(folder.path());
    let stored = store.get("one", "page", None).unwrap().unwrap();
    assert_eq!((&stored.text, stored.way.as_ref()), (&content.text, Some(&original.way)));
    assert_eq!(store.original("one", "page", None).unwrap().unwrap().1, original.bytes);
    assert_eq!(store.original("two", "page", None).unwrap(), None);
    // The same words in another page are another content, and so are the words alone.
    let mut other = content.clone();
    other.original.as_mut().unwrap().bytes.push(b' ');
    assert_eq!(store.put("one", "page", &other).unwrap().version.version, 2);
    let words = Content { mime: content.mime.clone(), ..words("harbour mole", 8) };
    let put = store.put("one", "page", &words).unwrap();
    assert_eq!((put.version.version, put.version.original_bytes), (3, 12));
    assert_eq!(store.original("one", "page", None).unwrap().unwrap().1, b"harbour mole");
    assert_eq!(store.original("one", "page", Some(1)).unwrap().unwrap().1, original.bytes);
    assert_eq!(files(folder.path()), 5);
    store.check().unwrap();
    // Three versions are kept: the first goes, with its original.
    store.put("one", "page", &page("salt", 8)).unwrap();
    assert_eq!(files(folder.path()), 5);
    store.check().unwrap();
    store.delete("one", "page").unwrap();
    assert_eq!(files(folder.path()), 0);
    store.check().unwrap();
}

#[test]
fn originals_count_against_the_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = page("harbour mole", 8);
    content.original.as_mut().unwrap().bytes = vec![b' '; 5000];
    let limits = Limits { tenant_bytes: 5000, ..small() };
    let store = Store::open(folder.path(), limits).unwrap();
    let refused = store.put("one", "page", &content);
    assert!(matches!(refused, Err(StoreError::Quota { what: "bytes", .. })), "{refused:?}");
    assert_eq!(files(folder.path()), 0);
    store.check().unwrap();
    drop(store);
    let limits = Limits { document_bytes: 4999, ..small() };
    let store = Store::open(folder.path(), limits).unwrap();
    let refused = store.put("one", "page", &content);
    assert!(matches!(refused, Err(StoreError::TooLarge { limit: 4999 })), "{refused:?}");
}

#[test]
fn a_damaged_original_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put("one", "page", &page("harbour mole", 8)).unwrap();
    let path = folder.path().join("documents/1/1");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[1..]).unwrap();
    let named = |wrong: Result<(), StoreError>| match wrong {
        Err(StoreError::Corrupt { file, .. }) => assert_eq!(folder.path().join(file), path),
        other => panic!("{other:?}"),
    };
    named(store.original("one", "page", None).map(|_| ()));
    named(store.check().map(|_| ()));
    // The text is none the worse.
    assert_eq!(store.get("one", "page", None).unwrap().unwrap().text, "harbour mole");
    std::fs::remove_file(&path).unwrap();
    named(store.original("one", "page", None).map(|_| ()));
    named(store.check().map(|_| ()));
}
