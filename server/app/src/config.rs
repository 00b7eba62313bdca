//! Settings: the commented default, then a file, then the environment, then flags.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod device;
mod gpu;
mod layers;
#[cfg(test)]
mod tests;

pub use device::{DeviceChoice, OwnDevice, UnknownDevice};
pub use gpu::{Gpu, GpuKvType};

/// Every setting with its default, unit and range, as people read it.
pub const DEFAULT: &str = include_str!("../config/pith.toml");

/// What the server is told to do. `config/pith.toml` says what each setting means.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml, section by section")]
pub struct Config {
    pub listen: Listen,
    pub model: Model,
    pub context: Context,
    pub engine: Engine,
    pub cpu: Cpu,
    pub gpu: Gpu,
    pub limits: Limits,
    pub store: Store,
    pub drain: Drain,
    pub log: Log,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<Tenant>,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Listen {
    pub grpc: SocketAddr,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Model {
    pub name: String,
}

/// `[context]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Context {
    pub embedder: String,
    pub embedder_device: OwnDevice,
    pub embed_kib: usize,
}

/// `context.embed_kib` as the context stage takes it.
pub(crate) fn embed_bytes(embed_kib: usize) -> Option<usize> {
    Some(embed_kib << 10).filter(|bytes| *bytes > 0)
}

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Engine {
    pub device: DeviceChoice,
    pub max_waiting: usize,
    pub max_running: usize,
    pub max_step_tokens: usize,
    pub step_stretch: f64,
    pub prefix_cache: bool,
    pub speculation: Speculation,
    pub max_draft_tokens: usize,
}

/// `engine.speculation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub enum Speculation {
    Auto,
    Off,
}

impl Speculation {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

impl From<Speculation> for pith_engine::Speculate {
    fn from(setting: Speculation) -> Self {
        match setting {
            Speculation::Auto => Self::Auto,
            Speculation::Off => Self::Off,
        }
    }
}

/// `[cpu]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Cpu {
    pub threads: usize,
    pub pin: bool,
    pub isa: String,
    pub kv_mib: usize,
    pub kv_type: KvType,
    pub block_size: usize,
    pub max_context: usize,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Limits {
    pub max_message_mib: usize,
    pub max_connections: usize,
    pub max_streams: u32,
    pub max_in_flight: usize,
    pub max_request_seconds: u64,
    pub prepare_threads: usize,
    pub keepalive_seconds: u64,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Store {
    pub dir: String,
    pub max_document_mib: usize,
    pub max_versions: u64,
    pub max_documents: u64,
    pub max_tenant_mib: u64,
}

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Drain {
    pub grace_seconds: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub enum LogFormat {
    Text,
    Json,
}

/// `cpu.kv_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Half precision
    F16,
    /// Eight bits, with a scale for each token and head
    Int8,
}

impl KvType {
    /// As settings have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        pith_kernels::KvType::from(self).name()
    }
}

impl From<KvType> for pith_kernels::KvType {
    fn from(kind: KvType) -> Self {
        match kind {
            KvType::F16 => Self::F16,
            KvType::Int8 => Self::Int8,
        }
    }
}

/// `[[tenants]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Tenant {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<usize>,
}

/// Text that is never shown: printed and serialised as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A layer is not what the settings are made of.
    #[error("{origin}: {message}")]
    Syntax {
        /// A file's path, a variable's name or `flags`.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// A setting is out of range.
    #[error("{setting} {message}")]
    Invalid {
        /// Dotted path.
        setting: String,
        /// What it must be, to be read after the path.
        message: String,
    },
}

