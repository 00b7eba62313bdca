//! Fixture models, and steps over them, for tests of executors.
#![allow(dead_code, reason = "each test file uses its share")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::executor::{Executor, ExecutorError};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{Outcome, Step, StepId, StepSequence, TokenSource, Want, Wanted};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;

/// Tokens per block: small, so that short fixtures cross many blocks.
pub(crate) const BLOCK: usize = 4;

/// Logits of a reference implementation on a fixture model.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) model: PathBuf,
    pub(crate) ids: Vec<u32>,
    /// Where `logits` were taken.
    pub(crate) positions: Vec<usize>,
    pub(crate) logits: Vec<Vec<f32>>,
}

/// Where the fixtures lie. Tests that were carried to another machine are told by the variable cargo sets too.
fn fixtures() -> PathBuf {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = crate_folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&crate_folder).join("tests/fixtures")
}

/// All fixtures. None at all is a failure: a test over nothing would hold no promise.
pub(crate) fn goldens() -> Vec<Golden> {
    let folder = fixtures();
    let mut goldens = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("tests/fixtures exists") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            goldens.push(read(&folder, &path));
        }
    }
    assert!(!goldens.is_empty(), "no fixture in {}", folder.display());
    goldens.sort_by(|a, b| a.name.cmp(&b.name));
    goldens
}

fn read(folder: &Path, path: &Path) -> Golden {
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let integers = |key: &str| -> Vec<u64> {
        json[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
    };
    let row = |row: &serde_json::Value| -> Vec<f32> {
        row.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect()
    };
    let golden = Golden {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        model: folder.join(json["model"].as_str().unwrap()),
        ids: integers("ids").into_iter().map(|id| id as u32).collect(),
        positions: integers("positions").into_iter().map(|at| at as usize).collect(),
        logits: json["logits"].as_array().unwrap().iter().map(row).collect(),
    };
    assert_eq!(golden.positions.len(), golden.logits.len(), "{}", golden.name);
    assert!(!golden.positions.is_empty(), "{} compares nothing", golden.name);
    assert!(golden.ids.len() > 2 * BLOCK, "{} is too short to cross blocks", golden.name);
    golden
}

/// An executor over `model`, with `settings` applied to the usual small configuration.
pub(crate) fn load(model: &Path, isa: Isa, settings: impl Fn(&mut CpuConfig)) -> CpuExecutor {
    let file = ModelFile::open(model).unwrap();
    let mut config = CpuConfig::new(isa, 16 << 20);
    config.block_size = BLOCK;
    config.max_rows = 256;
    settings(&mut config);
    CpuExecutor::load(&file, config, Pool::new(2)).unwrap()
}

/// The instruction sets to test: all this machine has.
pub(crate) fn isas() -> Vec<Isa> {
    Isa::available().collect()
}

/// Blocks for `tokens` tokens in an order that is neither rising nor contiguous, from a stretch of
/// the pool of its own per `lane`.
pub(crate) fn table(lane: u32, tokens: usize) -> Arc<[u32]> {
    table_of(lane, tokens, BLOCK)
}

/// The same for blocks of `block` tokens.
pub(crate) fn table_of(lane: u32, tokens: usize, block: usize) -> Arc<[u32]> {
    let blocks = tokens.div_ceil(block) as u32;
    (0..blocks).map(|i| lane * 2 * blocks + 2 * (blocks - 1 - i) + 1).collect()
}

/// Collects sequences into a step.
#[derive(Debug)]
pub(crate) struct StepBuilder(pub(crate) Step, usize);

impl StepBuilder {
    /// Step `id` over blocks of [`BLOCK`] tokens.
    pub(crate) fn new(id: u64) -> Self {
        Self::with_block(id, BLOCK)
    }

    /// Step `id` over blocks of `block` tokens.
    pub(crate) fn with_block(id: u64, block: usize) -> Self {
        let step = Step {
            id: StepId(id),
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::new(),
            copies: Vec::new(),
            wants: Vec::new(),
        };
        Self(step, block)
    }

    /// Adds rows for `tokens` at positions from `from`; `want` says what each position wants.
    pub(crate) fn sequence(
        mut self,
        tokens: &[TokenSource],
        from: usize,
        blocks: &Arc<[u32]>,
        want: impl Fn(usize) -> Vec<Want>,
    ) -> Self {
        let (step, block) = (&mut self.0, self.1);
        let first_row = step.tokens.len() as u32;
        for (position, &token) in (from..).zip(tokens) {
            let row = step.tokens.len() as u32;
            step.wants.extend(want(position).into_iter().map(|want| (row, want)));
            let slot = blocks[position / block] * block as u32 + (position % block) as u32;
            step.tokens.push(token);
            step.positions.push(position as u32);
            step.slots.push(slot);
        }
        step.sequences.push(StepSequence {
            first_row,
            rows: tokens.len() as u32,
            context: (from + tokens.len()) as u32,
            blocks: blocks.clone(),
            adapter: None,
            bias: Arc::new([]),
        });
        self
    }
}

/// Known tokens.
pub(crate) fn literal(ids: &[u32]) -> Vec<TokenSource> {
    ids.iter().map(|&id| TokenSource::Literal(id)).collect()
}

/// The most likely token.
pub(crate) fn greedy() -> Want {
    Want::Sample(SampleSpec::greedy())
}

/// Submits and waits.
pub(crate) fn run(executor: &mut dyn Executor, step: Step) -> Result<Outcome, ExecutorError> {
    let ticket = executor.submit(step)?;
    executor.wait(ticket)
}

/// The logits among `wanted`, in order.
pub(crate) fn logits_of(wanted: Vec<Wanted>) -> Vec<Vec<f32>> {
    let only_logits = |wanted| match wanted {
        Wanted::Logits(logits) => logits,
        other => panic!("{other:?} was not asked for"),
    };
    wanted.into_iter().map(only_logits).collect()
}
