//! Asking a server and showing what it answers: shared by `pith ask` and `pith demo`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use pith_client::{Client, Event, v1};
use serde::Serialize;

use super::Failure;
use super::lines::{line_of, one_line};

/// Most characters of a quoted source on a terminal.
const QUOTED_CHARS: usize = 160;

/// A question about documents.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) documents: Vec<v1::Document>,
    /// Empty: the only one served.
    pub(super) model: String,
    /// Tokens.
    pub(super) budget: u32,
    pub(super) max_tokens: u32,
    /// Choose by words alone, whether or not there is an embedder: vectors of long documents take a while.
    pub(super) words_alone: bool,
}

impl Question {
    fn request(&self) -> v1::GenerateRequest {
        v1::GenerateRequest {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            documents: self.documents.clone(),
            policy: Some(v1::CompressionPolicy {
                mode: v1::CompressionMode::Retrieve.into(),
                budget: Some(v1::compression_policy::Budget::MaxContextTokens(self.budget)),
                dense_weight: self.words_alone.then_some(0.0),
                ..Default::default()
            }),
            stop: Some(v1::StopConditions {
                max_tokens: Some(self.max_tokens),
                ..Default::default()
            }),
            output: Some(v1::OutputOptions {
                offset_unit: v1::OffsetUnit::Utf8Byte.into(),
                cite: true,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A document as it was sent.
    fn file(&self, document: &str) -> Option<&[u8]> {
        let known = self.documents.iter().find(|known| known.id == document)?;
        Some(if known.text.is_empty() { &known.blob } else { known.text.as_bytes() })
    }
}

/// A whole answer, as JSON has it. Offsets are bytes.
#[derive(Debug, Serialize)]
pub(super) struct Answered {
    pub(super) answer: String,
    pub(super) sources: Vec<Source>,
    pub(super) context: Context,
    pub(super) finish_reason: String,
    pub(super) usage: Usage,
    pub(super) seconds: Seconds,
}

/// Where a sentence of the answer comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Source {
    pub(super) document: String,
    /// Line of the file it begins on; 0 where pages say it better.
    pub(super) line: usize,
    /// Page of the file it begins on; 0 where lines say it better.
    pub(super) page: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) answer_start: u64,
    pub(super) answer_end: u64,
}

/// What became of the documents.
#[derive(Debug, Serialize)]
pub(super) struct Context {
    pub(super) mode: &'static str,
    pub(super) reason: String,
    pub(super) tokens_before: u32,
    pub(super) tokens_after: u32,
    pub(super) budget_tokens: u32,
    pub(super) kept: Vec<Span>,
    pub(super) dropped: Vec<Span>,
    pub(super) stages: Vec<Stage>,
    pub(super) warnings: Vec<String>,
}

/// A stretch of a document.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    pub(super) document: String,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Time of a stage.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) seconds: f64,
}

/// Tokens.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) completion_tokens: u32,
}

/// Time, by part.
#[derive(Debug, Serialize)]
pub(super) struct Seconds {
    pub(super) prepare: f64,
    pub(super) queue: f64,
    pub(super) prefill: f64,
    pub(super) decode: f64,
    pub(super) total: f64,
}

/// Asks; hands text to `show` as it comes.
pub(super) async fn ask(
    client: &Client,
    question: &Question,
    mut show: impl FnMut(&str) -> io::Result<()>,
) -> Result<Answered, Failure> {
    let mut stream = client.generate(question.request()).await?;
    let (mut answer, mut sources) = (String::new(), Vec::new());
    let (mut report, mut last) = (v1::CompressionReport::default(), v1::Final::default());
    while let Some(event) = stream.next().await? {
        match event {
            Event::Report(came) => report = came,
            Event::Tokens(chunk) => {
                show(&chunk.text)?;
                answer.push_str(&chunk.text);
            }
            Event::Citation(citation) => sources.extend(cited(question, &citation)),
            Event::Final(came) => last = came,
        }
    }
    Ok(Answered {
        answer,
        sources,
        context: Context::from(report),
        finish_reason: last
            .finish_reason()
            .as_str_name()
            .trim_start_matches("FINISH_REASON_")
            .to_lowercase(),
        usage: Usage::from(last.usage.unwrap_or_default()),
        seconds: Seconds::from(last.timings.unwrap_or_default()),
    })
}

