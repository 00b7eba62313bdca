//! A file of prompts: one JSON object per line with `prompt` or `messages`, or plain lines.

use std::path::Path;

use pith_client::v1;
use serde::Deserialize;

use crate::commands::Failure;

/// A prompt of a file.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::commands::bench::serve) enum Line {
    Prompt(String),
    Messages(Vec<v1::ChatMessage>),
}

/// One JSON object. Fields of other tools (ids, expected answers) are left alone.
#[derive(Deserialize)]
struct Object {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
}

#[derive(Deserialize)]
struct Message {
    role: Role,
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    User,
    Assistant,
}

/// Reads all prompts of `path`.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display()))
            .hint("the file must be UTF-8 text, one prompt a line")
    })?;
    let lines = parse(&text)
        .map_err(|(line, why)| Failure::new(format!("{}:{line}: {why}", path.display())))?;
    if lines.is_empty() {
        return Err(Failure::new(format!("{} holds no prompt", path.display())));
    }
    Ok(lines)
}

/// All prompts of `text`, or the number of the line at fault. The first line that is not blank tells which kind of file
/// it is, so that a broken object is an error and not a strange prompt.
fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let json = lines().next().is_some_and(|(_, line)| line.trim_start().starts_with('{'));
    let one = |(index, line): (usize, &str)| {
        if json {
            object(line).map_err(|why| (index + 1, why))
        } else {
            Ok(Line::Prompt(line.trim().to_owned()))
        }
    };
    lines().map(one).collect()
}

fn object(line: &str) -> Result<Line, String> {
    let object: Object = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match (object.prompt, object.messages) {
        (Some(prompt), None) if !prompt.trim().is_empty() => Ok(Line::Prompt(prompt)),
        (None, Some(messages)) if !messages.is_empty() => {
            Ok(Line::Messages(messages.into_iter().map(v1::ChatMessage::from).collect()))
        }
        (Some(_), Some(_)) => Err("has both prompt and messages".to_owned()),
        _ => Err("has neither prompt nor messages, or an empty one".to_owned()),
    }
}

impl From<Message> for v1::ChatMessage {
    fn from(message: Message) -> Self {
        let role = match message.role {
            Role::System => v1::Role::System,
            Role::User => v1::Role::User,
            Role::Assistant => v1::Role::Assistant,
        };
        Self { role: role.into(), content: message.content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_prompts() {
        let prompts = parse("What is it?\n\n  And {this}?  \n").unwrap();
        let expected = ["What is it?", "And {this}?"].map(|text| Line::Prompt(text.to_owned()));
        assert_eq!(prompts, expected);
    }

    #[test]
    fn objects_hold_a_prompt_or_a_chat() {
        let text = "{\"prompt\": \"Hi\\nthere\", \"id\": 3}\n\
                    {\"messages\": [{\"role\": \"system\", \"content\": \"Short.\"}, {\"role\": \"user\", \"content\": \"Hi\"}]}\n";
        let prompts = parse(text).unwrap();
        assert_eq!(prompts[0], Line::Prompt("Hi\nthere".to_owned()));
        let Line::Messages(messages) = &prompts[1] else { panic!("{prompts:?}") };
        assert_eq!(messages[0].role(), v1::Role::System);
        assert_eq!((messages[1].role(), messages[1].content.as_str()), (v1::Role::User, "Hi"));
    }

    #[test]
    fn broken_objects_are_named_by_their_line() {
        for (text, line) in [
            ("{\"prompt\": \"a\"}\n\nnot json\n", 3),
            ("{\"prompt\": \" \"}", 1),
            ("{\"text\": \"a\"}", 1),
            ("{\"prompt\": \"a\", \"messages\": []}", 1),
            ("{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
