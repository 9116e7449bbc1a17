//! A scripted language model: rules and seeded random choices decide its responses.
//!
//! The model has no state: its only input is the messages of one request. The system prompt sets the order of the
//! look-ups, whether the model can skip one, and the tone. `model_server` serves it over HTTP.

use seeded::Stream;
use serde_json::{Value, json};

/// A response: a text, or tool calls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ModelResponse {
    Text(String),
    Calls(Vec<Call>),
}

/// A requested tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) tool: &'static str,
    pub(crate) arguments: Value,
}

/// Probability that the model gives up: on a clear request, and on a vague one.
const GIVES_UP: f64 = 0.003;
const GIVES_UP_VAGUE: f64 = 0.12;
/// Probability that the model skips the look-up if the prompt allows it.
const SKIPS: f64 = 0.3;
/// Probability that the model requests both look-ups in parallel.
const BOTH_AT_ONCE: f64 = 0.3;
/// Probability of an order number in lower case.
const LOWER_CASE: f64 = 0.04;

/// Responds to these messages. The name of `stream` must contain everything that the response depends on.
pub(crate) fn respond(messages: &[Value], stream: &mut Stream) -> ModelResponse {
    let rules = PromptRules::read(messages);
    let request = CustomerRequest::read(messages);
    let results = ToolResults::read(messages);
    let Some(order) = request.order.clone() else {
        return ModelResponse::Text(rules.render(stream, FOLLOW_UP, ""));
    };
    if request.is_question {
        return match results.answer("find_order") {
            None => ModelResponse::Calls(vec![call(stream, "find_order", json!({"order_id": order}))]),
            Some(Err(())) => ModelResponse::Text(rules.render(stream, NOT_FOUND, &order)),
            Some(Ok(found)) => ModelResponse::Text(rules.render(stream, DELIVERED, &days(found))),
        };
    }
    if let Some(reply) = after_write(&rules, &results, &order, stream) {
        return reply;
    }
    if let Some(reads) = next_reads(&rules, &request, &results, &order, stream) {
        return ModelResponse::Calls(reads);
    }
    decide(&rules, &request, &results, &order, stream)
}

/// The response after a write; `None` before one.
fn after_write(
    rules: &PromptRules,
    results: &ToolResults,
    order: &str,
    stream: &mut Stream,
) -> Option<ModelResponse> {
    if let Some(ticket) = results.answer("open_ticket") {
        let wordings = if ticket.is_ok() { TICKET } else { SORRY };
        return Some(ModelResponse::Text(rules.render(stream, wordings, order)));
    }
    let refund = results.answer("issue_refund")?;
    if refund.is_err() && !results.timed_out("issue_refund") {
        return Some(ModelResponse::Text(rules.render(stream, SORRY, order)));
    }
    match results.answer("refund_status") {
        // The model confirms a refund only after refund_status.
        None => Some(ModelResponse::Calls(vec![call(stream, "refund_status", json!({"order_id": order}))])),
        Some(Err(())) => Some(ModelResponse::Text(rules.render(stream, SORRY, order))),
        Some(Ok(_)) => Some(ModelResponse::Text(rules.render(stream, REFUNDED, order))),
    }
}

/// The next look-ups; `None` if no more are needed.
fn next_reads(
    rules: &PromptRules,
    request: &CustomerRequest,
    results: &ToolResults,
    order: &str,
    stream: &mut Stream,
) -> Option<Vec<Call>> {
    // An earlier look-up that is missing was skipped on purpose.
    let next = rules.reads.iter().rposition(|tool| results.answer(tool).is_some()).map_or(0, |last| last + 1);
    let mut open: Vec<&'static str> = rules.reads[next..].to_vec();
    if next == 0 && rules.can_skip_look_up && stream.happens(SKIPS) {
        open.retain(|tool| *tool != "find_order");
    }
    if !stream.happens(BOTH_AT_ONCE) {
        open.truncate(1);
    }
    if open.is_empty() {
        return None;
    }
    let spelled = if stream.happens(LOWER_CASE) { order.to_lowercase() } else { order.to_owned() };
    let arguments = |tool: &str| match tool {
        "find_order" => json!({"order_id": spelled}),
        _ => json!({"reason": request.reason}),
    };
    Some(open.into_iter().map(|tool| call(stream, tool, arguments(tool))).collect())
}

