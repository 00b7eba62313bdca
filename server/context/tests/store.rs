//! A process that is killed at any moment leaves a store that holds what was last acknowledged, and nothing half.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pith_context::Extracted;
use pith_context::extract::Way;
use pith_context::store::{Chunk, Content, Limits, Original, Query, Store};

const KILLS: u64 = 100;
/// Names the folder to the process that is to be killed.
const FOLDER: &str = "PITH_TEST_STORE";
const SEED: &str = "PITH_TEST_SEED";
const TENANTS: [&str; 2] = ["one", "two"];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn open(folder: &Path) -> Store {
    // Few vectors fill a segment, and deletions write segments anew.
    let limits = Limits { segment_bytes: 500, versions: 2, selections: 5, ..Limits::default() };
    Store::open(folder, limits).unwrap()
}

/// A document that its seed says everything of.
fn content(seed: u64) -> Content {
    let mut dice = Dice(seed);
    let words: Vec<String> =
        (0..1 + dice.below(12)).map(|_| format!("word{}", dice.below(50))).collect();
    let mut content = Content {
        text: format!("{}\nseed{seed}", words.join(" ")),
        embedder: Some("dice".to_owned()),
        prepared: seed.to_le_bytes().repeat(100),
        ..Content::default()
    };
    // Every other is a page.
    if seed.is_multiple_of(2) {
        let bytes = format!("<p>{}<p>seed{seed}", words.join(" ")).into_bytes();
        let Extracted { text, elements, origins, .. } =
            pith_context::extract(&bytes, "text/html", &mut || true).unwrap();
        let way = Way { elements, origins };
        (content.text, content.original) = (text, Some(Original { bytes, way, left_out: 0 }));
    }
    let mut chunks = Vec::new();
    for word in content.text.split_whitespace() {
        let start = word.as_ptr() as usize - content.text.as_ptr() as usize;
        chunks.push(Chunk {
            span: start..start + word.len(),
            terms: pith_context::terms(word).collect(),
            vector: Some((0..16).map(|_| dice.below(200) as f32 / 100.0 - 1.0).collect()),
        });
    }
    content.chunks = chunks;
    content
}

/// One line of what the process to be killed says: it is about to do, or has done, something.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    Put {
        tenant: usize,
        id: String,
        seed: u64,
    },
    Delete {
        tenant: usize,
        id: String,
    },
    /// Selections do not outlive their documents; that they are neither half there nor orphans is the check's to see.
    Select,
    /// Nor do token counts.
    Count,
}

impl Deed {
    fn read(words: &[&str]) -> Option<Self> {
        match words {
            ["put", tenant, id, seed] => Some(Self::Put {
                tenant: tenant.parse().ok()?,
                id: (*id).to_owned(),
                seed: seed.parse().ok()?,
            }),
            ["delete", tenant, id] => {
                Some(Self::Delete { tenant: tenant.parse().ok()?, id: (*id).to_owned() })
            }
            ["select"] => Some(Self::Select),
            ["count"] => Some(Self::Count),
            _ => None,
        }
    }
}

/// Seeds of the latest versions.
type State = BTreeMap<(usize, String), u64>;

fn apply(state: &mut State, deed: &Deed) {
    match deed {
        Deed::Put { tenant, id, seed } => {
            state.insert((*tenant, id.clone()), *seed);
        }
        Deed::Delete { tenant, id } => {
            state.remove(&(*tenant, id.clone()));
        }
        Deed::Select | Deed::Count => {}
    }
}

/// What the store holds, read back.
fn held(store: &Store) -> State {
    let mut state = State::new();
    for (tenant, name) in TENANTS.iter().enumerate() {
        for version in store.list(name, "", None, 1000).unwrap().documents {
            let stored = store.get(name, &version.id, None).unwrap().unwrap();
            let (_, seed) = stored.text.rsplit_once("seed").unwrap();
            let seed = seed.parse().unwrap();
            let content = content(seed);
            let original = store.original(name, &version.id, None).unwrap().unwrap().1;
            assert_eq!((&stored.text, stored.prepared), (&content.text, content.prepared));
            let (bytes, way) = match content.original {
                None => (content.text.into_bytes(), None),
                Some(Original { bytes, way, .. }) => (bytes, Some(way)),
            };
            assert_eq!((original, stored.way), (bytes, way));
            state.insert((tenant, version.id), seed);
        }
    }
    state
}

