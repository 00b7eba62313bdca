//! `pith eval context`
//!
//! How much of what answers a question is kept of its documents, at budgets from a few sentences to half of everything:
//! selection as the server does it beside plain baselines at the same budget, on questions with known answers. A run goes
//! `dataset` (questions over haystacks of documents) → `selection` (every way of selecting, every budget) → `tuning`
//! (the best baseline there is) → `reading` (what the served model makes of it, if asked for) → `figures` → `tables`, JSON and
//! `page`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pith_context::Embedder;
use pith_engine::EngineConfig;
use pith_model::ModelFile;

use self::baseline::Smoothing;
use self::budget::Budget;
use self::dataset::{Dataset, Kind};
use self::figures::{Figures, Settings};
use self::metric::Metric;
use self::ours::Ours;
use self::reading::{Counts, Reader};
use self::selection::Run;
use self::times::Times;
use self::tuning::Tuned;
use self::vectors::Vectors;
use crate::commands::{Failure, local, report};
use crate::config::{self, DeviceChoice, KvType};
use crate::hub::{self, Resolved};

mod anchors;
mod baseline;
mod bootstrap;
mod budget;
mod dataset;
mod figures;
mod fill;
mod haystack;
mod meter;
mod metric;
mod normal;
mod ours;
mod page;
mod reading;
mod selection;
mod signals;
mod tables;
mod times;
mod tuning;
mod vectors;

/// Budgets unless told otherwise, and the one whose selection is looked at for ranks.
const TOKENS: [u32; 6] = [64, 128, 256, 512, 1024, 2048];
const NQ_SHARES: [f32; 4] = [0.05, 0.1, 0.25, 0.5];
const SHARES: [f32; 5] = [0.05, 0.1, 0.2, 0.3, 0.5];

/// Arguments of `pith eval context`.
#[derive(Debug, Args)]
pub struct ContextArgs {
    /// xquad, nq or qmsum with --path, or a JSON Lines file of your own
    #[arg(long, value_name = "NAME|FILE")]
    dataset: String,
    /// The data set's file
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// Whose tokens are counted, and who reads: a name from `pith models`, a GGUF file or a folder of safetensors
    #[arg(long, value_name = "NAME|PATH", default_value = hub::DEFAULT_MODEL)]
    model: String,
    /// Most questions, drawn by the seed; 0 is all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Decides on questions drawn, distractors' places and questions read
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Context tokens (64) or shares of the whole context (0.05); by default what the data set is known for
    #[arg(long, value_name = "TOKENS|SHARE", value_delimiter = ',')]
    budgets: Vec<Budget>,
    /// Score the right answers to N questions with all, with selected, with random and without documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    likelihood: usize,
    /// Answer N questions from all, from selected and from random documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    answers: usize,
    /// Check the sources of answers to N questions
    #[arg(long, value_name = "N", default_value_t = 0)]
    citations: usize,
    /// What compares by meaning: a name from `pith models` or a folder; empty leaves words alone
    #[arg(long, value_name = "NAME|FOLDER", default_value = "minilm")]
    embedder: String,
    /// Most text embedded for a question, KiB, as the setting context.embed_kib; 0 is everything, as of stored documents
    #[arg(long, value_name = "KIB", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    embed_kib: u32,
    /// Threads that compute; 0 is one per core allowed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    threads: u32,
    /// What computes the embedder and the reading model: auto (a graphics card if there is one), cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Instruction set of the embedder and the reading model: scalar, avx2, avx512 or amx (default: the fastest this machine has)
    #[arg(long)]
    isa: Option<String>,
    /// Write all figures here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots here: one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &ContextArgs) -> Result<ExitCode, Failure> {
    // What is wrong with the arguments is said before anything is fetched.
    Kind::of(&args.dataset, args.path.as_deref())?;
    let embedder = match args.embedder.as_str() {
        "" => None,
        name => {
            let isa = args.isa.as_deref();
            Some(local::embedder(name, args.device, isa, args.threads as usize)?)
        }
    };
    measure(args, embedder.as_ref().map(|embedder| embedder as &dyn Embedder))
}

/// Measures with `embedder`, or by words alone.
fn measure(args: &ContextArgs, embedder: Option<&dyn Embedder>) -> Result<ExitCode, Failure> {
    let (kind, path) = Kind::of(&args.dataset, args.path.as_deref())?;
    let model = hub::resolve(&args.model)?;
    let file = local::open(&model)?;
    let vectors = embedder.map(Vectors::new);
    let vectors = vectors.as_ref();
    let embed_bytes = config::embed_bytes(args.embed_kib as usize);
    let ours = Ours::new(vectors.map(|vectors| vectors as &dyn Embedder), embed_bytes);
    let mut warnings = Vec::new();
    if vectors.is_none() {
        warnings.push("no embedder: nothing is compared by meaning".to_owned());
    }
    let (dataset, protocol) = prepared(args, kind, &path, vectors)?;
    let (budgets, ranked_at) = budgets(args, kind);
    let metrics = Metric::of(kind);
    let threads = args.threads as usize;
    let run = Run {
        dataset: &dataset,
        metrics,
        budgets: &budgets,
        ranked_at,
        file: &file,
        vectors,
        threads,
        ours: &ours,
    };

    let titles = dataset.haystacks.iter().flatten().any(|document| document.title.is_some());
    let grid = Smoothing::grid(vectors.is_some(), titles);
    let rows = run.rows(&grid)?;
    let tuned = Tuned::find(&run, &grid, &rows)?;
    let methods = figures::worths(&run, &rows, &tuned);
    let settings = Settings {
        version: env!("CARGO_PKG_VERSION"),
        dataset: kind.name(),
        path: path.display().to_string(),
        model: model.name.clone(),
        embedder: embedder.map(|embedder| embedder.identity().to_owned()),
        seed: args.seed,
        questions: dataset.questions.len(),
        haystacks: dataset.haystacks.len(),
        documents: dataset.haystacks.iter().map(Vec::len).sum(),
        context_tokens: rows.iter().map(|row| f64::from(row.tokens)).sum::<f64>()
            / rows.len() as f64,
        ranked_at: budgets[ranked_at].to_string(),
        protocol,
        zsum: tuned.overall.0,
        zsum_settings_tried: grid.len(),
    };
    let mut figures = Figures {
        settings,
        shares: figures::by_metric(&run, &methods),
        methods,
        intervals: tuned.compare(&run, &rows),
        likelihood: None,
        answers: None,
        citations: None,
        times: Times::measure(&run, embedder)?,
        warnings,
    };
    let counts =
        Counts { likelihood: args.likelihood, answers: args.answers, citations: args.citations };
    read(&mut figures, args, counts, &model, (&dataset, kind, &file, &ours))?;

    let tables = tables::tables(&figures, kind, metrics, &budgets);
    print(&figures, &tables)?;
    let page = || page::report(&figures, tables.clone(), metrics, &budgets);
    report::write(&figures, args.json.as_deref(), args.html.as_deref(), page)?;
    Ok(ExitCode::SUCCESS)
}

