//! How many calls may be inside at once, over all and for each tenant.
//!
//! Calls beyond a bound are refused at once: a caller that is told to come back is better off than one that waits
//! in a queue nobody counts. What is inside waits in the engine's queue, which has bounds of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tenants::Tenant;

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server is going away.
    #[error("the server is draining")]
    Draining,
    /// Too many calls.
    #[error("the server has {limit} calls in progress, its limit")]
    ServerFull {
        /// The bound.
        limit: usize,
    },
    /// Too many calls of one tenant.
    #[error("tenant {tenant} has {limit} calls in progress, its limit")]
    TenantFull {
        /// Whose.
        tenant: Arc<str>,
        /// The bound.
        limit: usize,
    },
}

/// Leave to be inside; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _tenant: OwnedSemaphorePermit,
    _server: OwnedSemaphorePermit,
}

/// The doorkeeper.
#[derive(Debug)]
pub struct Admission {
    slots: Arc<Semaphore>,
    limit: usize,
    closed: AtomicBool,
}

impl Admission {
    /// Lets `limit` calls be inside at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(limit)), limit, closed: AtomicBool::new(false) }
    }

    /// Lets one call of `tenant` in, or says why not. Never waits.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, tenant: &Tenant) -> Result<Permit, Refusal> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Refusal::Draining);
        }
        // The tenant's own bound first: one who is over it must not take the last slot of the others.
        let full = |_| Refusal::TenantFull {
            tenant: Arc::clone(&tenant.name),
            limit: tenant.max_in_flight,
        };
        let of_tenant = Arc::clone(&tenant.slots).try_acquire_owned().map_err(full)?;
        let full = |_| Refusal::ServerFull { limit: self.limit };
        let of_server = Arc::clone(&self.slots).try_acquire_owned().map_err(full)?;
        Ok(Permit { _tenant: of_tenant, _server: of_server })
    }

    /// Calls inside.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limit - self.slots.available_permits()
    }

    /// Most calls inside.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Waits until nobody is inside. To be called after [`Self::close`].
    pub async fn empty(&self) {
        // Bounded by the configuration to 100,000.
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let _ = self.slots.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::tenants::Tenants;

    fn tenant(limit: usize) -> Arc<Tenant> {
        Tenants::new(&[] as &[config::Tenant], limit).authenticate(None).unwrap()
    }

    #[test]
    fn each_bound_refuses_by_its_own_name() {
        let admission = Admission::new(3);
        let (small, large) = (tenant(1), tenant(10));
        let first = admission.admit(&small).unwrap();
        assert!(matches!(admission.admit(&small), Err(Refusal::TenantFull { limit: 1, .. })));
        let _others = (admission.admit(&large).unwrap(), admission.admit(&large).unwrap());
        assert_eq!(admission.admit(&large).unwrap_err(), Refusal::ServerFull { limit: 3 });
        drop(first);
        // The refusal above must not have kept a slot of its tenant.
        assert_eq!(large.slots.available_permits(), 8);
        assert!(admission.admit(&small).is_ok());
        assert_eq!(admission.in_flight(), 2);
    }

    #[tokio::test]
    async fn a_closed_door_empties() {
        let admission = Arc::new(Admission::new(2));
        let permit = admission.admit(&tenant(2)).unwrap();
        admission.close();
        assert_eq!(admission.admit(&tenant(2)).unwrap_err(), Refusal::Draining);
        let empty = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(permit);
        empty.await.unwrap();
    }
}
