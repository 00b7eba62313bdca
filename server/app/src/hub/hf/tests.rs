use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use sha2::Digest as _;

use super::*;

const MODEL: &[u8] = b"GGUF and what follows";

fn files(paths: &[&str]) -> Vec<RemoteFile> {
    let file = |path: &&str| RemoteFile { path: (*path).to_owned(), bytes: 1, sha256: None };
    paths.iter().map(file).collect()
}

fn reason(error: HubError) -> Reason {
    assert!(!error.hint().is_empty());
    match error {
        HubError::HuggingFace { reason, .. } => reason,
        other => panic!("another error: {other}"),
    }
}

fn hash(bytes: &[u8]) -> String {
    crate::hub::cache::hex(sha2::Sha256::new_with_prefix(bytes))
}

#[test]
fn names_are_taken_apart() {
    for text in ["org/repo", "Org_1/Re.po-2:a.gguf", "o/r:sub/dir/x.y.GGUF", "o/r:with blank.gguf"]
    {
        assert_eq!(Name::parse(text).unwrap().to_string(), format!("hf:{text}"));
    }
    let name = Name::parse("o/r:sub/x.gguf").unwrap();
    assert_eq!((&*name.org, &*name.repo, name.file.as_deref()), ("o", "r", Some("sub/x.gguf")));
}

#[test]
fn names_that_would_leave_the_cache_are_refused() {
    let long = "x".repeat(97);
    for text in [
        "",
        "repo",
        "/repo",
        "org/",
        "a/b/c",
        "../repo",
        "org/..",
        "org/.hidden",
        "o--p/r",
        "o/r/",
        "org/re po",
        "org/r?x",
        "org/-r",
        "org/r.",
        "o\\p/r",
        "ö/r",
        &format!("o/{long}"),
        "o/r:",
        "o/r:x",
        "o/r:x.bin",
        "o/r:.gguf",
        "o/r:d/.gguf",
        "o/r:../x.gguf",
        "o/r:/x.gguf",
        "o/r:a/../x.gguf",
        "o/r:a//x.gguf",
        "o/r:a\\x.gguf",
        "o/r:c:x.gguf",
        "o/r:x\n.gguf",
    ] {
        assert!(matches!(reason(Name::parse(text).unwrap_err()), Reason::Name(_)), "{text:?}");
    }
}

#[test]
fn the_only_model_is_chosen_and_several_are_listed() {
    let name = Name::parse("o/r").unwrap();
    let only = choose(&name, files(&["README.md", "x.gguf", "../evil.gguf"])).unwrap();
    assert_eq!(only.path, "x.gguf");
    assert!(matches!(reason(choose(&name, files(&["a.bin"])).unwrap_err()), Reason::NoModel));

    let error = choose(&name, files(&["z.gguf", "a.gguf"])).unwrap_err();
    assert!(error.to_string().contains("a.gguf, z.gguf"), "{error}");
    assert!(error.hint().contains("hf:o/r:a.gguf"), "{}", error.hint());

    let many: Vec<String> = (0..25).map(|index| format!("{index:02}.gguf")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let said = choose(&name, files(&many)).unwrap_err().to_string();
    assert!(said.ends_with("19.gguf and 5 more"), "{said}");
}

#[test]
fn a_named_model_is_chosen_by_its_whole_path() {
    let name = Name::parse("o/r:sub/x.gguf").unwrap();
    let chosen = choose(&name, files(&["x.gguf", "sub/x.gguf", "y.gguf"])).unwrap();
    assert_eq!(chosen.path, "sub/x.gguf");
    let error = choose(&name, files(&["x.gguf"])).unwrap_err();
    assert!(error.hint().contains("hf:o/r:x.gguf"), "{}", error.hint());
    assert!(matches!(reason(error), Reason::NoSuchFile(_)));
}

/// A cache, and a hub at `endpoint`.
struct Place {
    home: tempfile::TempDir,
    endpoint: String,
}

impl Place {
    fn at(endpoint: String) -> Self {
        Self { home: tempfile::tempdir().unwrap(), endpoint }
    }

    /// Nobody listens on a port that was just given back.
    fn unreachable() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::at(format!("http://{}", listener.local_addr().unwrap()))
    }

    fn run(&self, name: &str) -> Result<PathBuf, HubError> {
        let cache = Cache::at(self.home.path());
        let endpoint = Some(self.endpoint.as_str());
        Fetch { cache: &cache, progress: Progress::Silent, endpoint }.run(&Name::parse(name)?)
    }

    fn model(&self, file: &str) -> PathBuf {
        self.home.path().join("models/hf/org/repo").join(file)
    }

    fn put(&self, file: &str) {
        fs::create_dir_all(self.model(file).parent().unwrap()).unwrap();
        fs::write(self.model(file), MODEL).unwrap();
    }
}

#[test]
fn what_is_in_the_cache_needs_no_network() {
    let place = Place::unreachable();
    place.put("sub/a.gguf");
    assert_eq!(place.run("org/repo").unwrap(), place.model("sub/a.gguf"));
    assert_eq!(place.run("org/repo:sub/a.gguf").unwrap(), place.model("sub/a.gguf"));
    // Which of two is meant only the hub could say, and it cannot be reached.
    place.put("b.gguf");
    assert!(matches!(reason(place.run("org/repo").unwrap_err()), Reason::Network { .. }));
    assert_eq!(place.run("org/repo:b.gguf").unwrap(), place.model("b.gguf"));
}