/// The questions to ask over the haystacks of the protocol, and that protocol in words.
fn prepared(
    args: &ContextArgs,
    kind: Kind,
    path: &std::path::Path,
    vectors: Option<&Vectors<'_>>,
) -> Result<(Dataset, String), Failure> {
    let mut dataset = Dataset::read(kind, path)?;
    let protocol = match kind {
        Kind::Xquad => "all articles are one haystack, a document each".to_owned(),
        Kind::Qmsum => "a meeting is a document, a line a turn".to_owned(),
        Kind::Own => "the documents of the file".to_owned(),
        Kind::Nq => {
            let dense = if vectors.is_some() {
                "by the embedder"
            } else {
                "by BM25, there being no embedder"
            };
            format!(
                "the gold passage and {} distractors of the file's other passages by BM25, {} {dense}; none holds an answer",
                dataset::LEXICAL_DISTRACTORS,
                dataset::DENSE_DISTRACTORS,
            )
        }
    };
    if kind == Kind::Nq {
        let all = dataset.clone();
        dataset.sample(args.limit, args.seed);
        dataset = dataset::distract(&all, dataset.questions, vectors, args.seed)?;
    } else {
        dataset.sample(args.limit, args.seed);
    }
    Ok((dataset, protocol))
}

/// The budgets, and the index of the one whose selection is looked at for ranks.
fn budgets(args: &ContextArgs, kind: Kind) -> (Vec<Budget>, usize) {
    let tokens = TOKENS.map(Budget::Tokens);
    let (default, ranked) = match kind {
        Kind::Xquad => (tokens.to_vec(), Budget::Tokens(512)),
        Kind::Nq => (NQ_SHARES.map(Budget::Share).to_vec(), Budget::Share(0.5)),
        Kind::Qmsum => (SHARES.map(Budget::Share).to_vec(), Budget::Share(0.2)),
        Kind::Own => ([&tokens[..4], &SHARES.map(Budget::Share)].concat(), Budget::Share(0.3)),
    };
    let budgets = if args.budgets.is_empty() { default } else { args.budgets.clone() };
    let ranked = budgets.iter().position(|budget| *budget == ranked);
    let last = budgets.len() - 1;
    (budgets, ranked.unwrap_or(last))
}

/// Lets the served model read, if anything was asked of it.
fn read(
    figures: &mut Figures,
    args: &ContextArgs,
    counts: Counts,
    model: &Resolved,
    (dataset, kind, file, ours): (&Dataset, Kind, &ModelFile, &Ours<'_>),
) -> Result<(), Failure> {
    if counts.likelihood + counts.answers + counts.citations == 0 {
        return Ok(());
    }
    let settings = local::EngineSettings {
        device: args.device,
        isa: args.isa.clone(),
        threads: args.threads as usize,
        kv_type: KvType::F16,
        kv_tokens: 0,
        config: EngineConfig {
            max_running: 1,
            // Nobody waits: a step takes as long as its tokens do.
            max_step_seconds: 3600.0,
            prefix_cache: false,
            ..EngineConfig::default()
        },
    };
    let reader = Reader::load(dataset, kind, file, model, settings, args.seed, ours)?;
    local::block_on(async {
        if counts.likelihood > 0 {
            figures.likelihood = Some(reader.likelihood(counts.likelihood).await?);
        }
        if counts.answers > 0 {
            figures.answers = Some(reader.answers(counts.answers).await?);
        }
        if counts.citations > 0 {
            figures.citations = Some(reader.citations(counts.citations).await?);
        }
        Ok(())
    })
}

fn print(figures: &Figures, tables: &[report::Table]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let Settings {
        dataset,
        path,
        questions,
        haystacks,
        documents,
        context_tokens,
        protocol,
        model,
        ..
    } = &figures.settings;
    writeln!(
        out,
        "{dataset} ({path}): {questions} questions, {haystacks} haystacks, {documents} documents, \
         {context_tokens:.0} {model} tokens a haystack"
    )?;
    writeln!(out, "{protocol}; zsum: {}", figures.settings.zsum.label())?;
    for warning in &figures.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for table in tables {
        out.write_all(tables::text(table).as_bytes())?;
    }
    Ok(())
}
