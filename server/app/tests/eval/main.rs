//! `pith eval context` as a person runs it: the set that comes with the project, on a tiny model whose tokens are bytes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

#[path = "../wire/support/tiny.rs"]
mod tiny;

const SET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/context.jsonl");

/// A set small enough for the tiny model to read whole.
const SMALL: &str = r#"{"documents": [{"id": "a", "title": "Boats", "text": "The red boat sank in May. The blue boat lies in the harbour. Nobody sails the green boat."}, {"id": "b", "title": "Towers", "text": "The tower is forty metres tall. Its clock was made in Ferrin. Birds nest in the tower."}], "question": "When did the red boat sink?", "answers": ["in May"], "spans": [{"document": "a", "start": 18, "end": 24}]}
{"question": "How tall is the tower?", "answers": ["forty metres"], "spans": [{"document": "b", "start": 13, "end": 25}]}
{"question": "Where was the clock made?", "answers": ["Ferrin"], "spans": [{"document": "b", "start": 54, "end": 60}]}
"#;

/// Runs `pith eval context` in `folder`, which holds the tiny model.
fn eval(folder: &Path, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("tiny.gguf"), tiny::model()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pith"))
        .env_clear()
        .env("PITH_HOME", folder)
        .current_dir(folder)
        .args(["eval", "context", "--model", "./tiny.gguf", "--embedder", "", "--threads", "1"])
        .args(arguments)
        .args(["--json", "figures.json", "--html", "report.html"])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn figures(folder: &Path, output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&std::fs::read(folder.join("figures.json")).unwrap()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_set_of_the_project_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let budgets = ["256", "1024", "0.1", "0.3"];
    let output = eval(folder.path(), &["--dataset", SET, "--budgets", &budgets.join(",")]);
    let figures = figures(folder.path(), &output);
    assert_eq!(figures["settings"]["questions"], 32);
    assert_eq!(figures["settings"]["documents"], 12);
    for metric in ["span_kept", "answer_kept", "evidence_recall"] {
        for budget in budgets {
            let share = |method: &str| {
                let share = figures[metric][method][budget].as_f64().unwrap();
                assert!((0.0..=1.0).contains(&share), "{metric} {method} {budget}: {share}");
                assert_eq!(figures[method][metric][budget], share);
                share
            };
            let ours = share("pith");
            for method in ["random", "lead"] {
                assert!(ours >= share(method), "{metric} {method} {budget}: {ours}");
            }
            // A few words of the question are enough to find most answers in so little text.
            assert!(budget != "1024" || ours > 0.5 && share("bm25") > 0.5, "{metric}: {ours}");
        }
    }
    for method in ["pith", "zsum", "bm25", "random", "lead"] {
        for budget in budgets {
            let spent = figures[method]["realised"][budget].as_f64().unwrap();
            assert!(spent <= 1.0 && spent > 0.3, "{method} {budget}: {spent}");
        }
        let ndcg = figures[method]["ndcg_at_10"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&ndcg), "{method}: {ndcg}");
    }
    for interval in figures["intervals"].as_array().unwrap() {
        let [low, mean, high] =
            ["low", "mean", "high"].map(|at| interval["difference"][at].as_f64().unwrap());
        assert!(low <= mean && mean <= high, "{interval}");
        let [ours, best] = ["pith", "best"].map(|at| interval[at].as_f64().unwrap());
        assert!((ours - best - mean).abs() < 1e-9, "{interval}");
    }
    // Each metric at each budget and over all of them.
    assert_eq!(figures["intervals"].as_array().unwrap().len(), 3 * (budgets.len() + 1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gold span kept") && text.contains("no embedder"), "{text}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<polyline") && page.contains("How to read this"), "{page}");
}

#[test]
fn what_the_model_reads_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.jsonl"), SMALL).unwrap();
    let reads = ["--likelihood", "3", "--answers", "2", "--citations", "3", "--limit", "3"];
    let output = eval(folder.path(), &[&["--dataset", "small.jsonl"][..], &reads].concat());
    let figures = figures(folder.path(), &output);
    let likelihood = &figures["likelihood"];
    assert_eq!(likelihood["questions"], 3);
    let tokens = |context: &str| likelihood["contexts"][context]["prompt_tokens"].as_f64().unwrap();
    assert!(tokens("full") > tokens("pith") && tokens("pith") > tokens("nothing"), "{likelihood}");
    let ln_p = |context: &str| likelihood["contexts"][context]["ln_p"]["mean"].as_f64().unwrap();
    assert!(ln_p("full") < 0.0);
    let change = likelihood["change"]["pith"]["ln_p"]["mean"].as_f64().unwrap();
    assert!((ln_p("pith") - ln_p("full") - change).abs() < 1e-6, "{likelihood}");
    assert_eq!(figures["answers"]["questions"], 2);
    let exact = figures["answers"]["contexts"]["pith"]["exact_match"]["mean"].as_f64().unwrap();
    // Its weights are random.
    assert_eq!(exact, 0.0);
    let gold = &figures["citations"]["gold_sentence"];
    // Every gold sentence that is kept is found again, word for word.
    assert_eq!(gold["answered"], figures["citations"]["gold_kept"]);
    assert!(gold["sources"].as_u64() > Some(0) && gold["precision"].as_f64() > Some(0.5), "{gold}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("bad.jsonl"),
        SMALL.replacen("\"end\": 25", "\"end\": 2500", 1),
    )
    .unwrap();
    let output = eval(folder.path(), &["--dataset", "bad.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("bad.jsonl line 2: spans[0].end lies outside the text"),
        "{}",
        stderr(&output)
    );
    let output = eval(folder.path(), &["--dataset", "nq"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--dataset nq needs --path"), "{}", stderr(&output));
    let output = eval(folder.path(), &["--dataset", SET, "--limit", "1", "--likelihood", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the model cannot read a context"), "{}", stderr(&output));
    assert!(!folder.path().join("figures.json").exists());
}
