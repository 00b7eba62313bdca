//! What the device's kernels become at build time: sources within the library, to be compiled on the machine they run on;
//! machine code of the usual cards beside them, where a toolkit is at hand and the build is one to be shipped; and code of the
//! host, where tests ask for it.
//!
//! Environment: `PITH_CUBINS=1` embeds machine code in any build, `PITH_CUBINS=0` in none. A toolkit is looked for in
//! `CUDA_HOME`, in `PATH` and in `cuda/toolkit/`, where `cuda/toolkit.sh` may have put one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs};

/// Cards that machine code is embedded for. Cards of the same major version and a higher minor one run it too, except
/// where it ends in `a`, for that card alone.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];
/// The only architecture of sources named `*_sm90.cu`.
const HOPPER: &str = "sm_90a";
/// Oldest release of the toolkit that knows all of them.
const OLDEST_TOOLKIT: u32 = 12;

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    println!("cargo:rerun-if-env-changed=PITH_CUBINS");
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("cuda");
    let out = PathBuf::from(variable("OUT_DIR"));
    let sources = files(&folder, "cu");
    let cubins = match wanted().then(|| toolkit(&folder)).flatten() {
        Some(nvcc) => compile(&nvcc, &sources, &out),
        None => Vec::new(),
    };
    let table = table(&sources, &files(&folder, "cuh"), &cubins);
    fs::write(out.join("embedded.rs"), table).expect("the folder for output can be written to");
    #[cfg(feature = "host-device")]
    host_device();
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The files of `folder` itself that end in `.extension`, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are here");
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    found.sort();
    found
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).expect("sources have plain names")
}

/// Builds that are not shipped do without, and are quick.
fn wanted() -> bool {
    match env::var("PITH_CUBINS").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => variable("PROFILE") == "release",
    }
}

/// The compiler of the first toolkit there is, if it is new enough.
fn toolkit(folder: &Path) -> Option<PathBuf> {
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = home
        .into_iter()
        .chain(env::split_paths(&path).collect::<Vec<_>>())
        .chain([folder.join("toolkit/bin")]);
    let nvcc = folders.map(|bin| bin.join("nvcc")).find(|nvcc| nvcc.is_file())?;
    match release(&nvcc) {
        Some(release) if release >= OLDEST_TOOLKIT => Some(nvcc),
        release => {
            let release = release.map_or("unknown".to_owned(), |number| number.to_string());
            let path = nvcc.display();
            println!(
                "cargo:warning={path} is of release {release}: too old, no machine code is embedded"
            );
            None
        }
    }
}

/// 13 of `Cuda compilation tools, release 13.0, V13.0.88`.
fn release(nvcc: &Path) -> Option<u32> {
    let output = Command::new(nvcc).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_once("release ")?.1.split_once('.')?.0.parse().ok()
}

/// Machine code of one source.
struct Cubin {
    name: String,
    architecture: &'static str,
    path: PathBuf,
}

/// Compiles every source for every architecture, as many at once as cargo allows.
fn compile(nvcc: &Path, sources: &[PathBuf], out: &Path) -> Vec<Cubin> {
    let mut jobs = Vec::new();
    for source in sources {
        let name = stem(source).to_owned();
        for architecture in ARCHITECTURES {
            if architecture == HOPPER || !name.ends_with("_sm90") {
                let path = out.join(format!("{name}.{architecture}.cubin"));
                jobs.push((source, Cubin { name: name.clone(), architecture, path }));
            }
        }
    }
    let workers = variable("NUM_JOBS").parse().unwrap_or(1usize).clamp(1, jobs.len().max(1));
    let queue = Mutex::new(jobs.iter());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no worker panics with the lock").next();
                    let Some((source, Cubin { architecture, path, .. })) = next else { break };
                    let mut command = Command::new(nvcc);
                    command.arg("-std=c++17").arg(format!("-arch={architecture}")).arg("-cubin");
                    command.arg("-o").arg(path).arg(source);
                    let Output { status, stdout, stderr } =
                        command.output().expect("nvcc can be run");
                    let said =
                        [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                    assert!(status.success(), "{command:?}\n{}", said.concat());
                }
            });
        }
    });
    jobs.into_iter().map(|(_, cubin)| cubin).collect()
}

/// What `src/device/cuda/embedded.rs` includes.
fn table(sources: &[PathBuf], headers: &[PathBuf], cubins: &[Cubin]) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string works");
    line("pub(super) static SOURCES: &[Source] = &[".to_owned());
    for path in sources {
        line(format!("    Source {{ name: {:?}, text: include_str!({path:?}) }},", stem(path)));
    }
    line("];\n/// Name and text.\npub(super) static HEADERS: &[(&str, &str)] = &[".to_owned());
    for path in headers {
        line(format!("    (\"{}.cuh\", include_str!({path:?})),", stem(path)));
    }
    line("];\npub(super) static CUBINS: &[Cubin] = &[".to_owned());
    for Cubin { name, architecture, path } in cubins {
        let bytes = format!("include_bytes!({path:?})");
        line(format!(
            "    Cubin {{ name: {name:?}, architecture: {architecture:?}, bytes: {bytes} }},"
        ));
    }
    line("];".to_owned());
    text
}

/// The `.cu` sources as plain C++, and the fibers that run them.
#[cfg(feature = "host-device")]
fn host_device() {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        // A sum is what the device makes of it: no contraction beyond what a kernel asks for.
        .flag_if_supported("-ffp-contract=off")
        // Sixteen bytes of memory are read as what they are not, as device code does.
        .flag_if_supported("-fno-strict-aliasing")
        .flag_if_supported("-Wno-unused-function")
        .flag_if_supported("-Wno-unused-variable")
        .flag_if_supported("-Wno-unknown-pragmas")
        .files(["cuda/host/fibers.cpp", "cuda/host/kernels.cpp"])
        .compile("pith_host_device");
}
