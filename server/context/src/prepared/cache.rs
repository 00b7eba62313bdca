//! What was prepared lately, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Prepared, PreparedKey};

/// Prepared documents, as many as a number of bytes allows; those not asked for longest go first.
#[derive(Debug)]
pub struct PreparedCache {
    most_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<PreparedKey, Entry>,
    bytes: usize,
    /// Counts uses: the latest has the highest number.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    prepared: Arc<Prepared>,
    bytes: usize,
    used: u64,
}

impl PreparedCache {
    /// Keeps up to `most_bytes`; 0 keeps nothing.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, kept: Mutex::default() }
    }

    /// What is kept under `key`.
    #[must_use]
    pub fn get(&self, key: &PreparedKey) -> Option<Arc<Prepared>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let entry = kept.entries.get_mut(key)?;
        entry.used = now;
        Some(Arc::clone(&entry.prepared))
    }

    /// Keeps `prepared` under `key`, unless it alone is more than may be kept.
    pub fn put(&self, key: PreparedKey, prepared: Arc<Prepared>) {
        let bytes = prepared.size();
        if bytes > self.most_bytes {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let entry = Entry { prepared, bytes, used: kept.clock };
        if let Some(before) = kept.entries.insert(key, entry) {
            kept.bytes -= before.bytes;
        }
        kept.bytes += bytes;
        kept.make_room(self.most_bytes);
    }

    /// Keeps `prepared` in the place of what is kept under `key`, as if it had not been asked for; says whether there was
    /// any. What was forgotten meanwhile stays forgotten.
    pub fn replace(&self, key: &PreparedKey, prepared: Arc<Prepared>) -> bool {
        let bytes = prepared.size();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = kept.entries.get_mut(key) else { return false };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        entry.prepared = prepared;
        kept.bytes = kept.bytes - before + bytes;
        kept.make_room(self.most_bytes);
        true
    }

    /// Forgets every document of `tenant`.
    pub fn forget(&self, tenant: &str) {
        let tenant = PreparedKey::tenant(tenant);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<PreparedKey> =
            kept.entries.keys().filter(|key| key.tenant == tenant).copied().collect();
        gone.iter().for_each(|key| kept.remove(key));
    }
}

impl Kept {
    /// Drops what was not asked for longest until the rest fits.
    fn make_room(&mut self, most_bytes: usize) {
        while self.bytes > most_bytes {
            // Few are kept, each costs much to make: looking at all of them is nothing beside that.
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &PreparedKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}
