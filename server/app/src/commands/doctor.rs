//! `pith doctor`

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use pith_kernels::device::cuda;
use serde::Serialize;

use super::Failure;
use crate::config::{Config, DeviceChoice};
use crate::executor;
use crate::hub::{Hub, HubError, disk, error::megabytes};

mod gpu;

/// Room that the default model needs while it is fetched, bytes.
const ROOM_BYTES: u64 = 400_000_000;
/// Memory that the default model needs with room for some streams, bytes.
const MEMORY_BYTES: u64 = 1 << 30;

/// Arguments of `pith doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be, or for information.
    Ok,
    /// Something will be slow, or has to be fetched.
    Warn,
    /// Something needed is missing.
    Fail,
}

impl Check {
    fn new(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), hint: None }
    }

    fn because(mut self, status: Status, hint: impl Into<String>) -> Self {
        (self.status, self.hint) = (status, Some(hint.into()));
        self
    }
}

pub(super) fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let mut checks = vec![
        Check::new("pith", env!("CARGO_PKG_VERSION")),
        Check::new("system", system()),
        cpu(),
        isa(),
        cores(),
        memory(),
    ];
    checks.extend(gpu::checks(&cuda::presence()));
    match Hub::from_env() {
        Ok(hub) => checks.extend([pip(&hub), cache(&hub), models(&hub), embedder(&hub)]),
        Err(error) => {
            checks.push(Check::new("cache", error.to_string()).because(Status::Fail, error.hint()))
        }
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(
            &mut stdout,
            &serde_json::json!({ "ok": !failed, "checks": checks }),
        )?;
        writeln!(stdout)?;
    } else {
        for Check { name, status, found, hint } in &checks {
            let mark = match status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(stdout, "{mark}  {name:<8} {found}")?;
            if let Some(hint) = hint {
                writeln!(stdout, "               hint: {hint}")?;
            }
        }
    }
    Ok(if failed { ExitCode::from(Failure::FAILED) } else { ExitCode::SUCCESS })
}

fn system() -> String {
    let release = first_line("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {} {release}", std::env::consts::OS, std::env::consts::ARCH).trim_end().to_owned()
}

fn cpu() -> Check {
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    Check::new(
        "cpu",
        format!("{}; {}", model.as_deref().unwrap_or("model unknown"), flags().join(" ")),
    )
}

/// The instruction sets that matter to kernels, of those the machine has.
#[cfg(target_arch = "x86_64")]
fn flags() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    all.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn flags() -> Vec<&'static str> {
    Vec::new()
}

fn isa() -> Check {
    match local_isa() {
        Ok(isa @ "scalar") => Check::new("isa", format!("{isa} in use")).because(
            Status::Warn,
            "without AVX2, FMA and F16C (or with PITH_ISA=scalar) everything is many times slower",
        ),
        Ok(isa) => Check::new("isa", format!("{isa} in use")),
        Err(error) => {
            Check::new("isa", error).because(Status::Fail, "unset PITH_ISA, or set it to scalar")
        }
    }
}

fn local_isa() -> Result<&'static str, String> {
    super::local::isa().map(|isa| isa.name())
}

fn cores() -> Check {
    // Honours affinity and cgroup quotas.
    match std::thread::available_parallelism() {
        Ok(cores) => Check::new("cores", format!("{cores} allowed to this process")),
        Err(error) => Check::new("cores", format!("unknown ({error})"))
            .because(Status::Warn, "set cpu.threads (PITH_CPU_THREADS) by hand"),
    }
}

fn memory() -> Check {
    let kib = |key: &str| -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let limit: Option<u64> =
        first_line("/sys/fs/cgroup/memory.max").and_then(|text| text.parse().ok());
    let (Some(total), Some(free)) = (kib("MemTotal"), kib("MemAvailable")) else {
        return Check::new("memory", "unknown");
    };
    let (total, free) = (total << 10, free << 10);
    let capped =
        limit.map_or_else(String::new, |limit| format!(", cgroup limit {}", megabytes(limit)));
    let check = Check::new(
        "memory",
        format!("{}, {} available{capped}", megabytes(total), megabytes(free)),
    );
    if limit.unwrap_or(total).min(free) < MEMORY_BYTES {
        return check.because(
            Status::Warn,
            "below 1 GiB the KV cache will be small; set cpu.kv_mib (PITH_CPU_KV_MIB)",
        );
    }
    check
}

fn pip(hub: &Hub) -> Check {
    match hub.pip().find() {
        Ok(found) => Check::new("pip", format!("{} through {}", found.version, found.python)),
        Err(error) => Check::new("pip", error.to_string()).because(needed(hub), error.hint()),
    }
}

/// What only a fetch needs is needed only as long as the default model is not there.
fn needed(hub: &Hub) -> Status {
    let present =
        hub.catalogue().find(crate::hub::DEFAULT_MODEL).is_some_and(|entry| hub.cache().has(entry));
    if present { Status::Warn } else { Status::Fail }
}

fn cache(hub: &Hub) -> Check {
    let root = hub.cache().root();
    let free = disk::free_bytes(root);
    let room = free.map_or_else(String::new, |free| format!(", {} free", megabytes(free)));
    let check = Check::new("cache", format!("{}{room}", root.display()));
    if let Err(source) = writable(root) {
        let error = HubError::NotWritable { path: root.to_owned(), source };
        return Check::new("cache", error.to_string()).because(needed(hub), error.hint());
    }
    match free {
        Some(free) if free < ROOM_BYTES => check
            .because(needed(hub), "free some space, or set PITH_HOME to a folder on another disk"),
        _ => check,
    }
}

/// Tries to make a file in `folder`, or in what exists of the way to it.
fn writable(folder: &Path) -> io::Result<()> {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(folder);
    if !existing.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let probe = existing.join(format!(".pith-doctor-{}", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

fn models(hub: &Hub) -> Check {
    let present: Vec<&str> = hub
        .catalogue()
        .models()
        .filter(|entry| hub.cache().has(entry))
        .map(|entry| entry.short_name())
        .collect();
    if present.is_empty() {
        return Check::new("models", "none fetched")
            .because(Status::Warn, "the first use fetches one, or `pith pull smollm2` does");
    }
    Check::new("models", present.join(", "))
}

/// The embedder of the default settings, and what they have it computed on here.
fn embedder(hub: &Hub) -> Check {
    let settings = Config::default();
    let name = settings.context.embedder;
    let device = settings.context.embedder_device.or(settings.engine.device);
    let place = executor::card(device)
        .map_or_else(|| DeviceChoice::Cpu.to_string(), |card| DeviceChoice::Cuda(card).to_string());
    match hub.has_embedder(&name) {
        true => Check::new("embedder", format!("{name}, on {place} by default")),
        false => Check::new("embedder", format!("{name} is not fetched; on {place} by default"))
            .because(Status::Warn, "`pith serve` fetches it; until it is there words alone decide"),
    }
}

fn first_line(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}
