//! The memory of chat templates that come with a file.

use pith_model::template::{Message, TemplateError};

use crate::allocation::peak_growth;
use crate::open;
use crate::tiny;

/// Three times what a rendering may make: the longest text, that from which it is made, and slack.
const MOST: usize = 192 << 20;

#[test]
fn a_files_template_renders_with_its_tokens() {
    let model = open(&tiny::model("llama", 1).bytes()).unwrap();
    let message = Message { role: "user".to_owned(), content: "hello".to_owned() };
    let rendered = model.template().unwrap().render(&[message], true);
    assert_eq!(rendered.unwrap(), "<s>hello");
}

#[test]
fn texts_that_double_do_not_fill_the_memory() {
    let growing = [
        "{% set ns.x = ns.x ~ ns.x ~ ns.x ~ ns.x ~ ns.x ~ ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = [ns.x, ns.x]|join %}",
        "{% set ns.x = ns.x.replace('', ns.x) %}",
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}",
        "{% set ns.x = ns.x|tojson %}",
        "{% set ns.x = ns.x * 1000 %}",
    ];
    for step in growing {
        let source = format!(
            "{{% set ns = namespace(x='\"ab\"') %}}{{% for i in range(90) %}}{step}{{% endfor %}}"
        );
        let writer = tiny::model("llama", 1).without("tokenizer.chat_template");
        let model = open(&writer.str("tokenizer.chat_template", &source).bytes()).unwrap();
        let message = Message { role: "user".to_owned(), content: String::new() };
        let render = || model.template().unwrap().render(std::slice::from_ref(&message), true);
        let (result, grown) = peak_growth(render);
        assert!(
            matches!(result, Err(TemplateError::Limit(_) | TemplateError::Refused(_))),
            "{step}: {:?}",
            result.map(|text| text.len())
        );
        assert!(grown < MOST, "{step}: {grown} bytes");
    }
}

/// Constants are folded when a template is compiled, long before it is rendered.
#[test]
fn constants_do_not_fill_the_memory_of_the_compiler() {
    let source = "{{ 'x' * 99999999 }}".repeat(50);
    let writer = tiny::model("llama", 1).without("tokenizer.chat_template");
    let bytes = writer.str("tokenizer.chat_template", &source).bytes();
    let (_, grown) = peak_growth(|| open(&bytes).map(|_| ()));
    assert!(grown < 8 << 20, "{grown} bytes");
}
