//! What exchanges have to do with one another: a tool call and the model call that asked for it, a model call and the
//! one whose history it continues; and, where no identifier exists, which session that makes.
//!
//! Whole messages are hashed and chained, never a prefix of some letters: sessions of one project share their first
//! words. Nothing here is certain, and every link says so.

use std::collections::{HashMap, VecDeque};

use schemas::canonical::{canonical, canonical_text};
use schemas::exchange::{Confidence, Link, OperationKind};
use schemas::id::{ExchangeId, SessionId};
use serde_json::Value;

use crate::encode::decode::Decoded;

/// Requested calls and histories that are remembered of one session.
const MAX_OF_SESSION: usize = 512;

/// Histories of nameless sessions that are remembered.
const MAX_NAMELESS: usize = 32_768;

type History = [u8; 32];

/// A tool call that a model asked for and nobody made yet.
#[derive(Debug)]
struct Wanted {
    by: ExchangeId,
    tool: String,
    arguments: String,
}

/// What is remembered of one session.
#[derive(Debug, Default)]
struct Thread {
    wanted: VecDeque<Wanted>,
    histories: HashMap<History, ExchangeId>,
    nameless: bool,
}

/// What is remembered of all open sessions.
#[derive(Debug, Default)]
pub(crate) struct Stitcher {
    threads: HashMap<SessionId, Thread>,
    nameless: HashMap<History, SessionId>,
}

impl Stitcher {
    /// The session of an exchange without an identifier: the one whose history it continues, or, for a tool call, the
    /// only nameless one that asked for just this call.
    pub(crate) fn find_session(&self, decoded: &Decoded) -> Option<SessionId> {
        if !decoded.history.is_empty() {
            let chain = chain(&decoded.history);
            return chain.iter().rev().find_map(|history| self.nameless.get(history)).cloned();
        }
        let (tool, arguments) = called(decoded)?;
        let asked = |thread: &&Thread| {
            thread.nameless
                && thread.wanted.iter().any(|wanted| wanted.tool == tool && wanted.arguments == arguments)
        };
        let mut found = self.threads.iter().filter(|(_, thread)| asked(thread)).map(|(session, _)| session);
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }

    /// Links an exchange to earlier ones of its session and remembers it; `named` says that the session has an identifier.
    pub(crate) fn link(
        &mut self,
        session: &SessionId,
        exchange: &ExchangeId,
        decoded: &Decoded,
        named: bool,
    ) -> Vec<Link> {
        let confidence = if named { Confidence::Likely } else { Confidence::Weak };
        let thread = self.threads.entry(session.clone()).or_default();
        thread.nameless = !named;
        let mut links = Vec::new();
        links.extend(called(decoded).and_then(|(tool, arguments)| thread.claim(tool, arguments, confidence)));
        let chain = chain(&decoded.history);
        if let Some(earlier) = chain.iter().rev().find_map(|history| thread.histories.get(history)) {
            links.push(link(earlier, "continues", "message digests", confidence));
        }
        if let Some(answer) = &decoded.answer {
            let history = extend(chain.last().copied().unwrap_or_default(), answer);
            if thread.histories.len() >= MAX_OF_SESSION {
                thread.histories.clear();
            }
            thread.histories.insert(history, exchange.clone());
            if !named {
                if self.nameless.len() >= MAX_NAMELESS {
                    self.nameless.clear();
                }
                self.nameless.insert(history, session.clone());
            }
        }
        if decoded.operation.kind == OperationKind::Chat {
            thread.want(exchange, decoded);
        }
        links
    }

    /// Forgets a closed session.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        if let Some(thread) = self.threads.remove(session) {
            for history in thread.histories.keys().filter(|_| thread.nameless) {
                self.nameless.remove(history);
            }
        }
    }
}

impl Thread {
    fn want(&mut self, by: &ExchangeId, decoded: &Decoded) {
        for call in &decoded.operation.requested {
            if self.wanted.len() >= MAX_OF_SESSION {
                self.wanted.pop_front();
            }
            let arguments = canonical_text(&call.arguments).unwrap_or_else(|| call.arguments.clone());
            self.wanted.push_back(Wanted { by: by.clone(), tool: call.tool.clone(), arguments });
        }
    }

    /// Takes the oldest request for this call; where the arguments differ, the only request for this tool.
    fn claim(&mut self, tool: &str, arguments: &str, confidence: Confidence) -> Option<Link> {
        let exact =
            self.wanted.iter().position(|wanted| wanted.tool == tool && wanted.arguments == arguments);
        if let Some(place) = exact {
            let wanted = self.wanted.remove(place)?;
            return Some(link(&wanted.by, "requested_by", "tool and arguments", confidence));
        }
        let mut same_tool = self.wanted.iter().enumerate().filter(|(_, wanted)| wanted.tool == tool);
        let (place, _) = same_tool.next().filter(|_| same_tool.next().is_none())?;
        let wanted = self.wanted.remove(place)?;
        Some(link(&wanted.by, "requested_by", "tool", Confidence::Weak))
    }
}

fn link(to: &ExchangeId, kind: &str, source: &str, confidence: Confidence) -> Link {
    Link { to: to.clone(), kind: kind.into(), source: source.into(), confidence }
}

