//! Selections kept so that a conversation's next turn finds what the last one chose. They go with any content they
//! were made from, and the oldest when there are too many.

use redb::ReadableTable as _;

use super::change::Change;
use super::document::ContentHash;
use super::tables::{
    CONTENTS, SELECTION_AGES, SELECTION_CONTENTS, SELECTIONS, Selection, TENANTS, Tenant,
};
use super::{Store, StoreError};

/// Contents that one selection may be made from: as many as a request has documents.
const MAX_CONTENTS: usize = 256;

impl Store {
    /// Keeps `value` under `key` until one of the stored `contents` it was made from goes. False, and nothing is
    /// kept, if one of them is not stored (any more).
    ///
    /// # Errors
    /// [`StoreError`]; a value beyond [`Limits::selection_bytes`](super::Limits::selection_bytes) is invalid.
    pub fn put_selection(
        &self,
        tenant: &str,
        key: [u8; 32],
        value: &[u8],
        contents: &[ContentHash],
    ) -> Result<bool, StoreError> {
        let limits = self.limits();
        if value.len() as u64 > limits.selection_bytes {
            let message = format!("must have at most {} bytes", limits.selection_bytes);
            return Err(StoreError::invalid("value", message));
        }
        if contents.len() > MAX_CONTENTS {
            let message = format!("must be at most {MAX_CONTENTS}");
            return Err(StoreError::invalid("contents", message));
        }
        let mut contents = contents.to_vec();
        contents.sort_unstable();
        contents.dedup();
        let most = limits.selections;
        let work = |change: &mut Change<'_>| {
            let tenant = change.tenant.number;
            {
                let stored = change.write.open_table(CONTENTS)?;
                for content in &contents {
                    if stored.get((tenant, content))?.is_none() {
                        return Ok(None);
                    }
                }
            }
            remove(change, &key)?;
            while change.tenant.selections >= most.max(1) {
                let oldest = change
                    .write
                    .open_table(SELECTION_AGES)?
                    .range((tenant, 0)..=(tenant, u64::MAX))?
                    .next()
                    .transpose()?
                    .map(|(_, key)| *key.value());
                let Some(oldest) = oldest else { break };
                remove(change, &oldest)?;
            }
            let age = change.tenant.next_age;
            change.tenant.next_age += 1;
            change.tenant.selections += 1;
            let record = Selection { age, contents, value: value.to_vec() };
            let mut selections = change.write.open_table(SELECTIONS)?;
            selections.insert((tenant, &key), record.encode().as_slice())?;
            change.write.open_table(SELECTION_AGES)?.insert((tenant, age), &key)?;
            let mut by_content = change.write.open_table(SELECTION_CONTENTS)?;
            for content in &record.contents {
                by_content.insert((tenant, content, &key), ())?;
            }
            Ok(Some(()))
        };
        Ok(self.change(tenant, work)?.is_some())
    }

    /// What was last kept under `key`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn selection(&self, tenant: &str, key: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|read, _| {
            let Some(tenant) = Tenant::find(&read.open_table(TENANTS)?, tenant)? else {
                return Ok(None);
            };
            let selections = read.open_table(SELECTIONS)?;
            let Some(record) = selections.get((tenant.number, key))? else { return Ok(None) };
            Ok(Some(Selection::decode(record.value())?.value))
        })
    }
}

/// Removes the selection under `key`, if there is one.
fn remove(change: &mut Change<'_>, key: &[u8; 32]) -> Result<(), StoreError> {
    let tenant = change.tenant.number;
    let record = match change.write.open_table(SELECTIONS)?.remove((tenant, key))? {
        None => return Ok(()),
        Some(record) => Selection::decode(record.value())?,
    };
    change.tenant.selections -= 1;
    change.write.open_table(SELECTION_AGES)?.remove((tenant, record.age))?;
    let mut by_content = change.write.open_table(SELECTION_CONTENTS)?;
    for content in &record.contents {
        by_content.remove((tenant, content, key))?;
    }
    Ok(())
}

/// Removes every selection made from `content`.
pub(super) fn remove_of(change: &mut Change<'_>, content: &ContentHash) -> Result<(), StoreError> {
    let tenant = change.tenant.number;
    let mut keys: Vec<[u8; 32]> = Vec::new();
    let all = (tenant, content, &[0; 32])..=(tenant, content, &[u8::MAX; 32]);
    for entry in change.write.open_table(SELECTION_CONTENTS)?.range(all)? {
        keys.push(*entry?.0.value().2);
    }
    keys.iter().try_for_each(|key| remove(change, key))
}
