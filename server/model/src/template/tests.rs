//! Templates of known families against what Jinja itself makes of them, and hostile ones.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::*;

/// 2026-11-22 10:30:00 UTC.
fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_343_400)
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::with_clock(source, "<s>", "</s>", clock).unwrap()
}

fn chat(messages: &[(&str, &str)]) -> Vec<Message> {
    let message = |&(role, content): &(&str, &str)| Message {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    messages.iter().map(message).collect()
}

fn render(source: &str) -> Result<String, TemplateError> {
    template(source).render(&chat(&[("user", "hello")]), true)
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `.txt` files are what Jinja 3 writes, set up as transformers does (`render.py` beside them).
#[test]
fn known_templates_render_as_jinja_renders_them() {
    let chats = [
        ("user", chat(&[("user", "Hello <|you|> & 'me'")])),
        (
            "turns",
            chat(&[
                ("user", " What is 2 + 2? "),
                ("assistant", "<think>\nadd\n</think>\n\n4 "),
                ("user", "and\n3 + 3?"),
            ]),
        ),
        (
            "system",
            chat(&[
                ("system", "Be brief. "),
                ("user", "Café? \u{2603}"),
                ("assistant", "Oui."),
                ("user", "a banana"),
            ]),
        ),
    ];
    for family in ["chatml", "llama3", "mistral", "qwen2", "qwen3", "gemma", "features"] {
        let template = template(&fixture(&format!("{family}.jinja")));
        for (name, messages) in &chats {
            for (open, suffix) in [(false, ""), (true, ".generate")] {
                let expected = fixture(&format!("{family}.{name}{suffix}.txt"));
                let rendered = template.render(messages, open).unwrap();
                assert_eq!(rendered, expected, "{family}.{name}{suffix}");
            }
        }
    }
}

#[test]
fn roles_that_do_not_alternate_are_refused_in_the_templates_words() {
    let twice = chat(&[("user", "one"), ("user", "two")]);
    for family in ["mistral", "gemma"] {
        match template(&fixture(&format!("{family}.jinja"))).render(&twice, true) {
            Err(TemplateError::Refused(why)) => assert!(why.contains("must alternate"), "{why}"),
            other => panic!("{family}: {other:?}"),
        }
    }
}

#[test]
fn what_does_not_parse_is_a_syntax_error() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(1_000), ")".repeat(1_000));
    let unknown = [
        "{% for",
        "{{ 1 +",
        "{% endif %}",
        "{{ f(*args) }}",
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% for a in b recursive %}{% endfor %}",
        "{% filter upper %}x{% endfilter %}",
        "{% block a %}{% endblock %}",
        "{% for a in b %}{% macro m() %}{% endmacro %}{% endfor %}",
        &deep,
    ];
    for source in unknown {
        let result = ChatTemplate::new(source, "", "");
        assert!(matches!(result, Err(TemplateError::Syntax(_))), "{source}: {result:?}");
    }
    let long = "x".repeat(MAX_SOURCE + 1);
    assert_eq!(ChatTemplate::new(&long, "", "").unwrap_err(), TemplateError::Limit("source"));
}

#[test]
fn undefined_values_are_empty_but_have_no_attributes() {
    assert_eq!(render("[{{ missing }}{{ messages[0].missing }}]").unwrap(), "[]");
    assert!(matches!(render("{{ missing.attribute }}"), Err(TemplateError::Refused(_))));
}

/// Loops without end, output without end, memory without end: each is cut off, and soon.
#[test]
fn hostile_templates_are_cut_off() {
    let forever = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
    let doubled = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set ns.x = ns.x OP ns.x %}{% endfor %}";
    let captured = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}";
    let raw = format!(
        "{{% set x %}}{{% for i in range(90000) %}}{}{{% endfor %}}{{% endset %}}",
        "x".repeat(200_000)
    );
    let nested = "{% set ns = namespace(x=['abcdefgh']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}";
    let shared = format!("{}{{{{ x }}}}", "{% set x = [x, x, x, x, x, x, x, x] %}".repeat(12));
    let hostile = [
        forever.to_owned(),
        "{% for i in range(90000) %}{{ 'x' * 0 }}{% endfor %}".to_owned(),
        "{% for i in range(90000) %}{{ messages[0].content ~ '0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789' }}{% endfor %}".repeat(9),
        doubled.replace("OP", "~"),
        doubled.replace("OP", "+"),
        captured.to_owned(),
        raw,
        nested.to_owned(),
        shared,
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(20000) %}{% set ns.x = [ns.x] %}{% endfor %}".to_owned(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% macro f(x) %}{{ f(x ~ x) }}{{ f(x) }}{% endmacro %}{{ f('abcdefgh') }}".to_owned(),
        "{{ 'abc' * 99999999 }}".to_owned(),
        "{{ [1] * 99999999 }}".to_owned(),
        "{% set x = 'a'.replace('', 'b' ~ messages[0].content) %}{% for i in range(90000) %}{% set x = x.replace('', x) %}{% set x = x|replace('', x) %}{% endfor %}{{ f() }}".to_owned(),
        "{{ range(100000)|list|join('0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789') }}".to_owned(),
        "{{ '%999999999d'|format(1) }}".to_owned(),
        "{{ '{:999999999}'.format(1) }}".to_owned(),
        "{{ [[[[]]]]|tojson(indent=999999999) }}".to_owned(),
        "{{ 'a'|indent(999999999) }}".to_owned(),
        "{{ range(999999999) }}".to_owned(),
        "{% set ns = namespace(x=messages) %}{% for i in range(90000) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
    ];
    for source in hostile {
        let start = Instant::now();
        let shown = source.chars().take(120).collect::<String>();
        match render(&source) {
            Err(TemplateError::Limit(_) | TemplateError::Refused(_)) => {}
            other => panic!("{shown}: {:?}", other.map(|text| text.len())),
        }
        // Generous: unoptimised dependencies on a busy machine.
        assert!(start.elapsed() < Duration::from_secs(10), "{shown}: {:?}", start.elapsed());
    }
}

#[test]
fn output_is_bounded_by_what_the_messages_say() {
    let repeats = |times: usize| {
        let source = "{{ messages[0].content }}".repeat(times);
        template(&source).render(&chat(&[("user", &"x".repeat(4 << 20))]), true)
    };
    assert_eq!(repeats(4).unwrap().len(), 16 << 20);
    assert_eq!(repeats(6), Err(TemplateError::Limit("output")));
}

#[test]
fn long_chats_are_within_the_limits() {
    let turns = (0..2_000).map(|turn| Message {
        role: if turn % 2 == 0 { "user" } else { "assistant" }.to_owned(),
        content: "word ".repeat(200),
    });
    let turns = turns.collect::<Vec<_>>();
    for family in ["chatml", "llama3", "mistral", "qwen2", "qwen3", "gemma"] {
        let rendered = template(&fixture(&format!("{family}.jinja"))).render(&turns[..1_999], true);
        let rendered = rendered.unwrap_or_else(|error| panic!("{family}: {error}"));
        assert!(rendered.len() > 1_999 * 999, "{family}");
    }
}