#[test]
fn no_network_is_told_soon_and_leaves_no_model() {
    let place = Place::unreachable();
    let started = std::time::Instant::now();
    let error = place.run("org/repo:x.gguf").unwrap_err();
    assert!(started.elapsed().as_secs() < 30);
    assert!(error.hint().contains("network"), "{}", error.hint());
    assert!(matches!(reason(error), Reason::Network { .. }));
    assert!(!place.model("x.gguf").exists());
}

/// A hub on the loopback: method and path to status, headers and body.
struct FakeHub {
    answers: HashMap<String, (u16, String, Vec<u8>)>,
    asked: Mutex<Vec<String>>,
}

impl FakeHub {
    const TREE: &str = "GET /api/models/org/repo/tree/main";

    /// With one file, announced as `announced` and served as `served`.
    fn with_model(announced: &[u8], served: &[u8]) -> Self {
        let tree = format!(
            r#"[{{"type":"file","oid":"0","size":{},"path":"x.gguf"}},{{"type":"file","oid":"1","size":1,"path":"README.md"}}]"#,
            announced.len()
        );
        let headers =
            format!("ETag: \"{}\"\r\nX-Repo-Commit: {}\r\n", hash(announced), "c".repeat(40));
        let resolve = "/org/repo/resolve/main/x.gguf";
        Self::of([
            (Self::TREE.to_owned(), (200, String::new(), tree.into_bytes())),
            (format!("HEAD {resolve}"), (200, headers.clone(), served.to_vec())),
            (format!("GET {resolve}"), (200, headers, served.to_vec())),
        ])
    }

    fn of(answers: impl IntoIterator<Item = (String, (u16, String, Vec<u8>))>) -> Self {
        Self { answers: answers.into_iter().collect(), asked: Mutex::default() }
    }

    /// Serves until the process ends.
    fn start(self) -> (Place, std::sync::Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::at(format!("http://{}", listener.local_addr().unwrap()));
        let hub = std::sync::Arc::new(self);
        let serving = std::sync::Arc::clone(&hub);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serving.answer(stream);
            }
        });
        (place, hub)
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
        let Some(request) = head.next() else { return };
        // The rest of the head, up to the empty line.
        head.find(String::is_empty);
        drop(head);
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let asked = format!("{method} {}", target.split('?').next().unwrap_or(""));
        let missing = (404, String::new(), Vec::new());
        let (status, headers, body) = self.answers.get(&asked).unwrap_or(&missing);
        let head = format!(
            "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.asked.lock().unwrap().push(asked.clone());
        let body: &[u8] = if method == "HEAD" { &[] } else { body };
        // A client that has gone is the test's to notice.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    }
}

#[test]
fn a_model_is_fetched_once_checked_and_nothing_else_is_left() {
    let (place, hub) = FakeHub::with_model(MODEL, MODEL).start();
    assert_eq!(place.run("org/repo").unwrap(), place.model("x.gguf"));
    assert_eq!(fs::read(place.model("x.gguf")).unwrap(), MODEL);
    assert!(!place.model("x.gguf").is_symlink());
    assert!(!place.home.path().join("partial/hf/models--org--repo").exists());

    let asked = hub.asked.lock().unwrap().len();
    place.run("org/repo:x.gguf").unwrap();
    assert_eq!(hub.asked.lock().unwrap().len(), asked, "a cached file was asked for again");
}

#[test]
fn a_model_that_differs_from_what_was_announced_is_not_kept() {
    let altered: Vec<u8> = MODEL.iter().rev().copied().collect();
    for served in [&altered[..], &MODEL[1..]] {
        let (place, _) = FakeHub::with_model(MODEL, served).start();
        let error = place.run("org/repo").unwrap_err();
        assert!(matches!(reason(error), Reason::Changed { .. }));
        assert!(!place.model("x.gguf").exists());
        assert!(!place.home.path().join("partial/hf/models--org--repo").exists());
    }
}

#[test]
fn a_repository_that_is_gated_missing_or_busy_is_told_apart() {
    let answer = |status| {
        let answers = [(FakeHub::TREE.to_owned(), (status, String::new(), b"{}".to_vec()))];
        reason(FakeHub::of(answers).start().0.run("org/repo").unwrap_err())
    };
    assert!(matches!(answer(401), Reason::Denied { .. }));
    assert!(matches!(answer(403), Reason::Denied { .. }));
    assert!(matches!(answer(404), Reason::NotFound { .. }));
    assert!(matches!(answer(429), Reason::Busy { .. }));
    assert!(matches!(answer(500), Reason::Failed { .. }));
}

#[test]
fn a_fetch_may_be_asked_for_inside_a_runtime() {
    let place = Place::unreachable();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async { place.run("org/repo") }).unwrap_err();
    assert!(matches!(reason(error), Reason::Network { .. }));
}
