//! `pith demo`

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use pith_client::{Client, v1};

use super::answer::{Question, ask, stream_out};
use super::{Failure, local};
use crate::hub::{self, Hub, HubError};

/// The document of the catalogue that is asked about.
const DOCUMENT: &str = "trac-guide";
/// A question that one passage of it answers.
const QUESTION: &str = "How is a CamelCase word with no corresponding Wiki page rendered?";

/// Arguments of `pith demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The question
    #[arg(long, default_value = QUESTION)]
    question: String,
    /// A name from `pith models`, a GGUF file or a folder of safetensors
    #[arg(long, value_name = "NAME|PATH", default_value = hub::DEFAULT_MODEL)]
    model: String,
    /// Most tokens of the document that reach the model; so small a one reads little at once
    #[arg(long, value_name = "TOKENS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    budget: u32,
    /// Most tokens of the answer
    #[arg(long, value_name = "TOKENS", default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
}

pub(super) fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let hub = Hub::from_env()?;
    hub.resolve(&args.model)?;
    let entry = hub.catalogue().find(DOCUMENT).ok_or_else(|| hub.catalogue().unknown(DOCUMENT))?;
    let path = hub.pull(entry)?.path;
    let text = std::fs::read_to_string(&path).map_err(|source| HubError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let document = v1::Document { id: format!("{DOCUMENT}.txt"), text, ..Default::default() };
    let bytes = document.text.len();
    let question = Question {
        prompt: args.question,
        documents: vec![document],
        model: String::new(),
        budget: args.budget,
        max_tokens: args.max_tokens,
        // Nobody asks this server again: vectors of all of the document would be made for one question, which its words
        // answer in a thousandth of the time.
        words_alone: true,
    };
    let mut settings = local::settings(&args.model)?;
    settings.context.embedder.clear();
    let answered = local::with_server_of(settings, async |running| {
        let client = Client::connect(running.endpoint()).await?;
        let mut stdout = io::stdout();
        writeln!(stdout, "Document: {} ({bytes} bytes, licence {})", entry.about, entry.licence)?;
        writeln!(stdout, "Question: {}\n", question.prompt)?;
        ask(&client, &question, stream_out).await
    })?;
    let mut stdout = io::stdout().lock();
    write!(stdout, "\n\n{}\n{}", answered.sources_text(), answered.report_text())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}
