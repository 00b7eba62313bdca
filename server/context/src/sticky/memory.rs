//! Where what was sent is kept between turns.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::key::SelectionKey;

/// What a remembered turn takes beside its value, bytes, roughly: key, maps and their slack.
const OVERHEAD_BYTES: usize = 160;

/// Remembers what turns of conversations sent. Forgetting is allowed at any time: a conversation whose turns are
/// forgotten is answered with a new choice.
pub trait Selections: Send + Sync + std::fmt::Debug {
    /// What was put under `key`, unless it is forgotten.
    fn get(&self, key: &SelectionKey) -> Option<Vec<u8>>;

    /// Remembers `value` under `key`, in place of what was there.
    fn put(&self, key: &SelectionKey, value: Vec<u8>);

    /// Forgets everything of `tenant`.
    fn forget(&self, tenant: &str);
}

/// Keeps the most recently used turns in memory, bounded in bytes and number. Room is taken from the tenant that holds
/// most bytes, so that nobody makes the server forget a tenant who holds less.
#[derive(Debug)]
pub struct RecentSelections {
    max_bytes: usize,
    max_count: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    tenants: HashMap<Arc<str>, Share>,
    bytes: usize,
    count: usize,
    /// Rises with every use.
    clock: u64,
}

/// What one tenant holds.
#[derive(Debug, Default)]
struct Share {
    values: HashMap<[u8; 32], (u64, Vec<u8>)>,
    /// Digests by their last use.
    uses: BTreeMap<u64, [u8; 32]>,
    bytes: usize,
}

impl RecentSelections {
    /// Holds at most `max_bytes` and `max_count` turns.
    #[must_use]
    pub fn new(max_bytes: usize, max_count: usize) -> Self {
        Self { max_bytes, max_count, held: Mutex::default() }
    }
}

impl Selections for RecentSelections {
    fn get(&self, key: &SelectionKey) -> Option<Vec<u8>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clock += 1;
        let now = held.clock;
        let share = held.tenants.get_mut(&key.tenant)?;
        let (used, value) = share.values.get_mut(&key.digest)?;
        share.uses.remove(used);
        *used = now;
        share.uses.insert(now, key.digest);
        Some(value.clone())
    }

    fn put(&self, key: &SelectionKey, value: Vec<u8>) {
        let size = value.len() + OVERHEAD_BYTES;
        if size > self.max_bytes {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&key.tenant, &key.digest);
        held.clock += 1;
        let now = held.clock;
        let share = held.tenants.entry(Arc::clone(&key.tenant)).or_default();
        share.values.insert(key.digest, (now, value));
        share.uses.insert(now, key.digest);
        share.bytes += size;
        held.bytes += size;
        held.count += 1;
        while held.bytes > self.max_bytes || held.count > self.max_count {
            held.forget_one();
        }
    }

    fn forget(&self, tenant: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = held.tenants.remove(tenant) {
            held.bytes -= share.bytes;
            held.count -= share.values.len();
        }
    }
}

impl Held {
    /// Forgets what the tenant who holds most has not used for longest.
    fn forget_one(&mut self) {
        let most = self.tenants.iter().max_by_key(|(_, share)| share.bytes);
        let Some((tenant, share)) = most else { return };
        let Some(&digest) = share.uses.values().next() else { return };
        let tenant = Arc::clone(tenant);
        self.remove(&tenant, &digest);
    }

    fn remove(&mut self, tenant: &Arc<str>, digest: &[u8; 32]) {
        let Some(share) = self.tenants.get_mut(tenant) else { return };
        let Some((used, value)) = share.values.remove(digest) else { return };
        share.uses.remove(&used);
        let size = value.len() + OVERHEAD_BYTES;
        share.bytes -= size;
        self.bytes -= size;
        self.count -= 1;
        if share.values.is_empty() {
            self.tenants.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, number: u8) -> SelectionKey {
        SelectionKey { tenant: tenant.into(), digest: [number; 32] }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let memory = RecentSelections::new(usize::MAX, 2);
        memory.put(&key("a", 1), vec![1]);
        memory.put(&key("a", 2), vec![2]);
        assert_eq!(memory.get(&key("a", 1)), Some(vec![1]));
        memory.put(&key("a", 3), vec![3]);
        assert_eq!(memory.get(&key("a", 2)), None);
        assert_eq!(memory.get(&key("a", 1)), Some(vec![1]));
        assert_eq!(memory.get(&key("a", 3)), Some(vec![3]));
        assert_eq!(memory.get(&key("b", 3)), None, "another tenant's");
    }

    #[test]
    fn bytes_are_bounded_and_a_greedy_tenant_pays() {
        let max_bytes = 10 * (OVERHEAD_BYTES + 100);
        let memory = RecentSelections::new(max_bytes, usize::MAX);
        memory.put(&key("small", 0), vec![0; 100]);
        for number in 0..100 {
            memory.put(&key("greedy", number), vec![number; 100]);
            assert!(memory.held.lock().unwrap().bytes <= max_bytes);
        }
        assert!(memory.get(&key("small", 0)).is_some());
        assert!(memory.get(&key("greedy", 99)).is_some());
        assert!(memory.get(&key("greedy", 0)).is_none());
        memory.put(&key("greedy", 1), vec![0; max_bytes]);
        assert!(memory.get(&key("greedy", 1)).is_none(), "larger than everything");
        // What is replaced is not counted twice.
        for _ in 0..100 {
            memory.put(&key("small", 0), vec![1; 100]);
        }
        let held = memory.held.lock().unwrap();
        let shares = held.tenants.values();
        let (bytes, count) =
            shares.fold((0, 0), |(b, c), share| (b + share.bytes, c + share.values.len()));
        assert_eq!((bytes, count), (held.bytes, held.count));
        assert_eq!(held.count, 10);
    }
}