fn cited(question: &Question, citation: &v1::Citation) -> Vec<Source> {
    let source = |source: &v1::Source| {
        let span = source.span.clone().unwrap_or_default();
        let original = source.original.unwrap_or_default();
        // Of an extracted document the line is that of its source.
        let start = if source.original.is_some() { original.start } else { span.start };
        let line = || {
            let file = question.file(&span.document_id).unwrap_or_default();
            line_of(file, usize::try_from(start).unwrap_or(usize::MAX))
        };
        Source {
            line: if original.first_page > 0 { 0 } else { line() },
            page: original.first_page,
            document: span.document_id,
            start: span.start,
            end: span.end,
            text: source.cited_text.clone(),
            score: source.score,
            answer_start: citation.answer_start,
            answer_end: citation.answer_end,
        }
    };
    citation.sources.iter().map(source).collect()
}

impl From<v1::CompressionReport> for Context {
    fn from(report: v1::CompressionReport) -> Self {
        let mode = match report.mode_used() {
            v1::CompressionMode::Retrieve => "retrieve",
            v1::CompressionMode::None | v1::CompressionMode::Unspecified => "none",
        };
        let span =
            |span: v1::Span| Span { document: span.document_id, start: span.start, end: span.end };
        Self {
            mode,
            reason: report.reason,
            tokens_before: report.tokens_before,
            tokens_after: report.tokens_after,
            budget_tokens: report.budget_tokens,
            kept: report.kept.into_iter().filter_map(|kept| kept.span.map(span)).collect(),
            dropped: report.dropped.into_iter().map(span).collect(),
            stages: report
                .stages
                .into_iter()
                .map(|stage| Stage { name: stage.stage, seconds: stage.seconds })
                .collect(),
            warnings: report.warnings,
        }
    }
}

impl From<v1::Usage> for Usage {
    fn from(usage: v1::Usage) -> Self {
        let v1::Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = usage;
        Self { prompt_tokens, cached_tokens, completion_tokens }
    }
}

impl From<v1::Timings> for Seconds {
    fn from(timings: v1::Timings) -> Self {
        Self {
            prepare: timings.prepare_seconds,
            queue: timings.queue_seconds,
            prefill: timings.prefill_seconds,
            decode: timings.decode_seconds,
            total: timings.total_seconds,
        }
    }
}

impl Answered {
    /// The sources, each once, in the order of the answer.
    pub(super) fn sources_text(&self) -> String {
        if self.sources.is_empty() {
            return "Sources: no sentence of the answer was found in the documents\n".to_owned();
        }
        let mut text = "Sources:\n".to_owned();
        let mut seen = HashSet::new();
        let once = self
            .sources
            .iter()
            .filter(|source| seen.insert((&source.document, source.start, source.end)));
        for (index, source) in once.enumerate() {
            let Source { document, line, page, text: quoted, .. } = source;
            let quoted = one_line(quoted, QUOTED_CHARS);
            let place = match page {
                0 => format!("{document}:{line}"),
                page => format!("{document}, page {page}"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  [{}] {place}  \"{quoted}\"", index + 1);
        }
        text
    }

    /// What was kept and dropped, and how long each stage took.
    pub(super) fn report_text(&self) -> String {
        let Context { tokens_before, tokens_after, budget_tokens, kept, dropped, .. } =
            &self.context;
        let mut lines = vec![
            format!(
                "context: {tokens_before} -> {tokens_after} tokens (budget {budget_tokens}): {}",
                self.context.reason
            ),
            format!(
                "kept: {} spans, {} bytes; dropped: {} spans, {} bytes",
                kept.len(),
                bytes(kept),
                dropped.len(),
                bytes(dropped)
            ),
        ];
        lines.extend(self.context.warnings.iter().map(|warning| format!("warning: {warning}")));
        let stages: Vec<String> = self
            .context
            .stages
            .iter()
            .map(|stage| format!("{} {}", stage.name, duration(stage.seconds)))
            .collect();
        let Seconds { prepare, queue, prefill, decode, total } = &self.seconds;
        let times = [
            ("prepare", prepare),
            ("queue", queue),
            ("prefill", prefill),
            ("decode", decode),
            ("total", total),
        ];
        let times: Vec<String> =
            times.iter().map(|(name, seconds)| format!("{name} {}", duration(**seconds))).collect();
        lines.push(format!("stages: {}", stages.join(", ")));
        lines.push(format!("times: {}", times.join(", ")));
        let Usage { prompt_tokens, cached_tokens, completion_tokens } = self.usage;
        let computed = prompt_tokens.saturating_sub(cached_tokens);
        lines.push(format!(
            "tokens: prompt {prompt_tokens} ({cached_tokens} cached), answer {completion_tokens} ({}); prefill {}, decode {}",
            self.finish_reason,
            rate(computed, *prefill),
            // The first token comes out of the prefill.
            rate(completion_tokens.saturating_sub(1), *decode),
        ));
        lines.join("\n") + "\n"
    }
}

fn bytes(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.end.saturating_sub(span.start)).sum()
}