/// Refunds, opens a ticket, or gives up.
fn decide(
    rules: &PromptRules,
    request: &CustomerRequest,
    results: &ToolResults,
    order: &str,
    stream: &mut Stream,
) -> ModelResponse {
    let looked_up = match results.answer("find_order") {
        Some(Err(())) => return ModelResponse::Text(rules.render(stream, NOT_FOUND, order)),
        Some(Ok(found)) => Some(found),
        None => None,
    };
    if stream.happens(if request.vague { GIVES_UP_VAGUE } else { GIVES_UP }) {
        return ModelResponse::Text(rules.render(stream, GAVE_UP, order));
    }
    let number = |value: Option<&Value>, key: &str| value.and_then(|v| v.get(key)).and_then(Value::as_u64);
    let window = match results.answer("refund_policy") {
        Some(Ok(policy)) => number(Some(policy), "window_days"),
        Some(Err(())) | None => None,
    };
    let in_time =
        number(looked_up, "delivered_days_ago").zip(window).is_none_or(|(days, window)| days <= window);
    if !in_time {
        return ModelResponse::Calls(vec![call(
            stream,
            "open_ticket",
            json!({"order_id": order, "topic": "late_request"}),
        )]);
    }
    let cents = number(looked_up, "amount_cents").unwrap_or(request.stated_euros * 100);
    ModelResponse::Calls(vec![call(
        stream,
        "issue_refund",
        json!({"order_id": order, "amount_cents": cents}),
    )])
}

fn call(stream: &mut Stream, tool: &'static str, arguments: Value) -> Call {
    Call { id: format!("call_{}", stream.hex(12)), tool, arguments }
}

fn days(found: &Value) -> String {
    found.get("delivered_days_ago").map_or_else(|| "some".to_owned(), Value::to_string)
}

/// The instructions of the system prompt.
#[derive(Debug)]
struct PromptRules {
    reads: Vec<&'static str>,
    can_skip_look_up: bool,
    warm: bool,
}

impl PromptRules {
    fn read(messages: &[Value]) -> Self {
        let prompt = messages.iter().find(|message| role(message) == "system").map(text).unwrap_or_default();
        let mut reads = vec!["find_order", "refund_policy"];
        reads.sort_by_key(|tool| prompt.find(tool).unwrap_or(usize::MAX));
        Self { reads, can_skip_look_up: prompt.contains("skip find_order"), warm: prompt.contains("warm") }
    }

    fn render(&self, stream: &mut Stream, wordings: Wordings, about: &str) -> String {
        let wording = *stream.pick(if self.warm { wordings.warm } else { wordings.plain });
        wording.replace("{}", about)
    }
}

/// The customer's request, parsed from the text.
#[derive(Debug)]
struct CustomerRequest {
    order: Option<String>,
    reason: &'static str,
    stated_euros: u64,
    is_question: bool,
    vague: bool,
}

impl CustomerRequest {
    fn read(messages: &[Value]) -> Self {
        let message_text =
            messages.iter().rfind(|message| role(message) == "user").map(text).unwrap_or_default();
        let words = || message_text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let order = words().find(|word| word.starts_with('W') && word[1..].parse::<u32>().is_ok());
        let has = |parts: &[&str]| parts.iter().any(|part| message_text.contains(part));
        let reason = match () {
            () if has(&["broken", "damaged"]) => "damaged",
            () if has(&["late"]) => "late",
            () => "unwanted",
        };
        Self {
            order: order.map(str::to_owned),
            reason,
            stated_euros: words().rev().find_map(|word| word.parse().ok()).unwrap_or(0),
            is_question: has(&["where is my order", "been delivered"]),
            vague: has(&["is not right"]),
        }
    }
}

/// The tool results since the customer's last message.
#[derive(Debug, Default)]
struct ToolResults(Vec<(String, Value)>);

