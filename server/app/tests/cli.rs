//! The commands as a person meets them: help, errors, exit codes, what goes to which stream.
//! Nothing here fetches or computes; homes are empty.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `pith` with an empty home and no pip.
fn pith(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PITH_HOME", home)
        .env("PYTHON", home.join("no-python"))
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    pith(home.path()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_command_and_is_data() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let text = stdout(&output);
    for command in
        ["serve", "ask", "demo", "pull", "models", "bench", "eval", "doctor", "completions"]
    {
        assert!(text.contains(&format!("\n  {command} ")), "{command} in {text}");
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && help.stderr.is_empty(), "{command}: {}", stderr(&help));
    }
    assert!(text.contains("PITH_HOME") && text.contains("Exit codes"), "{text}");
}

#[test]
fn wrong_usage_leaves_with_64() {
    for arguments in [
        &["frobnicate"][..],
        &["ask", "question"],
        &["demo", "--budget", "0"],
        &["eval"],
        &["eval", "context"],
        &["eval", "context", "--dataset", "xquad"],
        &["eval", "context", "--dataset", "squad", "--path", "file"],
        &["eval", "context", "--dataset", "file.jsonl", "--budgets", "64,0"],
        &["bench", "serve", "--rate", "1", "--concurrency", "2"],
        &["bench", "serve", "--burstiness", "2"],
        &["bench", "serve", "--slo", "itl:20"],
        &["bench", "serve", "--prompts", "file"],
        &["bench", "serve", "--isa", "mmx"],
        &["bench", "serve", "--address", "http://[::1]:9", "--device", "cpu"],
        &["bench", "offline", "--device", "gpu"],
        &["bench", "device", "--device", "cpu"],
        &["bench", "device", "--shape", "llama"],
        &["serve", "--device", "cuda:x"],
        &["ask", "question", "file", "--endpoint", "http://[::1]:9", "--device", "cpu"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn a_card_that_is_not_here_cannot_be_measured() {
    for arguments in [
        &["bench", "device", "--device", "cuda:63"][..],
        &["bench", "offline", "--device", "cuda:63", "--random-weights", "tiny"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("no device") && text.contains("\nhint: "), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_unknown_model_gets_a_hint() {
    for arguments in [
        &["pull", "smolm2"][..],
        &["demo", "--model", "smolm2"],
        &["bench", "serve", "--model", "smolm2"],
        &["eval", "perplexity", "Cargo.toml", "--model", "smolm2"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: no model is called \"smolm2\""), "{text}");
        assert!(text.contains("\nhint: did you mean smollm2?"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_python_a_pull_says_so_and_leaves_no_model() {
    let home = tempfile::tempdir().unwrap();
    let output = pith(home.path()).args(["pull", "smollm2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: Python was not found"), "{}", stderr(&output));
    assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
    assert!(!home.path().join("models").exists());
}

#[test]
fn nothing_is_coloured_off_a_terminal() {
    for no_color in ["", "1"] {
        let home = tempfile::tempdir().unwrap();
        let output =
            pith(home.path()).args(["pull", "nothing"]).env("NO_COLOR", no_color).output().unwrap();
        assert!(!output.stderr.contains(&0x1b), "{}", stderr(&output));
    }
}

#[test]
fn models_are_listed_as_text_and_json() {
    let text = stdout(&run(&["models"]));
    assert!(text.starts_with("NAME"), "{text}");
    let line = text.lines().find(|line| line.starts_with("smollm2 ")).unwrap();
    assert!(
        line.contains("98.4 MB") && line.contains(" no ") && line.contains("Apache-2.0"),
        "{line}"
    );
    let models: Value = serde_json::from_slice(&run(&["models", "--json"]).stdout).unwrap();
    let gemma =
        models.as_array().unwrap().iter().find(|model| model["name"] == "gemma-3-270m").unwrap();
    assert_eq!(gemma["present"], false);
    assert_eq!(gemma["licence"], "Gemma Terms of Use");
    assert!(
        gemma["path"].as_str().unwrap().ends_with("models/gemma-3-270m/gemma-3-270m-q4_k_m.gguf")
    );
}

#[test]
fn verifying_finds_damage() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("models/smollm2-135m-instruct");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"), "not a model").unwrap();
    let output = pith(home.path()).args(["models", "--verify"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("damaged"), "{}", stdout(&output));
    assert!(stderr(&output).contains("`pith pull smollm2-135m-instruct`"), "{}", stderr(&output));
}

#[test]
fn the_doctor_fails_where_something_needed_is_missing() {
    let output = run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let check = |name: &str| {
        found["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name)
            .unwrap()
            .clone()
    };
    for name in [
        "system", "cpu", "isa", "cores", "memory", "gpu", "cubins", "nvrtc", "cublaslt", "cache",
        "models",
    ] {
        assert!(!check(name)["found"].as_str().unwrap().is_empty(), "{name}");
    }
    assert_eq!(check("pip")["status"], "fail");
    assert!(check("pip")["hint"].as_str().unwrap().contains("PYTHON"));
}

#[test]
fn the_doctor_is_content_where_pip_is() {
    let home = tempfile::tempdir().unwrap();
    let python = home.path().join("python");
    fs::write(&python, "#!/bin/sh\necho 'pip 99.1 from nowhere'\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let output = pith(home.path()).arg("doctor").env("PYTHON", &python).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("pip 99.1"), "{}", stdout(&output));
}

#[test]
fn completions_come_for_each_shell() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef pith"), ("fish", "complete -c pith")]
    {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains(sign), "{shell}");
    }
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let mut child = pith(home.path())
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{:?} {}",
        output.status,
        stderr(&output)
    );
}

#[test]
fn files_that_cannot_be_asked_about_are_named() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(home.path().join("empty"), "").unwrap();
    for (name, hint) in [("absent", "check the path"), ("binary", "UTF-8"), ("empty", "is empty")] {
        let file = home.path().join(name);
        let output = pith(home.path()).arg("ask").arg("why?").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            stderr(&output).contains(name) && stderr(&output).contains(hint),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn an_endpoint_without_a_server_is_a_plain_error() {
    // Bound and never accepted from: its port answers nobody once it is dropped.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("text");
    fs::write(&file, "some text").unwrap();
    let endpoint = format!("http://{address}");
    let output = pith(home.path())
        .arg("ask")
        .arg("why?")
        .arg(&file)
        .args(["--endpoint", &endpoint])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot connect"), "{}", stderr(&output));
    assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
}

/// A pull that is killed outright while pip works leaves nothing under a final name, and its lock
/// does not outlive it.
#[test]
fn a_killed_pull_blocks_nobody() {
    let home = tempfile::tempdir().unwrap();
    let python = home.path().join("python");
    let begun = home.path().join("begun");
    fs::write(
        &python,
        format!(
            "#!/bin/sh\necho half > \"$TMPDIR/half\"\n: > '{}'\nexec sleep 5\n",
            begun.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = pith(home.path())
        .args(["pull", "smollm2"])
        .env("PYTHON", &python)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while !begun.exists() {
        assert!(Instant::now() < patience, "pip was never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!home.path().join("models").exists());
    let started = Instant::now();
    let output = pith(home.path()).args(["pull", "smollm2"]).output().unwrap();
    assert!(stderr(&output).contains("error: Python was not found"), "{}", stderr(&output));
    assert!(started.elapsed() < Duration::from_secs(4), "it waited for a lock of the dead");
    assert!(
        !home.path().join("partial/smollm2-135m-instruct/incoming").exists(),
        "half a wheel was left"
    );
}
