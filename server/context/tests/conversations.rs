//! What holds for every conversation, whatever is asked, whoever asks, and wherever it branches.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pith_context::{
    Budget, Chat, ChatModel, ContextError, Conversed, Document, Format, LanguageModel, Mode,
    Policy, RecentSelections, Tools, converse,
};
use proptest::prelude::*;
use support::{Runs, document, retrieve};

/// A chat in the format `<role>content` with the words around a context that a server would write. Counts as [`Runs`]:
/// tokens merge across every joint.
struct Dialogue<'a>(&'a [(&'a str, &'a str)]);

impl LanguageModel for Dialogue<'_> {
    fn count(&self, text: &str) -> u32 {
        Runs::tokens(text)
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        self.chat_tokens(&[(self.0.len() - 1, context)])
    }
}

impl ChatModel for Dialogue<'_> {
    fn chat_tokens(&self, contexts: &[(usize, &str)]) -> Result<u32, ContextError> {
        let mut prompt = String::new();
        for (index, (role, content)) in self.0.iter().enumerate() {
            let context = contexts.iter().find(|(message, _)| *message == index);
            let words = context.map_or(String::new(), |(_, c)| format!("Read this: {c} Then: "));
            prompt += &format!("<{role}>{words}{content}");
        }
        Ok(Runs::tokens(&(prompt + "<assistant>")))
    }
}

/// Messages of a conversation with these questions; answers are what was asked, turned about.
fn messages(questions: &[String]) -> Vec<(&str, &str)> {
    let (last, earlier) = questions.split_last().unwrap();
    let mut messages = vec![("system", "Be brief.")];
    for question in earlier {
        messages.push(("user", question));
        messages.push(("assistant", &question[question.len() / 2..]));
    }
    messages.push(("user", last));
    messages
}

struct World {
    documents: Vec<Document>,
    policy: Policy,
    limit: Option<u32>,
    memory: RecentSelections,
}

impl World {
    fn new(documents: Vec<Document>, budget: Budget) -> Self {
        let memory = RecentSelections::new(1 << 20, 1000);
        Self { documents, policy: retrieve("", budget), limit: None, memory }
    }

    fn ask(&self, tenant: &str, questions: &[String]) -> Result<Conversed, ContextError> {
        let messages = messages(questions);
        let policy = Policy { query: messages.last().unwrap().1.to_owned(), ..self.policy.clone() };
        let model = Dialogue(&messages);
        let chat = Chat { tenant, model: "runs", messages: &messages };
        let turn = converse(
            &self.documents,
            &policy,
            self.limit,
            &model,
            &chat,
            &self.memory,
            Tools::default(),
        )?;
        self.check(&turn, &model);
        Ok(turn)
    }

    /// As [`ask`](Self::ask), and sent.
    fn send(&self, tenant: &str, questions: &[String]) -> Result<Conversed, ContextError> {
        let turn = self.ask(tenant, questions)?;
        turn.sent.remember(&self.memory);
        Ok(turn)
    }

