use super::*;

fn segment(text: &str, format: Format) -> Segments {
    segment_document(&Document { text: text.to_owned(), format, ..Document::default() })
}

fn cut(text: &str, format: Format) -> Vec<&str> {
    segment(text, format).sentences.into_iter().map(|sentence| &text[sentence.span]).collect()
}

/// Each line is one text; `|` stands where a sentence should end.
#[test]
fn sentences_end_where_a_reader_ends_them() {
    let table = [
        "One ends here.| Another begins.",
        "Dr. Smith met Mrs. Jones at St. Mary's.| They spoke.",
        "J. K. Rowling and George W. Bush arrived.| Nobody else did.",
        "It rose by 3.14 percent to 1,000.50.| Then it fell.",
        "See No. 5 and Fig. 3, cf. pp. 12 to 14.| Done.",
        "No.| Five is too many.",
        "He lives in the U.S. Army barracks.| Ask him.",
        "He lives in the U.S.| He likes it.",
        "Acme Inc. Chairman Bob Lee resigned.| The shares fell.",
        "They sell to Acme Inc.| The shares rose.",
        "Take fruit, e.g. apples, i.e. Malus, etc. Peel them.",
        "She said \"Stop!\" and left.| \"Why?\" he asked.| \"Because.\"| It ended.",
        "World War I.| The next was worse.",
        "So do I.| Nobody minds.",
        "Really?!| Yes...| Perhaps.",
        "We met at 5 p.m. on Monday.| It rained.",
        "Yahoo! is a company.| So is Guess?.",
        "1. The first rule has a number.| It stays with it.",
        "visit example.com/a.b?c=d now.| Thanks.",
        "東京は大きい。|大阪も大きい！|本当？",
        "یہ ایک جملہ ہے۔| یہ دوسرا ہے۔",
        "Это первое предложение.| Это второе.",
        "(It is closed.)| Open it.",
        "A line\nbreak inside is no end.| Here is one.",
    ];
    for line in table {
        let expected: Vec<&str> = line.split('|').map(str::trim).collect();
        let text = line.replace('|', "");
        assert_eq!(cut(&text, Format::Markdown), expected, "{text}");
    }
}

#[test]
fn markdown_parts_stay_together() {
    let text = "Lead in.\n\n# Top #\nBody one. Body two.\n```rust\nlet a = 1. ; B. C.\n\nlet d;\n```\n\
        | x | y. Z |\n|---|---|\n| 1. A | 2 |\n\n- item one. More of it.\n- item two\n  goes on\n\nUnder\r\n-----\r\nLast.\r\n";
    let expected = [
        "Lead in.",
        "# Top #",
        "Body one.",
        "Body two.",
        "```rust\nlet a = 1. ; B. C.\n\nlet d;\n```",
        "| x | y. Z |\n|---|---|\n| 1. A | 2 |",
        "- item one.",
        "More of it.",
        "- item two\n  goes on",
        "Under\r\n-----",
        "Last.",
    ];
    assert_eq!(cut(text, Format::Markdown), expected);
}

#[test]
fn headings_make_nested_sections() {
    let text = "# A\none.\n## B\ntwo.\n#### C\nthree.\n## D\nfour.\n# E\nfive.";
    let segments = segment(text, Format::Markdown);
    let path = |section: usize| {
        let mut words = Vec::new();
        let mut at = Some(section);
        while let Some(section) = at {
            words.push(&text[segments.sections[section].heading.clone()]);
            at = segments.sections[section].parent;
        }
        words.pop();
        words.reverse();
        words.join(">")
    };
    let bodies = segments.sentences.iter().filter(|sentence| !sentence.heading);
    let paths: Vec<String> = bodies.map(|sentence| path(sentence.section)).collect();
    assert_eq!(paths, ["A", "A>B", "A>B>C", "A>D", "E"]);
}

#[test]
fn plain_lines_join_only_where_they_were_wrapped() {
    let wrapped = "This paragraph was wrapped by hand at about fifty\ncolumns, as old files are. It has two sentences and\nends here.";
    assert_eq!(
        cut(wrapped, Format::Text),
        [
            "This paragraph was wrapped by hand at about fifty\ncolumns, as old files are.",
            "It has two sentences and\nends here."
        ]
    );
    assert_eq!(
        cut("Name: Ada\nBorn: 1815\nCity: London", Format::Text),
        ["Name: Ada", "Born: 1815", "City: London"]
    );
    assert_eq!(
        cut("a) one\rb) two\r\rChapter Two\r\rText.", Format::Text),
        ["a) one", "b) two", "Chapter Two", "Text."]
    );
}

