use super::*;
use crate::commands::plot::Series;

/// Panics unless every element of `html` is closed where it must be. Pages are written so that this suffices: attributes
/// are quoted and escaped, empty elements end with `/>`.
#[track_caller]
pub(in crate::commands) fn well_formed(html: &str) {
    let mut open = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap_or(html);
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray > before {}", &rest[start..]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes in {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closing {name}");
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, Vec::<&str>::new());
}

fn report() -> Report {
    let points = vec![(1.0, 2.0), (2.0, 4.0)];
    let plot = Plot {
        title: "rate".to_owned(),
        x: "streams".to_owned(),
        y: "tok/s".to_owned(),
        series: vec![Series { name: "<b>".to_owned(), points }],
        ..Plot::default()
    };
    let table = Table {
        title: "All".to_owned(),
        head: vec!["run".to_owned(), "tok/s".to_owned()],
        rows: vec![vec!["<script>".to_owned(), "1 & 2".to_owned()]],
    };
    Report {
        tables: vec![table],
        plots: vec![plot],
        notes: vec!["\"quoted\" isn't".to_owned()],
        ..Report::new("a <title>")
    }
}

#[test]
fn a_page_is_well_formed_escaped_and_on_its_own() {
    let html = report().html();
    well_formed(&html);
    assert!(html.contains("&lt;script&gt;") && html.contains("1 &amp; 2"), "{html}");
    assert!(html.contains("&quot;quoted&quot; isn&#39;t"), "{html}");
    for foreign in ["<script", "<link", "http", "url(", "@import", "src="] {
        assert!(!html.contains(foreign), "{foreign} in {html}");
    }
    // The style sheet is inline: nothing in it may look like markup.
    assert!(!STYLE.contains('<') && !STYLE.contains('>'), "{STYLE}");
}

#[test]
fn the_command_line_can_be_pasted() {
    let arguments = ["/usr/bin/pith", "bench", "--model", "my model", "it's", "a,b:1"];
    let line = command_line(arguments.iter().map(|argument| (*argument).to_owned()));
    assert_eq!(line, "pith bench --model 'my model' 'it'\\''s' a,b:1");
}

#[test]
fn days_become_dates() {
    assert_eq!(civil(0), (1970, 1, 1));
    assert_eq!(civil(58), (1970, 2, 28));
    assert_eq!(civil(789), (1972, 2, 29));
    assert_eq!(civil(11_016), (2000, 2, 29));
    assert_eq!(civil(20_484), (2026, 1, 31));
    let time = UNIX_EPOCH + std::time::Duration::from_secs(20_484 * SECONDS_PER_DAY + 34_260);
    assert_eq!(utc(time), "2026-01-31 09:31 UTC");
}
