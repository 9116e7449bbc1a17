//! Compares a candidate's model request with the recorded request whose answer it gets.
//!
//! A recorded answer belongs to the request that was recorded. If the candidate's prompt, model, tools or parameters differ,
//! the answer says nothing about the candidate. Only parts that do not depend on earlier answers are compared: the history
//! of a conversation differs as soon as the candidate behaves differently, which is what a replay measures.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::canonical::canonical;
use schemas::trial::ModelInputs;
use serde_json::Value;
use wire::openai_chat::content_text;

/// Distinct differences that a trial keeps.
const MAX_CHANGES: usize = 32;

/// Characters of a difference that are quoted.
const MAX_QUOTED_CHARS: usize = 120;

/// Keys of a request that change nothing that the model sees, or that the replay itself sets: the form of the answer,
/// bookkeeping of the provider, and the seed.
const IGNORED_KEYS: [&str; 15] = [
    "messages",
    "model",
    "tools",
    "functions",
    "stream",
    "stream_options",
    "seed",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "prediction",
];

/// The parts of a model request that do not depend on earlier answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelRequest {
    model: Option<String>,
    /// Text of all system and developer messages.
    prompt: Arc<str>,
    /// Definitions by name, in canonical JSON. The order is left out: the world lists tools in its own.
    tools: Arc<BTreeMap<String, ToolDefinition>>,
    /// Other keys of the request.
    parameters: BTreeMap<String, Value>,
    /// Role and text of the messages before the first tool call: the user's and those of examples.
    opening: Vec<(String, String)>,
}

/// The definition of a tool in a model request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ToolDefinition {
    description: String,
    schema: String,
}

/// A part that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// `model`, `system prompt`, `tools`, `user message` or the name of a parameter.
    part: String,
    /// The difference in words.
    text: String,
    /// The difference with dates, times and identifiers masked, so that it is equal in trials of the same build.
    key: String,
}

impl ModelRequest {
    /// Reads a request. Parts that equal those of `previous` share its memory.
    pub(crate) fn read(request: &Value, previous: Option<&Self>) -> Self {
        let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |message: &Value| content_text(&message["content"]).unwrap_or_default();
        let prompts: Vec<String> = messages.iter().filter(|message| is_prompt(message)).map(text).collect();
        let prompt: Arc<str> = prompts.join("\n").into();
        let tools = Arc::new(tools(request));
        let rest = messages.iter().filter(|message| !is_prompt(message));
        let opening = rest.take_while(|message| !depends_on_answers(message));
        let keys = request.as_object().into_iter().flatten();
        Self {
            model: request["model"].as_str().map(str::to_owned),
            prompt: previous
                .map(|known| &known.prompt)
                .filter(|known| **known == prompt)
                .unwrap_or(&prompt)
                .clone(),
            tools: previous
                .map(|known| &known.tools)
                .filter(|known| **known == tools)
                .unwrap_or(&tools)
                .clone(),
            parameters: keys
                .filter(|(key, value)| !IGNORED_KEYS.contains(&key.as_str()) && !value.is_null())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            opening: opening
                .map(|message| (message["role"].as_str().unwrap_or_default().to_owned(), text(message)))
                .collect(),
        }
    }

    /// Keeps the first messages of the opening: later ones follow answers of the model.
    pub(crate) fn limit_opening(&mut self, messages: usize) {
        self.opening.truncate(messages);
    }

    /// Number of messages before the first tool call.
    pub(crate) fn opening_len(&self) -> usize {
        self.opening.len()
    }
}

fn is_prompt(message: &Value) -> bool {
    matches!(message["role"].as_str(), Some("system" | "developer"))
}

fn depends_on_answers(message: &Value) -> bool {
    let has_calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
    has_calls || message.get("function_call").is_some_and(Value::is_object) || {
        matches!(message["role"].as_str(), Some("tool" | "function"))
    }
}