    /// Exact counts, budget and limit, byte identity, tiling.
    fn check(&self, turn: &Conversed, model: &Dialogue<'_>) {
        let Conversed { contexts, report, sticky, .. } = turn;
        let texts: Vec<(usize, &str)> =
            contexts.iter().map(|(message, packed)| (*message, packed.text.as_str())).collect();
        let words: Vec<(usize, &str)> = texts.iter().map(|(message, _)| (*message, "")).collect();
        let (prompt, base) =
            (model.chat_tokens(&texts).unwrap(), model.chat_tokens(&words).unwrap());
        assert_eq!((report.prompt_tokens, report.tokens_after), (prompt, prompt - base));
        assert_eq!(sticky.tokens_kept + sticky.tokens_added, report.tokens_after);
        assert!(report.tokens_after <= report.budget_tokens, "{report:?}");
        assert!(self.limit.is_none_or(|limit| prompt <= limit));
        if let (Mode::Retrieve, Budget::Tokens(most)) = (self.policy.mode, self.policy.budget) {
            assert!(report.tokens_after <= most);
        }
        assert!(contexts.is_sorted_by_key(|(message, _)| *message));
        assert!(
            contexts.iter().all(|(message, c)| model.0[*message].0 == "user" && !c.text.is_empty())
        );

        let mut sent = Vec::new();
        for (_, packed) in contexts {
            for piece in &packed.pieces {
                let span = piece.source;
                let source = &self.documents[span.document].text[span.start..span.end];
                assert_eq!(source, &packed.text[piece.packed.clone()]);
                sent.push(span);
            }
            assert!(packed.pieces.windows(2).all(|pair| pair[0].source < pair[1].source), "order");
        }
        let bytes = |spans: &[pith_context::Span]| -> usize {
            spans.iter().map(|span| span.end - span.start).sum()
        };
        let kept: Vec<_> = report.kept.iter().map(|kept| kept.span).collect();
        assert_eq!(bytes(&sent), bytes(&kept));
        let inside = |span: &pith_context::Span| {
            sent.iter().any(|piece| {
                piece.document == span.document
                    && piece.start <= span.start
                    && span.end <= piece.end
            })
        };
        assert!(kept.iter().all(inside));

        let mut spans = [kept, report.dropped.clone()].concat();
        spans.sort();
        for (number, source) in self.documents.iter().enumerate() {
            let mut at = 0;
            for span in spans.iter().filter(|span| span.document == number) {
                assert_eq!(span.start, at, "document {number}");
                assert!(span.end > span.start && source.text.is_char_boundary(span.end));
                at = span.end;
            }
            assert_eq!(at, source.text.len(), "document {number}");
        }
        for (number, _) in self.documents.iter().enumerate().filter(|(_, d)| d.pinned) {
            assert!(report.dropped.iter().all(|span| span.document != number), "pinned");
        }
    }
}

/// What was sent before the turn's own message.
fn earlier<'a>(turn: &'a Conversed, questions: &[String]) -> &'a [(usize, pith_context::Packed)] {
    let last = 2 * questions.len() - 1;
    match turn.contexts.split_last() {
        Some(((message, _), earlier)) if *message == last => earlier,
        _ => &turn.contexts,
    }
}

fn sentence() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "(The|A|It|This) (quick|slow|old|red|2019) (fox|bridge|engine|船|köhler) (ran|fell|was built|sang)( in [A-F]{2}| by No\\. [1-9])?\\. ",
        1 => prop::sample::select(vec!["\n\n", "# Heading\n", "- item\n", "  ", "東京は大きい。", "\u{a0}"]).prop_map(str::to_owned),
        1 => "\\PC{0,30}",
    ]
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    let one = (prop::collection::vec(sentence(), 1..16), any::<bool>(), 0..12_u8);
    let one = one.prop_map(|(bits, markdown, pin)| Document {
        title: markdown.then(|| "Foxes and bridges".to_owned()),
        pinned: pin == 0,
        ..document(&bits.concat(), if markdown { Format::Markdown } else { Format::Text })
    });
    prop::collection::vec(one, 1..4)
}

fn question() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "(Who|What|When) (ran|fell|built|sang) the (quick|slow|old|red) (fox|bridge|engine|船|köhler)( in [A-F]{2})?\\?",
        1 => Just("Thank you!".to_owned()),
        1 => "[a-z?]{1,12}",
    ]
}

