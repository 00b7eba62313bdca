//! Versions, lists, uploads, deletions.

use super::*;

#[test]
fn versions_are_numbered_immutable_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for n in 1..=5 {
        let mut content = words(&format!("harbour mole{n}"), 8);
        content.title = Some(format!("Title {n}"));
        content.metadata.insert("n".to_owned(), n.to_string());
        content.prepared = vec![n; 3];
        let put = store.put("one", "guide", &content).unwrap();
        assert_eq!((put.version.version, put.created), (u64::from(n), true));
        // Three are kept.
        assert_eq!(put.purged.len(), usize::from(n > 3));
    }
    for gone in [1, 2, 6] {
        assert_eq!(store.get("one", "guide", Some(gone)).unwrap(), None);
    }
    for n in 3..=5_u8 {
        let stored = store.get("one", "guide", Some(n.into())).unwrap().unwrap();
        assert_eq!(stored.text, format!("harbour mole{n}"));
        assert_eq!(stored.prepared, vec![n; 3]);
        assert_eq!(stored.version.title, Some(format!("Title {n}")));
        assert_eq!(stored.version.metadata["n"], n.to_string());
        assert_eq!((stored.version.version, stored.version.chunks), (n.into(), 2));
    }
    assert_eq!(store.get("one", "guide", None).unwrap().unwrap().version.version, 5);
    // Searches see the latest alone.
    assert_eq!(found(&store, "one", "harbour").len(), 1);
    assert!(found(&store, "one", "mole4").is_empty());
    let census = store.check().unwrap();
    assert_eq!((census.documents, census.versions, census.vectors), (1, 3, 2));
}

#[test]
fn the_same_content_makes_no_version_and_may_be_prepared_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut content = words("harbour mole", 8);
    let first = store.put("one", "guide", &content).unwrap();
    let again = store.put("one", "guide", &content).unwrap();
    assert_eq!((again.created, &again.version), (false, &first.version));
    // Another embedder: the version stays, its vectors change.
    content.embedder = Some("other".to_owned());
    content.chunks.iter_mut().for_each(|chunk| chunk.vector = Some(vector("x", 4)));
    let other = store.put("one", "guide", &content).unwrap();
    assert_eq!((other.created, other.version.version), (false, 1));
    assert_eq!(other.version.embedder.as_deref(), Some("other"));
    assert_eq!(store.check().unwrap().vectors, 2);
    // Back to what was before makes a version of its own.
    store.put("one", "guide", &words("lighthouse", 8)).unwrap();
    assert_eq!(store.put("one", "guide", &words("harbour mole", 8)).unwrap().version.version, 3);
    store.check().unwrap();
}

#[test]
fn lists_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for id in ["b/1", "a/2", "a/1", "a/3", "c"] {
        store.put("one", id, &words("x", 4)).unwrap();
        store.put("one", id, &words("x y", 4)).unwrap();
    }
    let ids = |page: &Page| -> Vec<_> { page.documents.iter().map(|v| v.id.clone()).collect() };
    let first = store.list("one", "", None, 2).unwrap();
    assert_eq!(ids(&first), ["a/1", "a/2"]);
    assert!(first.documents.iter().all(|document| document.version == 2));
    let second = store.list("one", "", first.next.as_deref(), 2).unwrap();
    assert_eq!(ids(&second), ["a/3", "b/1"]);
    let last = store.list("one", "", second.next.as_deref(), 2).unwrap();
    assert_eq!((ids(&last), last.next), (vec!["c".to_owned()], None));
    let only = store.list("one", "a/", None, 3).unwrap();
    assert_eq!((ids(&only).len(), only.next), (3, None));
    assert_eq!(store.list("nobody", "", None, 10).unwrap(), Page::default());
}