fn tools(request: &Value) -> BTreeMap<String, ToolDefinition> {
    let listed = |key: &str| request[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let definition = |tool: &Value| {
        let function = tool.get("function").unwrap_or(tool);
        // A built-in tool of the provider has a type and no name.
        let name = function["name"].as_str().or(tool["type"].as_str()).unwrap_or_default().to_owned();
        let mut rest = function.clone();
        if let Some(rest) = rest.as_object_mut() {
            rest.retain(|key, _| key != "name" && key != "description");
        }
        let description = function["description"].as_str().unwrap_or_default().to_owned();
        (name, ToolDefinition { description, schema: canonical(&rest) })
    };
    listed("tools").iter().chain(listed("functions")).map(definition).collect()
}

/// All differences between the recorded request and the candidate's.
///
/// If both are the first of their session (`are_first`), nothing in them depends on an answer, so a message more counts too.
pub(crate) fn differences(recorded: &ModelRequest, asked: &ModelRequest, are_first: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    if recorded.model != asked.model {
        found.push(value_difference(
            "model",
            recorded.model.clone().map(Value::from).as_ref(),
            asked.model.clone().map(Value::from).as_ref(),
        ));
    }
    if recorded.prompt != asked.prompt {
        found.extend(text_differences("system prompt", &recorded.prompt, &asked.prompt));
    }
    if recorded.tools != asked.tools {
        found.extend(tool_differences(&recorded.tools, &asked.tools));
    }
    let mut names: Vec<&String> = recorded.parameters.keys().chain(asked.parameters.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (before, after) = (recorded.parameters.get(name), asked.parameters.get(name));
        if before.map(canonical) != after.map(canonical) {
            found.push(value_difference(name, before, after));
        }
    }
    let compared = if are_first { asked.opening.len() } else { recorded.opening.len() };
    let opening = asked.opening.get(..compared).unwrap_or(&asked.opening);
    if recorded.opening != opening {
        let text = |messages: &[(String, String)]| {
            let lines = messages.iter().map(|(role, text)| format!("{role}: {text}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        found.extend(text_differences("user message", &text(&recorded.opening), &text(opening)));
    }
    found
}

fn value_difference(part: &str, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let shown =
        |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), |value| quoted(&canonical(value)));
    let text = format!("{part}: {} → {}", shown(before), shown(after));
    let complete = |value: Option<&Value>| value.map(canonical).unwrap_or_default();
    let key = told_apart(&text, &format!("{part}: {} → {}", complete(before), complete(after)));
    Difference { part: part.to_owned(), text, key }
}

fn tool_differences(
    recorded: &BTreeMap<String, ToolDefinition>,
    asked: &BTreeMap<String, ToolDefinition>,
) -> Vec<Difference> {
    let mut names: Vec<&String> = recorded.keys().chain(asked.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let difference = |name: &String| {
        let (what, content) = match (recorded.get(name), asked.get(name)) {
            (Some(_), None) => ("missing", String::new()),
            (None, Some(added)) => ("added", format!("{}{}", added.description, added.schema)),
            (Some(before), Some(after)) if before.schema != after.schema => {
                ("has another schema", after.schema.clone())
            }
            (Some(before), Some(after)) if before.description != after.description => {
                ("has another description", after.description.clone())
            }
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let text = format!("tools: {name} {what}");
        let key = format!("{text} ({})", short_hash(&content));
        Some(Difference { part: "tools".to_owned(), text, key })
    };
    names.into_iter().filter_map(difference).collect()
}

/// Sentences that only one of two texts has. A sentence that differs in masked words only is one difference.
fn text_differences(part: &str, recorded: &str, asked: &str) -> Vec<Difference> {
    let (mut missing, mut added) = (sentences(recorded), sentences(asked));
    missing.retain(|sentence| match added.iter().position(|other| other == sentence) {
        Some(position) => {
            added.remove(position);
            false
        }
        None => true,
    });
    let of = |text: String, key: String| Difference {
        part: part.to_owned(),
        text: format!("{part}: {text}"),
        key: told_apart(&format!("{part}: {}", quoted(&key)), &format!("{part}: {key}")),
    };
    let mut found = Vec::new();
    for sentence in missing {
        let masked = mask(sentence);
        match added.iter().position(|other| mask(other) == masked) {
            Some(position) => {
                let other = added.remove(position);
                found.push(of(
                    format!("\"{}\" became \"{}\"", quoted(sentence), quoted(other)),
                    format!("another value in: {masked}"),
                ));
            }
            None => found.push(of(format!("\"{}\" missing", quoted(sentence)), format!("missing: {masked}"))),
        }
    }
    found.extend(
        added
            .into_iter()
            .map(|text| of(format!("\"{}\" added", quoted(text)), format!("added: {}", mask(text)))),
    );
    if found.is_empty() {
        let key = format!("other order: {}", mask(asked));
        found.push(of("the sentences or their spaces are in another order".to_owned(), key));
    }
    found
}

/// Splits a text at the ends of lines and sentences.
fn sentences(text: &str) -> Vec<&str> {
    let lines =
        text.lines().flat_map(|line| line.split_inclusive(". ").flat_map(|part| part.split_inclusive("? ")));
    lines.map(|part| part.trim().trim_end_matches('.')).filter(|part| !part.is_empty()).collect()
}

/// Replaces words that differ from request to request in any build: dates, times, long numbers and identifiers.
fn mask(text: &str) -> String {
    let is_date_word = |word: &str| {
        let word = word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
        DATE_WORDS.iter().any(|known| *known == word || (word.len() == 3 && known.starts_with(&word)))
    };
    let has_date_word = text.split_whitespace().any(is_date_word);
    let words = text.split_whitespace().map(|word| {
        let bare = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        let is_value = is_date_word(word) || is_volatile(bare) || (has_date_word && is_number(bare));
        if is_value && !bare.is_empty() { word.replace(bare, "…") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

const DATE_WORDS: [&str; 19] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

fn is_number(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_digit())
}

/// Whether a word is a date, a time, a number of nine digits or more, or an identifier of sixteen characters or more.
fn is_volatile(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_time = is_number(word)
        && digits >= 3
        && word.contains([':', '-', '/', '.'])
        && word.bytes().all(|byte| byte.is_ascii_digit() || b":-/.TZtz+".contains(&byte))
        && (word.contains(':') || word.matches(['-', '/', '.']).count() >= 2);
    let is_identifier = word.len() >= 16
        && digits > 0
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_time || (digits >= 9 && digits == word.len()) || is_identifier
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Adds a hash to a text that quotes only the beginning of another, so that equal beginnings are told apart.
fn told_apart(shown: &str, complete: &str) -> String {
    if shown.contains('…') { format!("{shown} ({})", short_hash(complete)) } else { shown.to_owned() }
}

/// The first digits of a hash.
fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().as_str()[..8].to_owned()
}

/// Adds the comparison of one request to the counts of a trial.
pub(crate) fn add(inputs: &mut ModelInputs, differences: Vec<Difference>) {
    inputs.compared += 1;
    inputs.changed += u32::from(!differences.is_empty());
    for Difference { part, text, key } in differences {
        if inputs.first_part.is_none() {
            inputs.first_part = Some(part);
            inputs.first_change = Some(text);
        }
        if inputs.changes.len() < MAX_CHANGES && !inputs.changes.contains(&key) {
            inputs.changes.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROMPT: &str = "You are a refund agent. Always look the order up first.\nToday is 2025-05-01.";

    fn request(prompt: &str) -> Value {
        json!({
            "model": "m-1", "temperature": 0, "seed": 4, "stream": true,
            "messages": [{"role": "system", "content": prompt}, {"role": "user", "content": "refund W1"}],
            "tools": [{"type": "function", "function": {"name": "refund", "description": "refunds", "parameters": {"type": "object"}}}],
        })
    }

    fn texts(recorded: &Value, asked: &Value) -> Vec<String> {
        let (recorded, asked) = (ModelRequest::read(recorded, None), ModelRequest::read(asked, None));
        differences(&recorded, &asked, true).into_iter().map(|difference| difference.text).collect()
    }

    fn keys(recorded: &Value, asked: &Value) -> Vec<String> {
        let (recorded, asked) = (ModelRequest::read(recorded, None), ModelRequest::read(asked, None));
        differences(&recorded, &asked, true).into_iter().map(|difference| difference.key).collect()
    }

    #[test]
    fn the_first_difference_is_named() {
        let recorded = request(PROMPT);
        assert_eq!(texts(&recorded, &recorded), Vec::<String>::new());
        let shorter = request("You are a refund agent.\nToday is 2025-05-01.");
        assert_eq!(texts(&recorded, &shorter), ["system prompt: \"Always look the order up first\" missing"]);
        let mut asked = request(PROMPT);
        asked["model"] = json!("m-2");
        asked["temperature"] = json!(0.7);
        asked["tools"][0]["function"]["parameters"]["required"] = json!(["order_id"]);
        asked["messages"][1]["content"] = json!("Customer says: refund W1");
        asked["seed"] = json!(5);
        assert_eq!(
            texts(&recorded, &asked),
            [
                "model: \"m-1\" → \"m-2\"",
                "tools: refund has another schema",
                "temperature: 0 → 0.7",
                "user message: \"user: refund W1\" missing",
                "user message: \"user: Customer says: refund W1\" added",
            ]
        );
        asked = request(PROMPT);
        asked["tools"] = json!([]);
        assert_eq!(texts(&recorded, &asked), ["tools: refund missing"]);
        assert_eq!(
            texts(&recorded, &request(&PROMPT.replace('\n', " \n"))),
            ["system prompt: the sentences or their spaces are in another order"]
        );
    }

    #[test]
    fn dates_and_identifiers_give_one_key_and_other_values_do_not() {
        let recorded = request(PROMPT);
        let on = |date: &str| keys(&recorded, &request(&PROMPT.replace("2025-05-01", date)));
        assert_eq!(on("2026-11-30"), on("2027-01-02T10:11:12.5Z"));
        assert_eq!(on("2026-11-30").len(), 1);
        assert_ne!(on("2026-11-30"), on("a holiday"));
        for (one, other) in [
            ("it is Monday, May 5, 2025", "it is Friday, June 16, 2026"),
            ("request 0af7651916cd43dd8448eb211c80319c", "request 1bf7651916cd43dd8448eb211c80319d"),
            ("at 13:20", "at 9:05:59"),
            ("stamp 1764508844", "stamp 1764508999123"),
        ] {
            assert_eq!(mask(one), mask(other));
        }
        for (one, other) in
            [("at most 3 refunds", "at most 5 refunds"), ("up to 0.5", "up to 0.7"), ("v1.2", "v1.3")]
        {
            assert_ne!(mask(one), mask(other));
        }
    }

    #[test]
    fn the_history_is_not_compared() {
        let mut recorded = request(PROMPT);
        let mut asked = request(PROMPT);
        let call = |id: &str, text: &str| {
            [
                json!({"role": "assistant", "content": null, "tool_calls": [{"id": id, "function": {"name": "f"}}]}),
                json!({"role": "tool", "content": text}),
            ]
        };
        recorded["messages"].as_array_mut().expect("a list").extend(call("1", "a"));
        asked["messages"].as_array_mut().expect("a list").extend(call("2", "b"));
        assert_eq!(texts(&recorded, &asked), Vec::<String>::new());
    }
}
