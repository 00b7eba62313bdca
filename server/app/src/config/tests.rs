use std::collections::HashMap;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pith.toml");
    std::fs::write(&path, file).unwrap();
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    Config::load(
        Some(&path),
        |name| environment.get(name).map(|text| (*text).to_owned()),
        flags.parse().unwrap(),
    )
}

#[test]
fn the_default_is_valid() {
    assert!(Config::default().check().is_ok());
}

#[test]
fn later_layers_win() {
    let file = "[limits]\nmax_in_flight = 7\nmax_streams = 8\n[model]\nname = 'file'";
    let environment =
        [("PITH_LIMITS_MAX_STREAMS", "9"), ("PITH_MODEL_NAME", "environment"), ("PITH_HOME", "/x")];
    let config = load(file, &environment, "[model]\nname = 'flag'").unwrap();
    assert_eq!(config.limits.max_in_flight, 7);
    assert_eq!(config.limits.max_streams, 9);
    assert_eq!(config.model.name, "flag");
    assert_eq!(config.limits.max_connections, Config::default().limits.max_connections);
}

#[test]
fn errors_name_what_is_wrong() {
    let says = |result: Result<Config, ConfigError>, words: &[&str]| {
        let message = result.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    };
    says(load("[limits]\nmax_inflight = 1", &[], ""), &["pith.toml", "max_inflight"]);
    says(load("[limits]\nmax_in_flight = 0", &[], ""), &["limits.max_in_flight", "1 to 100000"]);
    says(load("", &[("PITH_CPU_THREADS", "many")], ""), &["PITH_CPU_THREADS", "whole number"]);
    says(load("[engine]\nstep_stretch = nan", &[], ""), &["engine.step_stretch"]);
    says(load("[engine]\nspeculation = 'on'", &[], ""), &["speculation", "auto", "off"]);
    says(load("[engine]\ndevice = 'gpu'", &[], ""), &["device", "cuda:N"]);
    says(load("", &[("PITH_ENGINE_DEVICE", "cuda:x")], ""), &["cuda:x", "cuda:N"]);
    says(load("[context]\nembedder_device = 'gpu'", &[], ""), &["embedder_device", "cuda:N"]);
    says(load("[context]\nembed_kib = 2000000", &[], ""), &["context.embed_kib", "0 to 1048576"]);
    says(load("[engine]\nmax_draft_tokens = 0", &[], ""), &["engine.max_draft_tokens", "1 to 32"]);
    says(load("[[tenants]]\nname = 'a'", &[], ""), &["tenants[0].key"]);
    says(load("[[tenants]]\nname = 'a b'\nkey = '12345678'", &[], ""), &["tenants[0].name"]);
    let twice =
        "[[tenants]]\nname = 'a'\nkey = '12345678'\n[[tenants]]\nname = 'a'\nkey = '87654321'";
    says(load(twice, &[], ""), &["tenants[1].name", "taken"]);
    says(load("[[tenants]]\nname = 'a'\nkey_sha256 = 'xyz'", &[], ""), &["tenants[0].key_sha256"]);
}

#[test]
fn secrets_are_not_shown() {
    let config = load("[[tenants]]\nname = 'a'\nkey = 'open sesame'", &[], "").unwrap();
    assert_eq!(config.tenants[0].key.as_ref().unwrap().expose(), "open sesame");
    for shown in [config.redacted(), format!("{config:?}")] {
        assert!(!shown.contains("sesame") && shown.contains("[redacted]"), "{shown}");
    }
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config = Config::default();
    assert_eq!(load(&config.redacted(), &[], "").unwrap(), config);
}