fn called(decoded: &Decoded) -> Option<(&str, &str)> {
    let operation = &decoded.operation;
    let arguments = operation.arguments.as_deref().or(operation.arguments_verbatim.as_deref());
    (operation.kind == OperationKind::CallTool).then_some(())?;
    Some((operation.tool.as_deref()?, arguments?))
}

/// The chained digest after each message.
fn chain(messages: &[Value]) -> Vec<History> {
    let mut last = History::default();
    let mut chain = Vec::with_capacity(messages.len());
    for message in messages {
        last = extend(last, message);
        chain.push(last);
    }
    chain
}

fn extend(history: History, message: &Value) -> History {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&history);
    hasher.update(canonical(message).as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use schemas::exchange::{Operation, Protocol, RequestedCall, Usage};
    use serde_json::json;

    use super::*;

    fn decoded(kind: OperationKind) -> Decoded {
        Decoded {
            protocol: Protocol::OpenaiChat,
            operation: Operation::new(kind),
            usage: Usage::default(),
            clues: vec![],
            notes: vec![],
            finished: None,
            history: vec![],
            answer: None,
        }
    }

    fn model(history: &[&str], answer: &str, calls: &[(&str, &str)]) -> Decoded {
        let mut decoded = decoded(OperationKind::Chat);
        decoded.history = history.iter().map(|text| json!(text)).collect();
        decoded.answer = Some(json!(answer));
        let call = |(tool, arguments): &(&str, &str)| RequestedCall {
            id: None,
            tool: (*tool).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        decoded.operation.requested = calls.iter().map(call).collect();
        decoded
    }

    fn tool(name: &str, arguments: &str) -> Decoded {
        let mut decoded = decoded(OperationKind::CallTool);
        decoded.operation.tool = Some(name.to_owned());
        decoded.operation.arguments = Some(arguments.to_owned());
        decoded
    }

    fn session(text: &str) -> SessionId {
        SessionId::parse(text).expect("id")
    }

    fn exchange(text: &str) -> ExchangeId {
        ExchangeId::parse(text).expect("id")
    }

    #[test]
    fn tool_calls_find_who_asked_for_them_in_order() {
        let mut stitcher = Stitcher::default();
        let s = session("s");
        stitcher.link(
            &s,
            &exchange("m1"),
            &model(&["u"], "a", &[("f", r#"{"b":1, "a":2}"#), ("f", "{}")]),
            true,
        );
        stitcher.link(&s, &exchange("m2"), &model(&["u", "a", "r"], "b", &[("f", r#"{"a":2,"b":1}"#)]), true);
        let to = |links: Vec<Link>| {
            links
                .into_iter()
                .map(|link| (link.to.as_str().to_owned(), link.source, link.confidence))
                .collect::<Vec<_>>()
        };
        let call = tool("f", r#"{"a":2,"b":1}"#);
        assert_eq!(
            to(stitcher.link(&s, &exchange("t1"), &call, true)),
            [("m1".to_owned(), "tool and arguments".into(), Confidence::Likely)]
        );
        assert_eq!(to(stitcher.link(&s, &exchange("t2"), &call, true))[0].0, "m2");
        assert_eq!(to(stitcher.link(&s, &exchange("t3"), &tool("f", "[]"), true))[0].2, Confidence::Weak);
        assert!(stitcher.link(&s, &exchange("t4"), &tool("f", "{}"), true).is_empty());
    }

    #[test]
    fn a_history_continues_the_exchange_it_repeats() {
        let mut stitcher = Stitcher::default();
        let s = session("s");
        assert!(stitcher.link(&s, &exchange("m1"), &model(&["sys", "u"], "a", &[]), true).is_empty());
        let links = stitcher.link(&s, &exchange("m2"), &model(&["sys", "u", "a", "u2"], "b", &[]), true);
        assert_eq!((links[0].to.as_str(), links[0].kind.as_str()), ("m1", "continues"));
        assert!(
            stitcher.link(&s, &exchange("m3"), &model(&["sys", "u", "other"], "b", &[]), true).is_empty()
        );
    }

    #[test]
    fn nameless_exchanges_are_joined_by_whole_histories_only() {
        let mut stitcher = Stitcher::default();
        let (one, two) = (session("one"), session("two"));
        stitcher.link(&one, &exchange("m1"), &model(&["sys", "u"], "a", &[("f", "{}")]), false);
        stitcher.link(&two, &exchange("m2"), &model(&["sys", "u"], "b", &[("g", "{}")]), false);
        assert_eq!(stitcher.find_session(&model(&["sys", "u", "a", "r"], "c", &[])), Some(one.clone()));
        assert_eq!(stitcher.find_session(&model(&["sys", "u", "b", "r"], "c", &[])), Some(two));
        assert_eq!(
            stitcher.find_session(&model(&["sys", "u"], "c", &[])),
            None,
            "a shared beginning joins nothing"
        );
        assert_eq!(stitcher.find_session(&tool("f", "{}")), Some(one.clone()));
        stitcher.forget(&one);
        assert_eq!(stitcher.find_session(&tool("f", "{}")), None);
    }
}
