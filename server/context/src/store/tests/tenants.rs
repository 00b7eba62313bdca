//! Tenants have nothing in common.

use super::*;

#[test]
fn equal_ids_and_contents_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let content = words("harbour mole", 8);
    let one = store.put("one", "guide", &content).unwrap();
    let two = store.put("two", "guide", &content).unwrap();
    // Nobody learns from a hash what others have.
    assert_ne!(one.version.content, two.version.content);
    assert_eq!(store.get("three", "guide", None).unwrap(), None);
    assert_eq!(found(&store, "three", "harbour"), []);

    let key = [7; 32];
    assert!(store.put_selection("one", key, b"one's", &[one.version.content]).unwrap());
    assert!(store.put_selection("two", key, b"two's", &[two.version.content]).unwrap());
    // A content of another is as unknown as one nobody has.
    assert!(!store.put_selection("one", [8; 32], b"x", &[two.version.content]).unwrap());

    store.delete("one", "guide").unwrap();
    assert_eq!(store.get("one", "guide", None).unwrap(), None);
    assert_eq!(store.selection("one", &key).unwrap(), None);
    let left = store.get("two", "guide", None).unwrap().unwrap();
    assert_eq!(left.text, "harbour mole");
    assert_eq!(store.selection("two", &key).unwrap().as_deref(), Some(&b"two's"[..]));
    assert_eq!(found(&store, "two", "harbour").len(), 1);
    let census = store.check().unwrap();
    assert_eq!((census.tenants, census.documents, census.vectors), (2, 1, 2));
}

#[test]
fn a_quota_is_a_tenants_own() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { tenant_documents: 2, tenant_bytes: 2000, ..small() };
    let store = Store::open(folder.path(), limits).unwrap();
    let long = Content { text: "x".repeat(1700), ..Content::default() };
    store.put("one", "a", &long).unwrap();
    let full = store.put("one", "b", &long);
    assert!(matches!(full, Err(StoreError::Quota { what: "bytes", limit: 2000 })), "{full:?}");
    store.put("two", "b", &long).unwrap();
    store.put("one", "b", &words("x", 4)).unwrap();
    let full = store.put("one", "c", &words("x", 4));
    assert!(matches!(full, Err(StoreError::Quota { what: "documents", limit: 2 })), "{full:?}");
    // Room that is given back can be taken again.
    store.delete("one", "a").unwrap();
    store.put("one", "c", &words("x", 4)).unwrap();
    store.check().unwrap();
}
