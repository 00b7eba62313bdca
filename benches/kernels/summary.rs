//! What was measured in this run, beside what the machine can do at most, as a table.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

use pith_kernels::Isa;
use serde_json::Value;

/// One bench of this run.
struct Measured {
    group: String,
    name: String,
    /// Whether work was counted in bytes, not in operations.
    bytes: bool,
    /// Per second.
    rate: f64,
}

/// Prints the table of all that was measured since `began`. What criterion wrote is all it knows.
#[expect(clippy::print_stdout, reason = "a bench prints")]
pub(crate) fn print(began: SystemTime) {
    let mut found = Vec::new();
    collect(&folder(), began, &mut found);
    found.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
    let ceiling = |name: &str| {
        let wanted = format!("{name}/{threads}");
        found.iter().find(|m| m.group == "ceilings" && m.name == wanted).map(|m| m.rate)
    };
    let (read, floats, integers) = (ceiling("read"), ceiling("f32"), ceiling("int8"));
    // Bfloat16 tiles do half of what tiles of eight-bit integers do.
    let attention = if Isa::detect() == Isa::Amx { integers.map(|x| x / 2.0) } else { floats };
    println!("\n{:<40} {:>12} {:>12} {:>6}", "median of this run", "rate", "ceiling", "share");
    for measured in &found {
        let ceiling = match (measured.group.as_str(), measured.bytes) {
            ("matmul" | "attention", true) => read,
            ("matmul", false) => integers,
            ("attention", false) => attention,
            _ => None,
        };
        let unit = if measured.bytes { "GB/s" } else { "G/s" };
        let figure = |rate: f64| format!("{:.1} {unit}", rate / 1e9);
        println!(
            "{:<40} {:>12} {:>12} {:>6}",
            format!("{}/{}", measured.group, measured.name),
            figure(measured.rate),
            ceiling.map_or("-".to_owned(), figure),
            ceiling.map_or("-".to_owned(), |most| format!("{:.0} %", 100.0 * measured.rate / most)),
        );
    }
    println!(
        "G/s: products and sums (matmul, attention) or elements (rows) in thousands of millions."
    );
}

/// Where criterion writes: beside the bench's own executable.
fn folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).or_else(|| {
        let exe = env::current_exe().ok()?;
        Some(exe.parent()?.parent()?.parent()?.to_owned()) // target/release/deps
    });
    target.unwrap_or_else(|| PathBuf::from("target")).join("criterion")
}

fn collect(folder: &Path, began: SystemTime, found: &mut Vec<Measured>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        match path.file_name().is_some_and(|name| name == "new") {
            true => found.extend(measured(&path, began)),
            false => collect(&path, began, found),
        }
    }
}

fn measured(folder: &Path, began: SystemTime) -> Option<Measured> {
    let file = folder.join("estimates.json");
    if file.metadata().ok()?.modified().ok()? < began {
        return None;
    }
    let json = |path: PathBuf| serde_json::from_str::<Value>(&fs::read_to_string(path).ok()?).ok();
    let (bench, estimates) = (json(folder.join("benchmark.json"))?, json(file)?);
    let nanoseconds = estimates["median"]["point_estimate"].as_f64()?;
    let work = &bench["throughput"];
    let (bytes, amount) = match (work["Bytes"].as_f64(), work["Elements"].as_f64()) {
        (Some(bytes), _) => (true, bytes),
        (None, elements) => (false, elements?),
    };
    let group = bench["group_id"].as_str()?.to_owned();
    let name = bench["full_id"].as_str()?.strip_prefix(&group)?.trim_start_matches('/').to_owned();
    Some(Measured { group, name, bytes, rate: amount / nanoseconds * 1e9 })
}
