//! `pith bench` as a person runs it, on a tiny model: over a socket to a server of this process, and on its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::{Output, Stdio};

use pith_server::config::{Secret, Tenant};
use serde_json::Value;

#[path = "../wire/support/mod.rs"]
#[expect(dead_code, reason = "shared with the wire tests, which use all of it")]
mod support;

/// What a server generates by itself before it is ready.
const WARM_UP_TOKENS: u64 = 4;

/// Runs `pith bench` in `folder`, with results and page written there.
async fn bench(folder: &Path, arguments: &[&str], key: Option<&str>) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pith"));
    command
        .env_clear()
        .env("PITH_HOME", folder)
        .env("PITH_CPU_KV_MIB", "64")
        .current_dir(folder)
        .arg("bench")
        .args(arguments)
        .args(["--json", "results.json", "--html", "report.html"])
        .stdin(Stdio::null());
    if let Some(key) = key {
        command.env("PITH_KEY", key);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The results of a run that went well, after a look at its page.
fn results(folder: &Path, output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for element in ["html", "head", "style", "body", "table", "svg", "figure", "div", "ul", "tr"] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
    assert!(page.contains("<polyline"), "{page}");
    for foreign in ["<script", "<link", "src=", "url(", "NaN"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    serde_json::from_slice(&std::fs::read(folder.join("results.json")).unwrap()).unwrap()
}

fn numbers<const N: usize>(result: &Value, fields: [&str; N]) -> [f64; N] {
    fields.map(|field| result[field].as_f64().unwrap_or_else(|| panic!("{field} in {result}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_loops_of_a_running_server_are_measured() {
    let (server, folder) = (support::serve().await, tempfile::tempdir().unwrap());
    let address = server.running.endpoint();
    let arguments = [
        "serve",
        "--address",
        &address,
        "--concurrency",
        "1,4",
        "--requests",
        "12",
        "--prompt-tokens",
        "40",
        "--output-tokens",
        "8",
        "--slo",
        "e2e:60000",
        "--connections",
        "2",
    ];
    let output = bench(folder.path(), &arguments, None).await;
    let results = results(folder.path(), &output);
    assert_eq!(results.len(), 2);
    for (result, concurrency) in results.iter().zip([1.0, 4.0]) {
        let [asked, completed, failed, peak] =
            numbers(result, ["concurrency", "completed", "failed", "peak_concurrency"]);
        assert_eq!((asked, completed, failed, peak), (concurrency, 12.0, 0.0, concurrency));
        // The server's own count: prompts and answers are as long as asked for.
        let [prompt, answers] = numbers(result, ["prompt_tokens_total", "output_tokens_total"]);
        assert_eq!((prompt, answers), (12.0 * 40.0, 12.0 * 8.0));
        let [seconds, rate, good, requests] = numbers(
            result,
            ["seconds", "output_tokens_per_s", "goodput_requests_per_s", "requests_per_s"],
        );
        assert!((rate * seconds - answers).abs() < 1e-6 && good == requests, "{result}");
        for time in ["ttft", "tpot", "itl", "e2e"] {
            let [mean, p50, p90, p95, p99] = ["mean", "p50", "p90", "p95", "p99"]
                .map(|s| result[format!("{time}_ms_{s}")].as_f64().unwrap());
            assert!(mean > 0.0 && p50 <= p90 && p90 <= p95 && p95 <= p99, "{time}: {result}");
        }
        assert!(result["ttft_ms_p50"].as_f64() < result["e2e_ms_p50"].as_f64());
        let steady = &result["steady"];
        assert!(
            steady["requests"].as_u64() >= Some(1)
                && steady["output_tokens_per_s"].as_f64() > Some(0.0)
        );
        // Another process computes: its memory is not told.
        assert!(result["peak_rss_mib"].is_null() && result["request_rate_per_s"].is_null());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("12 of 12 requests") && text.contains("steady window"), "{text}");
    server.idle().await;
    // Two runs of 12 and a warm-up each, and nothing else.
    assert_eq!(server.engine().await.load().generated_tokens, WARM_UP_TOKENS + 26 * 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_loops_share_a_prefix_and_keep_their_rate() {
    let (server, folder) = (support::serve().await, tempfile::tempdir().unwrap());
    let address = server.running.endpoint();
    let arguments = [
        "serve",
        "--address",
        &address,
        "--rate",
        "40,inf",
        "--burstiness",
        "0.5",
        "--max-concurrency",
        "6",
        "--requests",
        "20",
        "--prompts",
        "shared-prefix",
        "--prefix-tokens",
        "64",
        "--prompt-tokens",
        "10",
        "--output-tokens",
        "4",
    ];
    let results = results(folder.path(), &bench(folder.path(), &arguments, None).await);
    let [timed, at_once] = &results[..] else { panic!("{results:?}") };
    for result in [timed, at_once] {
        let [completed, prompt, peak] =
            numbers(result, ["completed", "prompt_tokens_total", "peak_concurrency"]);
        assert_eq!((completed, prompt), (20.0, 20.0 * 74.0));
        assert!(peak <= 6.0 && result["steady"].is_null() && result["concurrency"].is_null());
        // The warm-up computed the prefix: 4 blocks of 16 tokens.
        assert_eq!(result["cached_prompt_tokens_total"], 20 * 64);
    }
    assert_eq!((&timed["request_rate_per_s"], &timed["burstiness"]), (&40.0.into(), &0.5.into()));
    // The last of 20 is sent after 20 / 40 s.
    assert!(timed["seconds"].as_f64() >= Some(0.5), "{timed}");
    assert_eq!(at_once["request_rate_per_s"], "inf");
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_status() {
    let server = support::serve_with(|config| {
        let key = Some(Secret::new("a key of its own"));
        config.tenants =
            vec![Tenant { name: "t".to_owned(), key, key_sha256: None, max_in_flight: Some(1) }];
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let prompts = "{\"prompt\": \"What is it?\"}\n\
                   {\"messages\": [{\"role\": \"user\", \"content\": \"And that?\"}]}\n";
    std::fs::write(folder.path().join("prompts.jsonl"), prompts).unwrap();
    let address = server.running.endpoint();
    let arguments = [
        "serve",
        "--address",
        &address,
        "--rate",
        "inf",
        "--requests",
        "8",
        "--warmup",
        "0",
        "--prompts",
        "file",
        "--prompt-file",
        "prompts.jsonl",
        "--output-tokens",
        "64",
    ];
    let output = bench(folder.path(), &arguments, Some("a key of its own")).await;
    let results = results(folder.path(), &output);
    let [completed, failed] = numbers(&results[0], ["completed", "failed"]);
    assert!(completed >= 1.0 && failed >= 1.0 && completed + failed == 8.0, "{results:?}");
    assert_eq!(results[0]["failures"]["RESOURCE_EXHAUSTED"].as_f64(), Some(failed));
    assert!(results[0]["prompt_tokens"].is_null());

    // Not let in at all: that is no measurement.
    let output = bench(folder.path(), &arguments, Some("the wrong key")).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // No answer: figures are written, and the command fails.
    let too_long = ["serve", "--address", &address, "--requests", "3", "--output-tokens", "4000"];
    let output = bench(folder.path(), &too_long, Some("a key of its own")).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("INVALID_ARGUMENT"), "{text}");
    let json = std::fs::read(folder.path().join("results.json")).unwrap();
    let written: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&written[0]["failed"], &written[0]["completed"]), (&3.into(), &0.into()));
    server.idle().await;
}

#[tokio::test]
async fn a_card_that_is_not_here_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.gguf"), support::tiny::model()).unwrap();
    // No machine of tests has as many cards; most have none, and no driver.
    for command in ["offline", "serve"] {
        let output =
            bench(folder.path(), &[command, "--model", "tiny.gguf", "--device", "cuda:63"], None)
                .await;
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no device") && said.contains("pith doctor"), "{command}: {said}");
    }
}

#[tokio::test]
async fn a_server_of_its_own_and_the_bare_engine_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.gguf"), support::tiny::model()).unwrap();
    let serve = [
        "serve",
        "--model",
        "tiny.gguf",
        "--threads",
        "1",
        "--isa",
        "scalar",
        "--concurrency",
        "3",
        "--requests",
        "6",
        "--prompt-tokens",
        "20",
        "--output-tokens",
        "5",
        "--no-prefix-cache",
    ];
    let output = bench(folder.path(), &serve, None).await;
    let served = results(folder.path(), &output);
    assert_eq!(
        (&served[0]["completed"], &served[0]["output_tokens_total"]),
        (&6.into(), &30.into())
    );
    assert_eq!((&served[0]["prefix_cache"], &served[0]["kv_type"]), (&false.into(), &"f16".into()));
    assert!(served[0]["executor"].as_str().unwrap().contains("scalar"), "{served:?}");
    assert!(served[0]["peak_rss_mib"].as_f64() > Some(1.0) && served[0]["address"].is_null());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(!page.contains("http") && page.contains("--no-prefix-cache"), "{page}");

    let offline = [
        "offline",
        "--model",
        "tiny.gguf",
        "--threads",
        "1",
        "--streams",
        "1,3",
        "--prompt-tokens",
        "20,30",
        "--output-tokens",
        "5",
        "--repeat",
        "1",
    ];
    let output = bench(folder.path(), &offline, None).await;
    let offline = results(folder.path(), &output);
    assert_eq!(offline.len(), 4);
    for result in &offline {
        let [prefill, rate, ttft] =
            numbers(result, ["prefill_tokens_per_s", "output_tokens_per_s", "ttft_ms_p99"]);
        assert!(prefill > 0.0 && rate > 0.0 && ttft > 0.0, "{result}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(!page.contains("http") && page.contains("20 in + 5 out"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_and_random_weights_are_measured_too() {
    let folder = tempfile::tempdir().unwrap();
    let stored =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/fixtures/folders/llama_sharded");
    let few = ["--threads", "1", "--prompt-tokens", "20", "--output-tokens", "5", "--repeat", "1"];
    for (weights, named, random) in [
        (["--random-weights", "tiny"], "tiny (random weights)", true),
        (["--model", stored], "llama_sharded", false),
    ] {
        let arguments = [&["offline"], &weights[..], &few, &["--streams", "1,2"]].concat();
        let output = bench(folder.path(), &arguments, None).await;
        let results = results(folder.path(), &output);
        assert_eq!(results.len(), 2);
        for result in &results {
            assert_eq!(
                (&result["model"], &result["random_weights"]),
                (&named.into(), &random.into())
            );
            let [rate] = numbers(result, ["output_tokens_per_s"]);
            assert!(rate > 0.0, "{result}");
        }
        assert!(String::from_utf8_lossy(&output.stdout).contains(named), "{output:?}");
    }
    for (arguments, said) in [
        (&["offline", "--random-weights", "tiny", "--model", stored][..], "cannot be used with"),
        (&["offline", "--random-weights", "huge"], "llama-3.1-8b, llama-3.2-1b, qwen3-0.6b, tiny"),
    ] {
        let output = bench(folder.path(), arguments, None).await;
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