impl ToolResults {
    fn read(messages: &[Value]) -> Self {
        let start = messages.iter().rposition(|message| role(message) == "user").map_or(0, |place| place + 1);
        let tool_of = |id: &str| {
            let calls = messages[start..].iter().filter_map(|m| m.get("tool_calls")?.as_array()).flatten();
            let mut named = calls.filter(|call| call.get("id").and_then(Value::as_str) == Some(id));
            named.next()?.pointer("/function/name")?.as_str().map(str::to_owned)
        };
        let answers =
            messages[start..].iter().filter(|message| role(message) == "tool").filter_map(|message| {
                let tool = tool_of(message.get("tool_call_id")?.as_str()?)?;
                let body =
                    serde_json::from_str(text(message)).unwrap_or_else(|_| json!({"error": text(message)}));
                Some((tool, body))
            });
        Self(answers.collect())
    }

    fn body(&self, tool: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(name, _)| name == tool).map(|(_, body)| body)
    }

    fn answer(&self, tool: &str) -> Option<Result<&Value, ()>> {
        self.body(tool).map(|body| if body.get("error").is_some() { Err(()) } else { Ok(body) })
    }

    fn timed_out(&self, tool: &str) -> bool {
        self.body(tool).and_then(|body| body.get("error")).and_then(Value::as_str) == Some("timeout")
    }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn text(message: &Value) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or_default()
}

/// Wordings of one message; `{}` is replaced by the order or the number of days.
#[derive(Debug, Clone, Copy)]
struct Wordings {
    plain: &'static [&'static str],
    warm: &'static [&'static str],
}

