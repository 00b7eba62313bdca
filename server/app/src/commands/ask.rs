//! `pith ask`

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use pith_client::v1;

use super::answer::{Question, ask, stream_out};
use super::{Failure, local};
use crate::config::DeviceChoice;
use crate::hub;

/// Largest file that is read, bytes: what fits the server's default message limit.
const MAX_FILE_BYTES: u64 = 16 << 20;

const PDF: &str = "application/pdf";
/// Ends of the names of source files.
const CODE: &[&str] = &[
    "bash", "c", "cc", "cpp", "cs", "css", "cxx", "dart", "ex", "exs", "go", "h", "hpp", "hs",
    "java", "jl", "js", "json", "jsx", "kt", "lua", "m", "mjs", "ml", "php", "pl", "proto", "py",
    "r", "rb", "rs", "scala", "sh", "sql", "swift", "toml", "ts", "tsx", "yaml", "yml", "zig",
];

/// Arguments of `pith ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question
    question: String,
    /// Files the answer may rest on: text, Markdown, HTML, PDF, source code; - is text on standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    answering: Answering,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    json: bool,
}

/// How to answer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answering")]
pub(super) struct Answering {
    /// Most tokens of the documents that reach the model
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) budget: u32,
    /// Most tokens of the answer
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tokens: u32,
    /// A name from `pith models`, a GGUF file or a folder of safetensors (default: smollm2); with --endpoint, a model it serves
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// What computes: auto (a graphics card if there is one), cpu or cuda:N (default: PITH_ENGINE_DEVICE, else auto)
    #[arg(long, value_name = "DEVICE", conflicts_with = "endpoint")]
    pub(super) device: Option<DeviceChoice>,
    /// A running server, http://HOST:PORT; its key is read from PITH_KEY (default: a server inside this process)
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,
}

pub(super) fn run(args: AskArgs) -> Result<ExitCode, Failure> {
    if args.question.trim().is_empty() {
        return Err(Failure::usage("the question is empty"));
    }
    if args.files.iter().filter(|file| *file == "-").count() > 1 {
        return Err(Failure::usage("standard input can be read once: give - once"));
    }
    let documents = args.files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    let Answering { budget, max_tokens, model, device, endpoint } = args.answering;
    let question = |model: String| Question {
        prompt: args.question,
        documents,
        model,
        budget,
        max_tokens,
        words_alone: false,
    };
    let answered = match endpoint {
        Some(endpoint) => {
            let question = question(model.unwrap_or_default());
            local::block_on(async {
                let mut connect = pith_client::Client::connect(endpoint);
                if let Some(key) = std::env::var("PITH_KEY").ok().filter(|key| !key.is_empty()) {
                    connect = connect.key(key);
                }
                answer(&connect.await?, &question, args.json).await
            })?
        }
        None => {
            let question = question(String::new());
            let model = model.as_deref().unwrap_or(hub::DEFAULT_MODEL);
            // Fetched before the server starts, so that a failure reads as what it is.
            hub::resolve(model)?;
            local::with_server(model, device, async |client| {
                answer(&client, &question, args.json).await
            })?
        }
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &answered)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "\n\n{}", answered.sources_text())?;
        stdout.flush()?;
        // Nobody is left to tell if standard error is closed.
        let _ = write!(io::stderr(), "\n{}", answered.report_text());
    }
    Ok(ExitCode::SUCCESS)
}

async fn answer(
    client: &pith_client::Client,
    question: &Question,
    json: bool,
) -> Result<super::answer::Answered, Failure> {
    if json {
        ask(client, question, |_| Ok(())).await
    } else {
        ask(client, question, stream_out).await
    }
}

/// A file as a document named by its path. What is not UTF-8 is the server's to read; that it can is tried here, before
/// a model is fetched.
fn read(file: &str) -> Result<v1::Document, Failure> {
    let cannot = |error: io::Error| {
        let failure = Failure::new(format!("cannot read {file}: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound => failure.hint("check the path; - reads standard input"),
            _ => failure,
        }
    };
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    if file == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    } else {
        let opened = std::fs::File::open(file).map_err(cannot)?;
        opened.take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    }
    if bytes.is_empty() {
        return Err(Failure::new(format!("{file} is empty")));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::new(format!("{file} is larger than 16 MiB")).hint("split it"));
    }
    let mime = mime_of(file);
    let known = v1::Document { id: file.to_owned(), mime: mime.to_owned(), ..Default::default() };
    let blob = match String::from_utf8(bytes) {
        Ok(text) if mime != PDF => return Ok(v1::Document { text, ..known }),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    };
    pith_context::extract(&blob, mime, &mut || true).map_err(|error| {
        Failure::new(format!("cannot read {file}: {error}"))
            .hint("the file must be UTF-8 text, HTML or a PDF with text in it")
    })?;
    Ok(v1::Document { blob, ..known })
}

/// What a file is, by the end of its name; text if that says nothing.
fn mime_of(file: &str) -> &'static str {
    let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
        "md" | "markdown" => "text/markdown",
        "html" | "htm" => "text/html",
        "xhtml" => "application/xhtml+xml",
        "pdf" => PDF,
        extension if CODE.contains(&extension) => "text/x-source",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        let mimes = ["a.md", "b/C.HTML", "d.pdf", "e.rs", "notes", "-", "f.txt"].map(mime_of);
        assert_eq!(
            mimes,
            [
                "text/markdown",
                "text/html",
                PDF,
                "text/x-source",
                "text/plain",
                "text/plain",
                "text/plain"
            ]
        );
    }

    #[test]
    fn what_is_not_text_goes_as_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            read(path.to_str().expect("a path")).expect("a document")
        };
        let page = b"%PDF-1.4 1 0 obj <</Pages 2 0 R>> 2 0 obj <</Kids [3 0 R]>> 3 0 obj \
            <</Contents 4 0 R /Resources <</Font <</F 5 0 R>>>>>> 4 0 obj <<>> stream\n\
            BT /F 9 Tf (text) Tj ET endstream 5 0 obj <<>> trailer <</Root 1 0 R>>";
        let pdf = file("a.pdf", page);
        assert_eq!((pdf.text.as_str(), pdf.blob.as_slice()), ("", &page[..]));
        let latin = file("a.html", b"<meta charset=latin1>caf\xe9");
        assert_eq!(
            (latin.text.as_str(), latin.blob.as_slice()),
            ("", &b"<meta charset=latin1>caf\xe9"[..])
        );
        assert_eq!(file("a.html", b"<p>x").text, "<p>x");
    }
}