/// What comes next in a conversation.
#[derive(Debug, Clone)]
enum Step {
    /// One more question after the turn that is so many back.
    Ask { back: usize, question: String },
    /// From here on the policy says so.
    Budget(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => question().prop_map(|question| Step::Ask { back: 0, question }),
        2 => (0..4_usize, question()).prop_map(|(back, question)| Step::Ask { back, question }),
        1 => (5..300_u32).prop_map(Step::Budget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_sent_moves_and_the_budget_is_kept(
        documents in documents(),
        budget in prop_oneof![(10..300_u32).prop_map(Budget::Tokens), (0.05..1.0_f32).prop_map(Budget::KeepRatio)],
        top_k in prop::option::weighted(0.2, 1..5_u32),
        limit in prop::option::weighted(0.3, 100..600_u32),
        steps in prop::collection::vec(step(), 1..9),
    ) {
        let mut world = World::new(documents, budget);
        world.policy.top_k = top_k;
        world.limit = limit;
        // Turns that were answered, each with the questions that led to it.
        let mut turns: Vec<(Vec<String>, Conversed)> = Vec::new();
        for step in steps {
            let (back, question) = match step {
                Step::Ask { back, question } => (back, question),
                Step::Budget(tokens) => {
                    world.policy.budget = Budget::Tokens(tokens);
                    continue;
                }
            };
            let parent = turns.len().checked_sub(1 + back).map(|at| turns[at].clone());
            let mut questions = parent.as_ref().map_or(Vec::new(), |(questions, _)| questions.clone());
            questions.push(question);
            let turn = match world.ask("us", &questions) {
                Ok(turn) => turn,
                Err(ContextError::BudgetTooSmall { needed, budget } | ContextError::PinnedTooLarge { needed, budget }) => {
                    prop_assert!(needed > budget);
                    continue;
                }
                Err(ContextError::Overflow { prompt_tokens, limit }) => {
                    prop_assert!(prompt_tokens > limit);
                    continue;
                }
                Err(ContextError::Policy { field, .. }) => {
                    prop_assert_eq!(field, "query");
                    continue;
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            let again = world.ask("us", &questions).unwrap();
            prop_assert_eq!((&again.contexts, &again.sticky), (&turn.contexts, &turn.sticky));
            turn.sent.remember(&world.memory);
            let sent = parent.map_or(Vec::new(), |(_, parent)| parent.contexts);
            if turn.sticky.fresh {
                prop_assert!(!sent.is_empty() && earlier(&turn, &questions).is_empty());
            } else {
                prop_assert_eq!(earlier(&turn, &questions), &sent[..]);
            }
            prop_assert_eq!(turn.sticky.turns_kept as usize, earlier(&turn, &questions).len());
            turns.push((questions, turn));
        }
    }
}

/// Paragraphs about one thing each.
fn handbook() -> Document {
    let paragraph = |n: usize, thing: &str, place: &str| {
        format!(
            "The {thing} number {n} stands in {place}. Its keeper paints the {thing} in May. \
             Visitors of {place} pay {n}0 crowns. Nobody knows who built it first.\n\n"
        )
    };
    let things = ["lighthouse", "windmill", "sawmill", "granary", "chapel", "viaduct"];
    let places = ["Aldmoor", "Brigg", "Corran", "Dunholt", "Eskdale", "Farnley", "Garth"];
    let text = (0..42).map(|n| paragraph(n + 1, things[n % 6], places[n % 7])).collect::<String>();
    document(&text, Format::Text)
}

fn questions(all: &[&str]) -> Vec<String> {
    all.iter().map(|question| (*question).to_owned()).collect()
}

#[test]
fn what_was_sent_is_not_sent_again() {
    let world = World::new(vec![handbook()], Budget::Tokens(800));
    let mut asked = questions(&["What does the windmill in Brigg cost?"]);
    let first = world.send("us", &asked).unwrap();
    assert!((200..=400).contains(&first.sticky.tokens_added), "{:?}", first.sticky);
    assert_eq!((first.sticky.turns_kept, first.sticky.tokens_kept), (0, 0));

    // The same question again asks for nothing else.
    asked.push(asked[0].clone());
    let second = world.send("us", &asked).unwrap();
    assert_eq!(second.contexts, first.contexts);
    assert_eq!((second.sticky.turns_kept, second.sticky.tokens_added), (1, 0));
    assert!(!second.sticky.fresh);

    asked.push("Who paints the chapel in Eskdale?".to_owned());
    let third = world.send("us", &asked).unwrap();
    assert_eq!(third.contexts[0], first.contexts[0]);
    assert!(third.sticky.tokens_added > 0 && third.contexts.len() == 2);
    assert!(third.sticky.tokens_added <= (800 - third.sticky.tokens_kept) / 2);
    assert!(third.contexts[1].1.text.contains("chapel"));

    // A word of thanks has no call on the budget.
    asked.push("Thank you!".to_owned());
    let thanks = world.send("us", &asked).unwrap();
    assert_eq!(thanks.contexts, third.contexts);

    // A branch goes on from where it leaves.
    let mut branch = asked[..2].to_vec();
    branch.push("Where is the viaduct?".to_owned());
    let other = world.send("us", &branch).unwrap();
    assert_eq!(other.contexts[0], first.contexts[0]);
    assert!(other.contexts[1].1.text.contains("viaduct"));
}

#[test]
fn only_the_same_conversation_is_recognised() {
    let mut world = World::new(vec![handbook()], Budget::Tokens(800));
    let asked = questions(&["Where is the windmill?", "Who paints the chapel in Eskdale?"]);
    world.send("us", &asked[..1]).unwrap();
    assert_eq!(world.ask("us", &asked).unwrap().sticky.turns_kept, 1);
    let kept = |world: &World, tenant: &str, asked: &[String]| {
        let turn = world.ask(tenant, asked).unwrap();
        assert!(!turn.sticky.fresh);
        turn.sticky.turns_kept
    };
    assert_eq!(kept(&world, "them", &asked), 0);
    let other = questions(&["Where is the sawmill?", "Who paints the chapel in Eskdale?"]);
    assert_eq!(kept(&world, "us", &other), 0);
    let before = world.documents.clone();
    for edit in [
        |d: &mut Document| d.text.push('!'),
        |d: &mut Document| d.title = Some("Buildings".to_owned()),
        |d: &mut Document| d.id = "other".to_owned(),
        |d: &mut Document| d.format = Format::Markdown,
    ] {
        edit(&mut world.documents[0]);
        assert_eq!(kept(&world, "us", &asked), 0, "{:?}", world.documents[0].title);
        world.documents = before.clone();
    }
    world.policy.top_k = Some(3);
    assert_eq!(kept(&world, "us", &asked), 0);
    world.policy.top_k = None;
    // The budget may change.
    world.policy.budget = Budget::Tokens(900);
    assert_eq!(kept(&world, "us", &asked), 1);
}

#[test]
fn when_the_budget_is_spent_a_fresh_choice_is_stated() {
    let world = World::new(vec![handbook()], Budget::Tokens(240));
    let wanted = [
        "What does the windmill in Brigg cost?",
        "Who paints the chapel in Eskdale?",
        "Where is the viaduct number 6?",
        "What does the granary in Dunholt cost?",
        "Which sawmill is in Corran?",
        "Which lighthouse is in Aldmoor?",
        "Who built the windmill in Farnley?",
        "Where is the chapel number 41?",
    ];
    let mut asked = Vec::new();
    let mut before: Option<Conversed> = None;
    let mut fresh = 0;
    for question in wanted {
        asked.push(question.to_owned());
        let turn = world.send("us", &asked).unwrap();
        if turn.sticky.fresh {
            fresh += 1;
            assert!(asked.len() > 3, "{:?}", turn.sticky);
            assert_eq!((turn.contexts.len(), turn.sticky.turns_kept), (1, 0));
            assert!(turn.sticky.reason.contains("anew"));
            assert!(turn.sticky.tokens_added > 60, "{:?}", turn.sticky);
        } else if let Some(before) = &before {
            assert_eq!(turn.contexts[..before.contexts.len()], before.contexts[..]);
        }
        before = Some(turn);
    }
    assert!((1..=3).contains(&fresh), "{fresh}");
}

#[test]
fn what_fits_whole_is_sent_once() {
    let world =
        World::new(vec![handbook(), document("Second.\n", Format::Text)], Budget::Tokens(100_000));
    let mut asked = questions(&["Where is the windmill?"]);
    let first = world.send("us", &asked).unwrap();
    assert!(first.report.dropped.is_empty());
    asked.push("Where is the chapel?".to_owned());
    let second = world.send("us", &asked).unwrap();
    assert_eq!(second.contexts, first.contexts);

    let whole = Policy { mode: Mode::None, ..world.policy.clone() };
    let world = World { policy: whole, ..world };
    let first = world.send("us", &asked[..1]).unwrap();
    assert_eq!(first.report.tokens_before, first.report.tokens_after);
    let second = world.send("us", &asked).unwrap();
    assert_eq!((&second.contexts, second.sticky.turns_kept), (&first.contexts, 1));
    let world = World { limit: Some(100), ..world };
    assert!(matches!(world.ask("us", &asked), Err(ContextError::Overflow { limit: 100, .. })));
}
