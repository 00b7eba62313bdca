//! A disk that fills up at any moment.

use std::sync::atomic::Ordering;

use super::*;

#[test]
fn a_full_disk_stores_nothing_half() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path());
    let room = Arc::clone(&disk.room);
    let store = Store::open_on(disk, small()).unwrap();
    let put = store.put("one", "guide", &page("harbour lighthouse mole salt wool tin", 8)).unwrap();
    assert!(store.put_counts("one", &put.version.content, &[1; 32], b"counts").unwrap());
    let kept = store.put_selection("one", [1; 32], b"kept", &[]).unwrap();
    assert!(kept);
    let before = store.check().unwrap();
    let (mut full, mut done) = (0, false);
    for bytes in (0..).step_by(997) {
        room.store(bytes, Ordering::SeqCst);
        let put = store.put("one", "more", &page("tin quay rope anchor salt", 8));
        room.store(u64::MAX, Ordering::SeqCst);
        match put {
            Ok(put) => {
                assert!(put.created);
                done = true;
                break;
            }
            Err(StoreError::Full { .. }) => full += 1,
            Err(other) => panic!("{bytes}: {other:?}"),
        }
        assert_eq!(store.check().unwrap(), before, "{bytes}");
        assert_eq!(store.get("one", "more", None).unwrap(), None);
        assert_eq!(found(&store, "one", "tin").len(), 1);
    }
    assert!(done && full > 5, "{full}");
    // Likewise for deletions and uploads.
    let before = store.check().unwrap();
    full = 0;
    for bytes in (0..).step_by(997) {
        room.store(bytes, Ordering::SeqCst);
        let deleted = store.delete("one", "guide");
        room.store(u64::MAX, Ordering::SeqCst);
        match deleted {
            Ok(deleted) => {
                assert!(deleted.is_some());
                break;
            }
            Err(StoreError::Full { .. }) => full += 1,
            Err(other) => panic!("{bytes}: {other:?}"),
        }
        assert_eq!(store.check().unwrap(), before, "{bytes}");
        assert!(store.get("one", "guide", None).unwrap().is_some());
    }
    assert!(full > 3, "{full}");
    let mut upload = store.begin("one", "up").unwrap();
    room.store(3, Ordering::SeqCst);
    assert!(matches!(upload.push(b"four"), Err(StoreError::Full { .. })));
    room.store(u64::MAX, Ordering::SeqCst);
    drop(upload);
    drop(store);
    let census = open(folder.path()).check().unwrap();
    assert_eq!((census.documents, census.selections), (1, 1));
}