#[test]
fn long_sentences_are_cut_at_white_space() {
    let text = "word ".repeat(500);
    let parts = cut(&text, Format::Text);
    assert!(parts.len() >= 3);
    for part in &parts {
        assert!(
            part.len() <= MAX_SENTENCE_BYTES && part.split(' ').all(|word| word == "word"),
            "{part}"
        );
    }
    let solid = "é".repeat(1000);
    assert_eq!(cut(&solid, Format::Text).concat(), solid);
}

#[test]
fn chunks_hold_sentences_of_one_section() {
    let paragraph = "Every sentence of this paragraph has about sixty bytes of text. ".repeat(6);
    let text = format!("# One\n{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n# Two\nShort.");
    let segments = segment(&text, Format::Markdown);
    let mut ranges: Vec<(usize, usize, usize)> = Vec::new();
    for sentence in &segments.sentences {
        if sentence.chunk == ranges.len() {
            ranges.push((sentence.span.start, sentence.span.end, sentence.section));
        }
        let chunk = &mut ranges[sentence.chunk];
        chunk.1 = sentence.span.end;
        assert_eq!(chunk.2, sentence.section);
    }
    assert_eq!(ranges.len(), segments.chunks);
    assert!(ranges.iter().all(|(start, end, _)| end - start <= MAX_CHUNK_BYTES));
    assert_eq!(ranges.len(), 3, "{ranges:?}");
}

/// The rules of UAX #29 with what this crate knows beyond them. Each line is one text, as above.
#[test]
fn every_language_ends_sentences_its_own_way() {
    let table = [
        // Chinese, Japanese, Korean: marks without spaces.
        "灯塔高四十二米。|它建于1899年！|谁建的？|没人知道。",
        "「終わった。」と彼は言った。|次の日は雨だった。",
        "등대는 높다.| 배가 온다.",
        // Devanagari, Bengali: danda.
        "यह पहला वाक्य है।| यह दूसरा है॥| तीसरा?| हाँ।",
        "এটি প্রথম বাক্য।| এটি দ্বিতীয়।",
        // Arabic, Persian, Hebrew.
        "هذه جملة أولى.| هل هذه ثانية؟| نعم!",
        "این یک جمله است.| آیا این هم؟| بله.",
        "זה משפט ראשון.| זה השני.",
        // Khmer, Burmese, Armenian, Amharic, Tibetan's neighbours: marks of their own.
        "នេះជាប្រយោគទីមួយ។| នេះជាប្រយោគទីពីរ។",
        "ဒါက ပထမ စာကြောင်း။| ဒါက ဒုတိယ။",
        "Սա առաջինն է։| Սա երկրորդն է։",
        "ይህ የመጀመሪያው ነው።| ይህ ሁለተኛው ነው።",
        // Spanish: marks that open.
        "¿Dónde está el faro?| ¡Allí!| Lo dijo el Sr. García, p. ej. ayer.| Ud. lo sabe.",
        // German: abbreviations and ordinals.
        "Das gilt z. B. Äpfeln, d. h. Kernobst, vgl. Seite 3.| Es gilt auch für Birnen.",
        "Er kam am 3. Oktober und im 19. Jahrhundert bzw. Anfang des 20. Jahrhunderts.| Dann ging er.",
        "Die Fa. Meyer GmbH & Co. KG sitzt in der Hauptstr. 5.| Hr. Dr. Kurz leitet sie.",
        // French, Russian, Greek.
        "Hier M. Dupont est venu.| Il est reparti.| « Pourquoi ? »| Personne ne sait.",
        "Он жил в 1990 г. и т. д. Потом уехал.| Это всё.",
        "Αυτό είναι ένα.| Αυτό είναι δύο.",
    ];
    let cuts = table.map(|line| {
        let text = line.replace('|', "");
        (cut(&text, Format::Markdown).join("|"), line.replace("| ", "|"))
    });
    let wrong: Vec<_> = cuts.iter().filter(|(cut, expected)| cut != expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Thai writes no mark at a sentence's end, only a space, and spaces elsewhere too: units are stretches of a
/// sentence's length that end at a space.
#[test]
fn thai_is_cut_at_spaces() {
    let clause = "ประภาคารแห่งนี้สร้างขึ้นเมื่อร้อยปีก่อน";
    let text = format!("{clause} {clause} {clause} {clause}");
    assert_eq!(
        cut(&text, Format::Text),
        [format!("{clause} {clause}"), format!("{clause} {clause}")].map(|unit| {
            // A clause is a little shorter or longer than the least a unit may have.
            if clause.len() >= 120 { clause.to_owned() } else { unit }
        })
    );
}