const REFUNDED: Wordings = Wordings {
    plain: &[
        "Your refund for order {} is booked. The money arrives within five days.",
        "The refund for {} has been next; expect it on your account within five days.",
        "ToolResults: order {} is refunded. It takes up to five days to arrive.",
    ],
    warm: &[
        "I am so sorry about that! Your refund for {} is on its way and will be with you within five days.",
        "Thank you for telling us. The money for {} is booked back to you, give it five days, and have a lovely week!",
        "All settled with pleasure: {} is refunded, and you should see it within five days.",
    ],
};
const TICKET: Wordings = Wordings {
    plain: &[
        "The time for a refund of {} is over, so a colleague will look at it and write to you.",
        "Order {} is past its refund window. I have opened a ticket; a person will decide.",
    ],
    warm: &[
        "I wish I could simply refund {}, but its window has passed. A colleague has your case now and will be kind.",
        "The refund time of {} is over, I am afraid, so I have tool_of a colleague to look at it for you personally.",
    ],
};
const DELIVERED: Wordings = Wordings {
    plain: &["Your order was delivered {} days ago.", "It was delivered {} days ago."],
    warm: &[
        "Good news: it was delivered {} days ago. I hope you like it!",
        "It reached you {} days ago, enjoy!",
    ],
};
const NOT_FOUND: Wordings = Wordings {
    plain: &["I cannot find order {}. Please check the number."],
    warm: &["I looked hard, but I cannot find order {}. Could you check the number for me?"],
};
const SORRY: Wordings = Wordings {
    plain: &["I could not complete this for order {}. A colleague will write to you."],
    warm: &["I am sorry, this did not work for order {}. A colleague will write to you very soon."],
};
const GAVE_UP: Wordings = Wordings {
    plain: &["Please send us photos and a description of what is wrong with order {}."],
    warm: &["Could you send us photos and a few words on what is wrong with {}? Then we will gladly help."],
};
const FOLLOW_UP: Wordings = Wordings {
    plain: &[
        "It takes up to five days. There is nothing else to do.",
        "Within five days; nothing is left to do.",
    ],
    warm: &[
        "Within five days, and you need not do a thing. Thank you for your patience!",
        "Just lean back: five days.",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    const PROMPT: &str = "First call find_order, then refund_policy.";
    const REQUEST: &str =
        "Hi, I want my money back for order W10001, the kettle for about 40 euros: it arrived broken.";

    fn start(prompt: &str) -> Vec<Value> {
        vec![json!({"role": "system", "content": prompt}), json!({"role": "user", "content": REQUEST})]
    }

    fn add_result(messages: &mut Vec<Value>, tool: &str, body: &Value) {
        let id = format!("c{}", messages.len());
        messages.push(json!({"role": "assistant", "tool_calls": [{"id": id, "function": {"name": tool}}]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": body.to_string()}));
    }

    fn tools(reply: &ModelResponse) -> Vec<&'static str> {
        match reply {
            ModelResponse::Calls(calls) => calls.iter().map(|call| call.tool).collect(),
            ModelResponse::Text(_) => Vec::new(),
        }
    }

    #[test]
    fn refunds_the_amount_of_the_order_and_confirms_after_refund_status() {
        let mut messages = start(PROMPT);
        let first = respond(&messages, &mut rng::stream(1, &["t"]));
        assert_eq!(tools(&first)[0], "find_order");
        add_result(&mut messages, "find_order", &json!({"amount_cents": 3999, "delivered_days_ago": 5}));
        assert_eq!(tools(&respond(&messages, &mut rng::stream(1, &["t"]))), ["refund_policy"]);
        add_result(&mut messages, "refund_policy", &json!({"window_days": 90}));
        let write = respond(&messages, &mut rng::stream(1, &["t"]));
        let ModelResponse::Calls(calls) = &write else { panic!("{write:?}") };
        assert_eq!(calls[0].arguments, json!({"order_id": "W10001", "amount_cents": 3999}));
        add_result(&mut messages, "issue_refund", &json!({"error": "timeout"}));
        assert_eq!(tools(&respond(&messages, &mut rng::stream(1, &["t"]))), ["refund_status"]);
        add_result(&mut messages, "refund_status", &json!({"refunds": [{}]}));
        assert!(
            matches!(respond(&messages, &mut rng::stream(1, &["t"])), ModelResponse::Text(text) if text.contains("W10001"))
        );
    }

    #[test]
    fn a_late_request_gets_a_ticket() {
        let mut messages = start(PROMPT);
        add_result(&mut messages, "find_order", &json!({"amount_cents": 3999, "delivered_days_ago": 95}));
        add_result(&mut messages, "refund_policy", &json!({"window_days": 90}));
        assert_eq!(tools(&respond(&messages, &mut rng::stream(1, &["t"]))), ["open_ticket"]);
    }

    #[test]
    fn the_prompt_sets_the_order_of_look_ups_and_allows_a_skip() {
        let first = |prompt: &str| -> Vec<&'static str> {
            (0..200).map(|n| tools(&respond(&start(prompt), &mut rng::stream(n, &["t"])))[0]).collect()
        };
        assert!(first(PROMPT).iter().all(|tool| *tool == "find_order"));
        assert!(first("Use refund_policy before find_order.").iter().all(|tool| *tool == "refund_policy"));
        let skipping = first("find_order, refund_policy; to be quick, skip find_order.");
        let skipped = skipping.iter().filter(|tool| **tool == "refund_policy").count();
        assert!((30..90).contains(&skipped), "{skipped} of 200 skipped");
    }

    #[test]
    fn without_the_look_up_the_model_refunds_the_amount_in_the_text() {
        let mut messages = start("find_order, refund_policy; to be quick, skip find_order.");
        add_result(&mut messages, "refund_policy", &json!({"window_days": 90}));
        let ModelResponse::Calls(calls) = respond(&messages, &mut rng::stream(1, &["t"])) else {
            panic!("no call")
        };
        assert_eq!(calls[0].arguments["amount_cents"], 4000);
    }

    #[test]
    fn a_failed_write_is_not_confirmed() {
        let mut messages = start(PROMPT);
        add_result(&mut messages, "issue_refund", &json!({"error": "nothing recorded for these arguments"}));
        let message_text = respond(&messages, &mut rng::stream(1, &["t"]));
        assert!(matches!(message_text, ModelResponse::Text(text) if text.contains("could not complete")));
    }
}