/// What the test does in a process of its own: works on the store in `folder` until it is killed.
fn work_until_killed(folder: &Path) -> ! {
    let mut dice = Dice(std::env::var(SEED).unwrap().parse().unwrap());
    let store = open(folder);
    let mut out = std::io::stdout();
    let mut say = |line: String| {
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    say("\nopen\n".to_owned());
    loop {
        let tenant = dice.below(2) as usize;
        let name = TENANTS[tenant];
        let id = format!("document{}", dice.below(4));
        match dice.below(9) {
            0 | 1 => {
                say(format!("begin delete {tenant} {id}\n"));
                store.delete(name, &id).unwrap();
            }
            2 => {
                say("begin select\n".to_owned());
                let documents = store.list(name, "", None, 10).unwrap().documents;
                let contents: Vec<_> = documents.iter().map(|v| v.content).collect();
                let key = [dice.below(8) as u8; 32];
                store.put_selection(name, key, b"chosen", &contents).unwrap();
            }
            3 => {
                say("begin count\n".to_owned());
                if let Some(version) = store.describe(name, &id, None).unwrap() {
                    store.put_counts(name, &version.content, &[1; 32], b"counts").unwrap();
                }
            }
            _ => {
                let seed = dice.below(1 << 40);
                say(format!("begin put {tenant} {id} {seed}\n"));
                let content = content(seed);
                let mut upload = store.begin(name, &id).unwrap();
                let bytes = match &content.original {
                    None => content.text.as_bytes(),
                    Some(original) => &original.bytes,
                };
                for part in bytes.chunks(20) {
                    upload.push(part).unwrap();
                }
                assert_eq!(upload.bytes().unwrap(), bytes);
                upload.commit(&content).unwrap();
            }
        }
        say("done\n".to_owned());
    }
}

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        work_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(0x5eed);
    let mut state = State::new();
    let (mut deeds, mut interrupted) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_hundred_kills_lose_nothing_that_was_acknowledged",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, folder.path())
            .env(SEED, kill.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut begun = None;
        let mut take = |line: &str, begun: &mut Option<Deed>| match line
            .split(' ')
            .collect::<Vec<_>>()
            .as_slice()
        {
            ["begin", deed @ ..] => *begun = Deed::read(deed),
            ["done"] => {
                apply(&mut state, &begun.take().unwrap());
                deeds += 1;
            }
            _ => {}
        };
        // A few are killed while they open what the one before left; most after some deeds, in the middle of one.
        if kill % 10 != 0 {
            let mut wanted = dice.below(4);
            for line in lines.by_ref() {
                let line = line.unwrap();
                take(&line, &mut begun);
                match line.as_str() {
                    "open" | "done" if wanted == 0 => break,
                    "done" => wanted -= 1,
                    _ => {}
                }
            }
        }
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| take(&line.unwrap(), &mut begun));
        let store = open(folder.path());
        let census = store.check().unwrap();
        let held = held(&store);
        // What was under way when it ended has happened wholly or not at all.
        if held != state {
            let begun = begun.as_ref().unwrap();
            apply(&mut state, begun);
            assert_eq!(held, state, "kill {kill}: {begun:?}");
            interrupted += 1;
        }
        assert_eq!(census.documents, state.len() as u64);
        for ((tenant, id), seed) in &state {
            let terms: Vec<u64> = pith_context::terms(&format!("seed{seed}")).collect();
            let query = Query { terms: &terms, count: 10, ..Query::default() };
            let hits = store.search(TENANTS[*tenant], &query).unwrap();
            assert!(hits.iter().any(|hit| &hit.id == id), "kill {kill}: {id} is not found");
        }
    }
    println!("{deeds} acknowledged, {interrupted} done but not acknowledged");
    assert!(deeds > KILLS, "{deeds}");
}
