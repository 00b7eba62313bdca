//! What a crash leaves is taken back; what nobody wrote is an error that names the file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use redb::ReadableTable as _;

use super::*;

fn file(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut files: Vec<_> = everything(&folder.join(name)).into_iter().map(|f| f.0).collect();
    files.sort();
    files.swap_remove(0)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put("one", "guide", &words("harbour lighthouse mole", 8)).unwrap();
    store.check().unwrap();
    folder
}

#[test]
fn a_torn_tail_is_cut() {
    let folder = filled();
    let segment = file(folder.path(), "vectors");
    let before = fs::read(&segment).unwrap();
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(b"half a record").unwrap();
    let store = open(folder.path());
    assert_eq!(fs::read(&segment).unwrap(), before);
    store.check().unwrap();
    store.put("one", "more", &words("salt", 8)).unwrap();
    store.check().unwrap();
}

#[test]
fn files_nobody_knows_go() {
    let folder = filled();
    for name in ["vectors/1-99.i8", "documents/1/99", "uploads/3"] {
        fs::write(folder.path().join(name), "left over").unwrap();
    }
    let store = open(folder.path());
    store.check().unwrap();
    for name in ["vectors/1-99.i8", "documents/1/99", "uploads/3"] {
        assert!(!folder.path().join(name).exists(), "{name}");
        // The check sees what opening would take back.
        fs::write(folder.path().join(name), "left over").unwrap();
        let wrong = store.check();
        assert!(
            matches!(&wrong, Err(StoreError::Corrupt { file, .. }) if file == Path::new(name)),
            "{wrong:?}"
        );
        fs::remove_file(folder.path().join(name)).unwrap();
    }
}

#[test]
fn a_database_that_was_never_finished_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lock"), "").unwrap();
    fs::write(folder.path().join("store.redb.new"), "half a header").unwrap();
    let store = open(folder.path());
    store.put("one", "guide", &words("harbour", 8)).unwrap();
    store.check().unwrap();
    assert!(!folder.path().join("store.redb.new").exists());
}

#[test]
fn a_flipped_byte_of_a_vector_is_named() {
    let folder = filled();
    let segment = file(folder.path(), "vectors");
    for at in [0, 9, 16, 30, 45] {
        flip(&segment, at);
        let wrong = Store::open(folder.path(), small()).map(|_| ());
        let Err(StoreError::Corrupt { file, .. }) = wrong else { panic!("{at}: {wrong:?}") };
        assert_eq!(folder.path().join(file), segment);
        flip(&segment, at);
    }
    open(folder.path()).check().unwrap();
    fs::remove_file(&segment).unwrap();
    let wrong = Store::open(folder.path(), small());
    assert!(matches!(wrong, Err(StoreError::Corrupt { .. })), "{wrong:?}");
}

#[test]
fn a_flipped_byte_of_a_text_is_named() {
    let folder = filled();
    let text = file(folder.path(), "documents");
    let store = open(folder.path());
    for at in [0, 8, 20, 60] {
        flip(&text, at);
        for wrong in [store.get("one", "guide", None).map(|_| ()), store.check().map(|_| ())] {
            let Err(StoreError::Corrupt { file, .. }) = wrong else { panic!("{at}: {wrong:?}") };
            assert_eq!(folder.path().join(file), text);
        }
        flip(&text, at);
    }
    assert!(store.get("one", "guide", None).unwrap().is_some());
    fs::remove_file(&text).unwrap();
    let wrong = store.get("one", "guide", None);
    assert!(matches!(wrong, Err(StoreError::Corrupt { .. })), "{wrong:?}");
}

#[test]
fn another_schema_is_left_as_it_is() {
    let folder = filled();
    let path = folder.path().join("store.redb");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(tables::META).unwrap().insert("schema", 3).unwrap();
    write.commit().unwrap();
    drop(database);
    fs::write(folder.path().join("documents/1/99"), "of another release").unwrap();
    let before = everything(folder.path());
    let wrong = Store::open(folder.path(), small());
    assert!(matches!(wrong, Err(StoreError::Schema { found: 3, expected: 2 })), "{wrong:?}");
    let after = everything(folder.path());
    let but_database = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        let mut files: Vec<_> = files.iter().filter(|file| file.0 != path).cloned().collect();
        files.sort();
        files
    };
    assert_eq!(but_database(&before), but_database(&after));
    let database = redb::Database::create(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(read.open_table(tables::META).unwrap().get("schema").unwrap().unwrap().value(), 3);
}

#[test]
fn a_store_of_the_schema_before_is_read_and_becomes_one_of_this() {
    let folder = filled();
    let path = folder.path().join("store.redb");
    let schema = |work: &dyn Fn(&redb::WriteTransaction)| {
        let write = redb::Database::create(&path).unwrap();
        let write = write.begin_write().unwrap();
        work(&write);
        write.commit().unwrap();
    };
    // What schema 1 had: no table of token counts; no record of it names an original.
    schema(&|write| {
        write.open_table(tables::META).unwrap().insert("schema", 1).unwrap();
        assert!(write.delete_table(tables::COUNTS).unwrap());
    });
    let store = open(folder.path());
    store.check().unwrap();
    let stored = store.get("one", "guide", None).unwrap().unwrap();
    assert_eq!((stored.text.as_str(), stored.way), ("harbour lighthouse mole", None));
    assert!(store.put_counts("one", &stored.version.content, &[1; 32], b"counts").unwrap());
    assert!(!store.put("one", "guide", &words("harbour lighthouse mole", 8)).unwrap().created);
    drop(store);
    schema(&|write| {
        let meta = write.open_table(tables::META).unwrap();
        assert_eq!(meta.get("schema").unwrap().unwrap().value(), 2);
    });
}

#[test]
fn a_folder_is_opened_once_and_must_be_a_stores() {
    let folder = filled();
    let store = open(folder.path());
    let second = Store::open(folder.path(), small());
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    let upload = store.begin("one", "x").unwrap();
    drop(store);
    // An upload holds it too.
    assert!(matches!(Store::open(folder.path(), small()), Err(StoreError::InUse { .. })));
    drop(upload);
    drop(open(folder.path()));

    // Somebody's own documents are not taken for left-overs.
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("documents/1")).unwrap();
    fs::write(home.path().join("documents/1/2"), "a letter").unwrap();
    let wrong = Store::open(home.path(), small());
    assert!(matches!(wrong, Err(StoreError::Invalid { field: "folder", .. })), "{wrong:?}");
    assert!(home.path().join("documents/1/2").exists());
}
