//! Token counts of stored texts, so that a text is counted once for a model and not once for a process.

use redb::ReadableTable as _;

use super::change::Change;
use super::document::ContentHash;
use super::tables::{CONTENTS, COUNTS, TENANTS, Tenant};
use super::{Store, StoreError};

/// Names what tokens were counted with.
pub type ModelHash = [u8; 32];

/// Most models that a content is counted for; with one more, all are forgotten.
const MAX_MODELS: usize = 4;

impl Store {
    /// What was last kept by [`put_counts`](Self::put_counts).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counts(
        &self,
        tenant: &str,
        content: &ContentHash,
        model: &ModelHash,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|read, _| {
            let Some(tenant) = Tenant::find(&read.open_table(TENANTS)?, tenant)? else {
                return Ok(None);
            };
            let counts = read.open_table(COUNTS)?;
            Ok(counts.get((tenant.number, content, model))?.map(|counts| counts.value().to_vec()))
        })
    }

    /// Keeps the `counts` of a stored content's text by a model until the content goes. They are not interpreted here.
    /// False, and nothing is kept, if it is not stored (any more).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_counts(
        &self,
        tenant: &str,
        content: &ContentHash,
        model: &ModelHash,
        counts: &[u8],
    ) -> Result<bool, StoreError> {
        let limits = self.limits();
        let work = |change: &mut Change<'_>| {
            let tenant = change.tenant.number;
            if change.write.open_table(CONTENTS)?.get((tenant, content))?.is_none() {
                return Ok(None);
            }
            let others: Vec<ModelHash> =
                of(change, content)?.into_iter().map(|(other, _)| other).collect();
            if others.len() >= MAX_MODELS && !others.contains(model) {
                remove_of(change, content)?;
            }
            change.spend(counts.len() as u64, limits)?;
            let mut table = change.write.open_table(COUNTS)?;
            if let Some(before) = table.insert((tenant, content, model), counts)? {
                change.tenant.bytes -= before.value().len() as u64;
            }
            Ok(Some(()))
        };
        Ok(self.change(tenant, work)?.is_some())
    }
}

/// Models that `content` is counted for, and the bytes of each.
fn of(change: &Change<'_>, content: &ContentHash) -> Result<Vec<(ModelHash, u64)>, StoreError> {
    let tenant = change.tenant.number;
    let all = (tenant, content, &[0; 32])..=(tenant, content, &[u8::MAX; 32]);
    let mut found = Vec::new();
    for entry in change.write.open_table(COUNTS)?.range(all)? {
        let (key, counts) = entry?;
        found.push((*key.value().2, counts.value().len() as u64));
    }
    Ok(found)
}

/// Removes every count of `content`.
pub(super) fn remove_of(change: &mut Change<'_>, content: &ContentHash) -> Result<(), StoreError> {
    for (model, bytes) in of(change, content)? {
        change.write.open_table(COUNTS)?.remove((change.tenant.number, content, &model))?;
        change.tenant.bytes -= bytes;
    }
    Ok(())
}
