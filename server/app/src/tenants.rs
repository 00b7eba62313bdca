//! Who is calling: a static table of keys.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::config;

/// Everyone's tenant where none is configured.
pub const OPEN_TENANT: &str = "default";

/// Someone whose calls, caches and bounds are their own.
#[derive(Debug)]
pub struct Tenant {
    /// Name in logs, cache keys and errors.
    pub name: Arc<str>,
    /// Most calls at once.
    pub max_in_flight: usize,
    pub(crate) slots: Arc<Semaphore>,
}

/// Why a caller is not let in. The wire says no more than this either: which keys exist is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials.
    #[error("send `authorization: Bearer KEY`")]
    Missing,
    /// Not a key of any tenant.
    #[error("the key is not valid")]
    Wrong,
}

/// The table.
#[derive(Debug)]
pub struct Tenants {
    /// Set only if no tenant is configured.
    open: Option<Arc<Tenant>>,
    /// Digests of keys: what is compared has one length and tells nothing of the key.
    keys: Vec<([u8; 32], Arc<Tenant>)>,
}

impl Tenants {
    /// The table of `configured` tenants; each may have `max_in_flight` calls at once unless it says otherwise.
    #[must_use]
    pub fn new(configured: &[config::Tenant], max_in_flight: usize) -> Self {
        let tenant = |name: &str, max_in_flight: usize| {
            Arc::new(Tenant {
                name: name.into(),
                max_in_flight,
                slots: Arc::new(Semaphore::new(max_in_flight)),
            })
        };
        let entry = |each: &config::Tenant| {
            let digest = match (&each.key, &each.key_sha256) {
                (Some(key), _) => Some(Sha256::digest(key.expose()).into()),
                (None, hex) => hex.as_deref().and_then(parse_sha256),
            };
            Some((digest?, tenant(&each.name, each.max_in_flight.unwrap_or(max_in_flight))))
        };
        Self {
            open: configured.is_empty().then(|| tenant(OPEN_TENANT, max_in_flight)),
            keys: configured.iter().filter_map(entry).collect(),
        }
    }

    /// The tenant of an `authorization` header.
    ///
    /// # Errors
    /// [`AuthError`] unless the server is open or the key is a tenant's.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Arc<Tenant>, AuthError> {
        if let Some(open) = &self.open {
            return Ok(Arc::clone(open));
        }
        let header = authorization.ok_or(AuthError::Missing)?;
        let (scheme, key) = header.split_at_checked("bearer ".len()).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(AuthError::Missing);
        }
        let digest: [u8; 32] = Sha256::digest(key).into();
        // Every entry is compared, so that the time taken does not say where a match stands.
        let mut found = None;
        for (known, tenant) in &self.keys {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(tenant);
            }
        }
        found.cloned().ok_or(AuthError::Wrong)
    }
}

/// The digest that 64 hex digits spell.
pub(crate) fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // `from_str_radix` takes a sign.
    let back = digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    hex.eq_ignore_ascii_case(&back).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn tenant(name: &str, key: Option<&str>, key_sha256: Option<&str>) -> config::Tenant {
        config::Tenant {
            name: name.to_owned(),
            key: key.map(Secret::new),
            key_sha256: key_sha256.map(str::to_owned),
            max_in_flight: None,
        }
    }

    #[test]
    fn keys_and_digests_open_their_tenant_only() {
        // sha256 of "test", FIPS 180-2.
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let tenants = Tenants::new(
            &[tenant("a", Some("key of a"), None), tenant("b", None, Some(digest))],
            8,
        );
        let name = |header: &str| {
            tenants.authenticate(Some(header.as_bytes())).map(|tenant| tenant.name.to_string())
        };
        assert_eq!(name("Bearer key of a"), Ok("a".to_owned()));
        assert_eq!(name("bearer test"), Ok("b".to_owned()));
        for wrong in ["Bearer ", "Bearer key of ", "Bearer key of a ", &format!("Bearer {digest}")]
        {
            assert_eq!(name(wrong), Err(AuthError::Wrong), "{wrong}");
        }
        for missing in ["", "Bearer", "Basic a2V5", "key of a"] {
            assert_eq!(name(missing), Err(AuthError::Missing), "{missing}");
        }
        assert_eq!(tenants.authenticate(None).unwrap_err(), AuthError::Missing);
    }

    #[test]
    fn only_an_empty_table_is_open() {
        let open = Tenants::new(&[], 8);
        assert_eq!(&*open.authenticate(None).unwrap().name, OPEN_TENANT);
        assert_eq!(&*open.authenticate(Some(b"Bearer anything")).unwrap().name, OPEN_TENANT);
    }

    #[test]
    fn digests_are_hex_and_nothing_else() {
        assert!(parse_sha256(&"0F".repeat(32)).is_some());
        for wrong in ["", "0f", &"+f".repeat(32), &"0g".repeat(32), &"é".repeat(32)] {
            assert!(parse_sha256(wrong).is_none(), "{wrong}");
        }
    }
}