impl Config {
    /// The default with `file`, then `environment` (a lookup by name), then `flags` laid over it; checked.
    ///
    /// # Errors
    /// [`ConfigError`] names the layer or setting at fault.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: toml::Table,
    ) -> Result<Self, ConfigError> {
        let config = layers::merge(file, environment, flags)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let within = |setting: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(invalid(setting, format!("is {value}; it must be {low} to {high}")))
        };
        let Limits { max_in_flight, .. } = self.limits;
        within("context.embed_kib", self.context.embed_kib as u64, 0, 1 << 20)?;
        within("engine.max_waiting", self.engine.max_waiting as u64, 1, 100_000)?;
        within("engine.max_running", self.engine.max_running as u64, 1, 4096)?;
        within("engine.max_step_tokens", self.engine.max_step_tokens as u64, 0, 65_536)?;
        if !(1.1..=100.0).contains(&self.engine.step_stretch) {
            let message = format!("is {}; it must be 1.1 to 100", self.engine.step_stretch);
            return Err(invalid("engine.step_stretch", message));
        }
        within("engine.max_draft_tokens", self.engine.max_draft_tokens as u64, 1, 32)?;
        within("cpu.threads", self.cpu.threads as u64, 0, 1024)?;
        within("cpu.kv_mib", self.cpu.kv_mib as u64, 0, 1 << 24)?;
        within("cpu.block_size", self.cpu.block_size as u64, 1, 1024)?;
        within("cpu.max_context", self.cpu.max_context as u64, 0, 1 << 24)?;
        self.gpu.check(within)?;
        within("limits.max_message_mib", self.limits.max_message_mib as u64, 1, 1024)?;
        within("limits.max_connections", self.limits.max_connections as u64, 1, 100_000)?;
        within("limits.max_streams", u64::from(self.limits.max_streams), 1, 10_000)?;
        within("limits.max_in_flight", max_in_flight as u64, 1, 100_000)?;
        within("limits.max_request_seconds", self.limits.max_request_seconds, 1, 86_400)?;
        within("limits.prepare_threads", self.limits.prepare_threads as u64, 0, 1024)?;
        within("limits.keepalive_seconds", self.limits.keepalive_seconds, 1, 3600)?;
        within("store.max_document_mib", self.store.max_document_mib as u64, 1, 1024)?;
        within("store.max_versions", self.store.max_versions, 1, 1000)?;
        within("store.max_documents", self.store.max_documents, 1, 1_000_000_000)?;
        within("store.max_tenant_mib", self.store.max_tenant_mib, 1, 1 << 30)?;
        within("drain.grace_seconds", self.drain.grace_seconds, 0, 3600)?;
        if self.model.name.is_empty() {
            return Err(invalid("model.name", "must not be empty"));
        }
        for (index, tenant) in self.tenants.iter().enumerate() {
            let setting = |field: &str| format!("tenants[{index}].{field}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !(1..=64).contains(&tenant.name.len()) || !tenant.name.chars().all(plain) {
                return Err(invalid(setting("name"), "must be 1 to 64 of a-z A-Z 0-9 . _ -"));
            }
            if self.tenants[..index].iter().any(|other| other.name == tenant.name) {
                return Err(invalid(setting("name"), format!("{:?} is taken", tenant.name)));
            }
            within(
                &setting("max_in_flight"),
                tenant.max_in_flight.unwrap_or(1) as u64,
                1,
                100_000,
            )?;
            match (&tenant.key, &tenant.key_sha256) {
                (Some(key), None) if key.expose().len() >= 8 => {}
                (Some(_), None) => {
                    return Err(invalid(setting("key"), "must have at least 8 bytes"));
                }
                (None, Some(hex)) if crate::tenants::parse_sha256(hex).is_some() => {}
                (None, Some(_)) => {
                    return Err(invalid(setting("key_sha256"), "must be 64 hex digits"));
                }
                _ => return Err(invalid(setting("key"), "is needed: key or key_sha256, not both")),
            }
        }
        Ok(())
    }

    /// Longest life of a call.
    #[must_use]
    pub fn max_request(&self) -> Duration {
        Duration::from_secs(self.limits.max_request_seconds)
    }

    /// How long a drain may take.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.drain.grace_seconds)
    }

    /// The settings in effect as TOML, secrets redacted.
    #[must_use]
    pub fn redacted(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}"))
    }
}

impl Default for Config {
    /// `config/pith.toml`, which a test keeps valid.
    #[expect(clippy::expect_used, reason = "the text is compiled in and tested")]
    fn default() -> Self {
        toml::from_str(DEFAULT).expect("config/pith.toml is valid")
    }
}

fn invalid(setting: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { setting: setting.into(), message: message.into() }
}
