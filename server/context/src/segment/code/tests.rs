use super::*;

/// Units with the definitions they stand in, the outermost first.
fn cut(text: &str) -> Vec<(String, String)> {
    let segments = segment(text);
    let path = |mut section: usize| {
        let mut path = Vec::new();
        while let Some(parent) = segments.sections[section].parent {
            path.push(&text[segments.sections[section].heading.clone()]);
            section = parent;
        }
        path.reverse();
        path.join(" > ")
    };
    let unit = |unit: &Sentence| (path(unit.section), text[unit.span.clone()].to_owned());
    segments.sentences.iter().map(unit).collect()
}

fn check(text: &str, expected: &[(&str, &str)]) {
    let cut = cut(text);
    let cut: Vec<(&str, &str)> =
        cut.iter().map(|(path, unit)| (path.as_str(), unit.as_str())).collect();
    assert_eq!(cut, expected);
}

#[test]
fn rust() {
    let text = "//! Crate docs.\n\nuse std::fmt;\nuse std::io;\n\nconst A: u32 = 1;\n\n/// A bar.\n#[derive(Debug)]\npub struct Bar {\n    a: u32,\n}\n\n\
        impl Bar {\n    /// Makes one.\n    pub(crate) fn new(\n        a: u32,\n    ) -> Self {\n        if a > 1 {\n            panic!();\n        }\n\n        Self { a }\n    }\n\n    fn get(&self) -> u32 {\n        self.a\n    }\n}\n\nfn main() {}\n";
    check(
        text,
        &[
            ("", "//! Crate docs."),
            ("", "use std::fmt;\nuse std::io;"),
            ("", "const A: u32 = 1;"),
            ("pub struct Bar {", "/// A bar.\n#[derive(Debug)]\npub struct Bar {\n    a: u32,\n}"),
            ("impl Bar {", "impl Bar {"),
            (
                "impl Bar { > pub(crate) fn new(",
                "/// Makes one.\n    pub(crate) fn new(\n        a: u32,\n    ) -> Self {\n        if a > 1 {\n            panic!();\n        }\n\n        Self { a }\n    }",
            ),
            (
                "impl Bar { > fn get(&self) -> u32 {",
                "fn get(&self) -> u32 {\n        self.a\n    }",
            ),
            ("impl Bar {", "}"),
            ("", "fn main() {}"),
        ],
    );
}

#[test]
fn python() {
    let text = "import os\n\n\nclass Pump:\n    \"\"\"Moves water.\"\"\"\n\n    @property\n    def seal(self):\n        # The seal.\n        for x in y:\n            return x\n\n    def stop(self): pass\n\nif __name__ == '__main__':\n    main()\n";
    check(
        text,
        &[
            ("", "import os"),
            ("class Pump:", "class Pump:\n    \"\"\"Moves water.\"\"\""),
            (
                "class Pump: > def seal(self):",
                "@property\n    def seal(self):\n        # The seal.\n        for x in y:\n            return x",
            ),
            ("class Pump:", "def stop(self): pass"),
            ("", "if __name__ == '__main__':\n    main()"),
        ],
    );
}

#[test]
fn c_java_and_javascript() {
    let c = "#include <a.h>\r\n\r\nstatic int add(int a, int b)\r\n{\r\n#ifdef FAST\r\n\treturn a + b;\r\n#endif\r\n}\r\n\r\nint main(void) {\r\n\tif (x) {\r\n\t\ty();\r\n\t}\r\n}\r\n";
    check(
        c,
        &[
            ("", "#include <a.h>"),
            (
                "static int add(int a, int b)",
                "static int add(int a, int b)\r\n{\r\n#ifdef FAST\r\n\treturn a + b;\r\n#endif\r\n}",
            ),
            ("int main(void) {", "int main(void) {\r\n\tif (x) {\r\n\t\ty();\r\n\t}\r\n}"),
        ],
    );
    let java = "public class A {\n  private int n;\n\n  @Override\n  public int get(int i) throws E {\n    while (i > 0) {\n      i--;\n    }\n    list.forEach(x -> {\n      use(x);\n    });\n  }\n}\n";
    let paths: Vec<String> = cut(java).into_iter().map(|(path, _)| path).collect();
    let method = "public class A { > public int get(int i) throws E {";
    assert_eq!(paths, ["public class A {", method, "public class A {"]);
    let script = "const go = async (a) => {\n  await b();\n};\n\nexport default {\n  run(x) {\n    return x;\n  },\n};\n";
    let paths: Vec<String> = cut(script).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        paths,
        [
            "const go = async (a) => {",
            "export default {",
            "export default { > run(x) {",
            "export default {"
        ]
    );
}

#[test]
fn long_definitions_are_cut_at_blank_lines_and_line_ends() {
    let paragraph = "    let value = compute_something_quite_long(argument);\n".repeat(6);
    let text = format!("fn long() {{\n{paragraph}\n{paragraph}\n{paragraph}}}\n");
    let units = cut(&text);
    assert!(units.len() >= 2);
    for (path, unit) in &units {
        assert_eq!(path, "fn long() {");
        assert!(unit.len() <= MAX_SENTENCE_BYTES);
        assert!(
            unit.lines().all(|line| text.lines().any(|whole| whole.trim() == line.trim())),
            "{unit}"
        );
    }
    let solid = format!(
        "fn wide() {{\n{}\n}}",
        "    let value = compute_something_quite_long(argument);\n".repeat(60)
    );
    for (_, unit) in cut(&solid) {
        assert!(unit.len() <= MAX_SENTENCE_BYTES && unit.ends_with(['{', ';', '}']), "{unit}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep: String =
        (0..1000).map(|depth| format!("{}class C{depth}:\n", " ".repeat(depth))).collect();
    let segments = segment(&deep);
    assert!(segments.sections.iter().all(|section| usize::from(section.level) <= MAX_DEPTH));
}