fn rate(tokens: u32, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{:.1} tok/s", f64::from(tokens) / seconds)
    } else {
        "not measured".to_owned()
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// Shows text on standard output as it comes.
pub(super) fn stream_out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(sources: Vec<Source>) -> Answered {
        Answered {
            answer: "Yes.".to_owned(),
            sources,
            context: Context::from(v1::CompressionReport {
                tokens_before: 90,
                tokens_after: 10,
                kept: vec![v1::KeptSpan {
                    span: Some(v1::Span { document_id: "a".to_owned(), start: 2, end: 7 }),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            finish_reason: "stop".to_owned(),
            usage: Usage { prompt_tokens: 30, cached_tokens: 10, completion_tokens: 11 },
            seconds: Seconds { prepare: 0.0, queue: 0.0, prefill: 0.5, decode: 2.0, total: 2.5 },
        }
    }

    fn source(start: u64) -> Source {
        Source {
            document: "a".to_owned(),
            line: 1,
            page: 0,
            start,
            end: start + 5,
            text: "hello".to_owned(),
            score: 1.0,
            answer_start: 0,
            answer_end: 4,
        }
    }

    #[test]
    fn a_source_cited_twice_is_listed_once() {
        let text = answered(vec![source(2), source(2), source(9)]).sources_text();
        assert_eq!(text, "Sources:\n  [1] a:1  \"hello\"\n  [2] a:1  \"hello\"\n");
    }

    #[test]
    fn rates_leave_out_what_was_cached_and_the_first_token() {
        let text = answered(Vec::new()).report_text();
        assert!(text.contains("context: 90 -> 10 tokens"), "{text}");
        assert!(text.contains("kept: 1 spans, 5 bytes"), "{text}");
        assert!(text.contains("prefill 40.0 tok/s, decode 5.0 tok/s"), "{text}");
    }

    #[test]
    fn a_source_names_its_line() {
        let question = Question {
            prompt: String::new(),
            documents: vec![v1::Document {
                id: "a".to_owned(),
                text: "one\ntwo".to_owned(),
                ..Default::default()
            }],
            model: String::new(),
            budget: 1,
            max_tokens: 1,
            words_alone: false,
        };
        let span = v1::Span { document_id: "a".to_owned(), start: 4, end: 7 };
        let source = v1::Source {
            span: Some(span),
            cited_text: "two".to_owned(),
            score: 1.0,
            original: None,
        };
        let sources = cited(
            &question,
            &v1::Citation { answer_start: 0, answer_end: 3, sources: vec![source] },
        );
        assert_eq!((sources[0].line, sources[0].text.as_str()), (2, "two"));
    }
}