#[test]
fn what_is_deleted_is_in_no_file_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut secret = words("thesecretword unmistakably", 8);
    secret.title = Some("asecrettitle".to_owned());
    secret.metadata.insert("asecretkey".to_owned(), "v".to_owned());
    secret.prepared = b"somesecretnotes".to_vec();
    // A vector whose codes can be told from others.
    secret.chunks[0].vector = Some(vec![1.0, -0.9, 0.8, -0.7, 0.6, -0.5, 0.4, -0.3]);
    let codes: Vec<u8> = [127_i8, -114, 102, -89, 76, -64, 51, -38].map(|c| c as u8).to_vec();
    store.put("one", "before", &words("harbour mole", 8)).unwrap();
    let put = store.put("one", "guide", &secret).unwrap();
    store.put("one", "after", &words("salt wool", 8)).unwrap();
    let needles: [&[u8]; 5] =
        [b"thesecretword", b"asecrettitle", b"asecretkey", b"somesecretnotes", &codes];
    let holds = |needle: &[u8]| {
        everything(folder.path())
            .iter()
            .any(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle))
    };
    assert!(needles.iter().all(|needle| holds(needle)));
    assert_eq!(store.delete("one", "guide").unwrap(), Some(vec![put.version.content]));
    assert!(!needles.iter().any(|needle| holds(needle)));
    assert_eq!(store.delete("one", "guide").unwrap(), None);
    assert_eq!(store.get("one", "guide", None).unwrap(), None);
    assert_eq!(found(&store, "one", "thesecretword"), []);
    assert_eq!(found(&store, "one", "mole"), [("before".to_owned(), "mole".to_owned())]);
    let census = store.check().unwrap();
    assert_eq!((census.documents, census.vectors), (2, 4));
}

#[test]
fn uploads_are_bounded_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { document_bytes: 10, ..small() };
    let store = Store::open(folder.path(), limits.clone()).unwrap();
    let uploads = || std::fs::read_dir(folder.path().join("uploads")).unwrap().count();
    let mut upload = store.begin("one", "guide").unwrap();
    upload.push(b"hello ").unwrap();
    upload.push(b"you").unwrap();
    assert_eq!(
        (upload.bytes().unwrap().as_slice(), upload.len(), uploads()),
        (b"hello you".as_slice(), 9, 1)
    );
    assert_eq!(store.get("one", "guide", None).unwrap(), None);
    assert!(matches!(upload.push(b"12"), Err(StoreError::TooLarge { limit: 10 })));
    drop(upload);
    assert_eq!(uploads(), 0);

    let mut upload = store.begin("one", "guide").unwrap();
    upload.push(b"hello you").unwrap();
    let content = words(std::str::from_utf8(&upload.bytes().unwrap()).unwrap(), 8);
    assert_eq!(upload.commit(&content).unwrap().version.version, 1);
    assert_eq!(uploads(), 0);

    // What a crash leaves is gone after the next start.
    drop(store);
    std::fs::write(folder.path().join("uploads/7"), "half").unwrap();
    let store = Store::open(folder.path(), limits).unwrap();
    assert_eq!(uploads(), 0);
    store.check().unwrap();
}

#[test]
fn contradictions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let field = |content: &Content| match store.put("one", "guide", content) {
        Err(StoreError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let good = words("añb c", 4);
    let with = |edit: &dyn Fn(&mut Content)| {
        let mut content = good.clone();
        edit(&mut content);
        content
    };
    assert_eq!(field(&with(&|c| c.chunks[0].span = 0..2)), "chunks");
    assert_eq!(field(&with(&|c| c.chunks[0].span = 0..99)), "chunks");
    assert_eq!(field(&with(&|c| c.chunks[0].span = 1..1)), "chunks");
    assert_eq!(field(&with(&|c| c.chunks[0].vector = Some(vec![0.5; 5]))), "chunks");
    assert_eq!(field(&with(&|c| c.chunks[0].vector = Some(vec![f32::NAN; 4]))), "chunks");
    assert_eq!(field(&with(&|c| c.chunks[0].vector = Some(vec![]))), "chunks");
    assert_eq!(field(&with(&|c| c.embedder = None)), "embedder");
    for id in [String::new(), "x".repeat(129)] {
        assert!(matches!(
            store.put("one", &id, &good),
            Err(StoreError::Invalid { field: "id", .. })
        ));
    }
    assert_eq!(store.check().unwrap(), Census::default());
    // A document without a single chunk is stored and never found.
    store.put("one", "empty", &Content::default()).unwrap();
    store.put("one", "other", &good).unwrap();
    assert_eq!(found(&store, "one", "c").len(), 1);
    store.delete("one", "empty").unwrap();
    store.check().unwrap();
}
