//! Links exchanges by content: a tool call to the model call that requested it, a model call to the one whose history
//! it continues. Finds the session of an exchange that has no session hint.
//!
//! Hashes cover whole messages, chained, never a prefix of some characters: sessions of one project start with the same
//! words. No link is certain, and each carries its confidence.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;

use lru::LruCache;
use schemas::canonical::{canonical, canonical_text};
use schemas::exchange::{Confidence, Link, OperationKind};
use schemas::id::{ExchangeId, SessionId};
use serde_json::Value;

use super::decode::decoded::Decoded;

/// Requested tool calls, and histories, that the linker keeps of one session; the oldest leave first.
const MAX_OF_SESSION: NonZeroUsize = NonZeroUsize::new(512).expect("above zero");

/// Histories of anonymous sessions that the linker keeps; the least recently used leave first.
const MAX_ANONYMOUS: NonZeroUsize = NonZeroUsize::new(32_768).expect("above zero");

/// Digest of a history: each message extends the digest of the messages before it.
type HistoryHash = [u8; 32];

/// Digest of a tool name with its canonical arguments.
type CallHash = [u8; 32];

/// A tool call that a model requested and that no exchange has made yet.
#[derive(Debug)]
struct PendingToolCall {
    requested_by: ExchangeId,
    tool: String,
    call: CallHash,
}

/// Linkable parts of one session.
#[derive(Debug)]
struct SessionLinks {
    pending: VecDeque<PendingToolCall>,
    /// History including the response → exchange with that response.
    histories: LruCache<HistoryHash, ExchangeId>,
    /// Whether no exchange of the session has a session hint.
    anonymous: bool,
}

/// Linkable parts of all open sessions.
#[derive(Debug)]
pub(crate) struct SessionLinker {
    sessions: HashMap<SessionId, SessionLinks>,
    anonymous_histories: LruCache<HistoryHash, SessionId>,
    anonymous_calls: PendingCallIndex,
}

/// Anonymous sessions by the tool calls that are pending in them.
#[derive(Debug, Default)]
struct PendingCallIndex(HashMap<CallHash, HashMap<SessionId, u32>>);

impl PendingCallIndex {
    fn add(&mut self, call: CallHash, session: &SessionId) {
        *self.0.entry(call).or_default().entry(session.clone()).or_default() += 1;
    }

    fn remove(&mut self, call: &CallHash, session: &SessionId) {
        let Some(sessions) = self.0.get_mut(call) else { return };
        if let Some(count) = sessions.get_mut(session) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(session);
            }
        }
        if sessions.is_empty() {
            self.0.remove(call);
        }
    }

    /// The session in which this call is pending, if it is the only one.
    fn only_session(&self, call: &CallHash) -> Option<&SessionId> {
        let sessions = self.0.get(call)?;
        sessions.keys().next().filter(|_| sessions.len() == 1)
    }
}

impl Default for SessionLinker {
    fn default() -> Self {
        Self {
            sessions: HashMap::new(),
            anonymous_histories: bounded_cache(MAX_ANONYMOUS),
            anonymous_calls: PendingCallIndex::default(),
        }
    }
}

impl SessionLinker {
    /// The session of an exchange without a hint: the anonymous one whose history it continues or, for a tool call, the
    /// only anonymous one in which exactly this call is pending.
    pub(crate) fn find_session(&mut self, decoded: &Decoded) -> Option<SessionId> {
        if !decoded.history.is_empty() {
            let chain = chain(&decoded.history);
            return chain.iter().rev().find_map(|history| self.anonymous_histories.get(history).cloned());
        }
        let (tool, arguments) = tool_call(decoded)?;
        self.anonymous_calls.only_session(&call_hash(tool, arguments)).cloned()
    }

    /// Links an exchange to earlier ones of its session and keeps its linkable parts; `named` says that the exchange has
    /// a session hint.
    pub(crate) fn link(
        &mut self,
        session: &SessionId,
        exchange: &ExchangeId,
        decoded: &Decoded,
        named: bool,
    ) -> Vec<Link> {
        let confidence = if named { Confidence::Likely } else { Confidence::Weak };
        let of_session = self.sessions.entry(session.clone()).or_insert_with(|| SessionLinks::new(!named));
        let mut links = Vec::new();
        if let Some((tool, arguments)) = tool_call(decoded)
            && let Some((pending, exact)) = of_session.take_match(tool, arguments)
        {
            if of_session.anonymous {
                self.anonymous_calls.remove(&pending.call, session);
            }
            links.push(if exact {
                link(&pending.requested_by, "requested_by", "tool and arguments", confidence)
            } else {
                link(&pending.requested_by, "requested_by", "tool", Confidence::Weak)
            });
        }
        let chain = chain(&decoded.history);
        let earlier = chain.iter().rev().find_map(|history| of_session.histories.get(history).cloned());
        if let Some(earlier) = earlier {
            links.push(link(&earlier, "continues", "message digests", confidence));
        }
        if let Some(answer) = &decoded.answer {
            let history = extend(chain.last().copied().unwrap_or_default(), answer);
            let evicted = of_session.histories.push(history, exchange.clone());
            if of_session.anonymous {
                if let Some((evicted, _)) = evicted.filter(|(evicted, _)| *evicted != history) {
                    self.anonymous_histories.pop(&evicted);
                }
                self.anonymous_histories.push(history, session.clone());
            }
        }
        if decoded.operation.kind == OperationKind::Chat {
            for call in &decoded.operation.requested {
                let arguments = canonical_text(&call.arguments);
                let hash = call_hash(&call.tool, arguments.as_deref().unwrap_or(&call.arguments));
                let pending =
                    PendingToolCall { requested_by: exchange.clone(), tool: call.tool.clone(), call: hash };
                let dropped = of_session.push(pending);
                if of_session.anonymous {
                    if let Some(dropped) = dropped {
                        self.anonymous_calls.remove(&dropped.call, session);
                    }
                    self.anonymous_calls.add(hash, session);
                }
            }
        }
        links
    }

    /// Forgets a closed session.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        let Some(closed) = self.sessions.remove(session).filter(|closed| closed.anonymous) else { return };
        for (history, _) in &closed.histories {
            self.anonymous_histories.pop(history);
        }
        for pending in &closed.pending {
            self.anonymous_calls.remove(&pending.call, session);
        }
    }
}

impl SessionLinks {
    fn new(anonymous: bool) -> Self {
        Self { pending: VecDeque::new(), histories: bounded_cache(MAX_OF_SESSION), anonymous }
    }

    /// Adds a requested call; returns the oldest one where it had to leave.
    fn push(&mut self, pending: PendingToolCall) -> Option<PendingToolCall> {
        let dropped =
            if self.pending.len() >= MAX_OF_SESSION.get() { self.pending.pop_front() } else { None };
        self.pending.push_back(pending);
        dropped
    }

    /// Takes the oldest request for this call, and `true`. Without one: the only request for this tool, and `false`.
    fn take_match(&mut self, tool: &str, arguments: &str) -> Option<(PendingToolCall, bool)> {
        let call = call_hash(tool, arguments);
        if let Some(position) = self.pending.iter().position(|pending| pending.call == call) {
            return Some((self.pending.remove(position)?, true));
        }
        let mut same_tool = self.pending.iter().enumerate().filter(|(_, pending)| pending.tool == tool);
        let (position, _) = same_tool.next().filter(|_| same_tool.next().is_none())?;
        Some((self.pending.remove(position)?, false))
    }
}

/// A cache that allocates as it fills.
fn bounded_cache<K: std::hash::Hash + Eq, V>(capacity: NonZeroUsize) -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(capacity);
    cache
}

fn link(to: &ExchangeId, kind: &str, source: &str, confidence: Confidence) -> Link {
    Link { to: to.clone(), kind: kind.into(), source: source.into(), confidence }
}

/// Tool and arguments of a tool call.
fn tool_call(decoded: &Decoded) -> Option<(&str, &str)> {
    let operation = &decoded.operation;
    let arguments = operation.arguments.as_deref().or(operation.arguments_verbatim.as_deref());
    (operation.kind == OperationKind::CallTool).then_some(())?;
    Some((operation.tool.as_deref()?, arguments?))
}

fn call_hash(tool: &str, arguments: &str) -> CallHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(tool.len() as u64).to_le_bytes());
    hasher.update(tool.as_bytes());
    hasher.update(arguments.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The chained digest after each message.
fn chain(messages: &[Value]) -> Vec<HistoryHash> {
    let mut last = HistoryHash::default();
    let mut chain = Vec::with_capacity(messages.len());
    for message in messages {
        last = extend(last, message);
        chain.push(last);
    }
    chain
}

fn extend(history: HistoryHash, message: &Value) -> HistoryHash {
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
            hints: vec![],
            notes: vec![],
            finished: None,
            history: vec![],
            answer: None,
            joins_events: false,
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
    fn a_tool_call_links_to_its_oldest_request() {
        let mut linker = SessionLinker::default();
        let s = session("s");
        linker.link(
            &s,
            &exchange("m1"),
            &model(&["u"], "a", &[("f", r#"{"b":1, "a":2}"#), ("f", "{}")]),
            true,
        );
        linker.link(&s, &exchange("m2"), &model(&["u", "a", "r"], "b", &[("f", r#"{"a":2,"b":1}"#)]), true);
        let to = |links: Vec<Link>| {
            links
                .into_iter()
                .map(|link| (link.to.as_str().to_owned(), link.source, link.confidence))
                .collect::<Vec<_>>()
        };
        let call = tool("f", r#"{"a":2,"b":1}"#);
        assert_eq!(
            to(linker.link(&s, &exchange("t1"), &call, true)),
            [("m1".to_owned(), "tool and arguments".into(), Confidence::Likely)]
        );
        assert_eq!(to(linker.link(&s, &exchange("t2"), &call, true))[0].0, "m2");
        assert_eq!(to(linker.link(&s, &exchange("t3"), &tool("f", "[]"), true))[0].2, Confidence::Weak);
        assert!(linker.link(&s, &exchange("t4"), &tool("f", "{}"), true).is_empty());
    }

    #[test]
    fn a_history_continues_the_exchange_it_repeats() {
        let mut linker = SessionLinker::default();
        let s = session("s");
        assert!(linker.link(&s, &exchange("m1"), &model(&["sys", "u"], "a", &[]), true).is_empty());
        let links = linker.link(&s, &exchange("m2"), &model(&["sys", "u", "a", "u2"], "b", &[]), true);
        assert_eq!((links[0].to.as_str(), links[0].kind.as_str()), ("m1", "continues"));
        assert!(linker.link(&s, &exchange("m3"), &model(&["sys", "u", "other"], "b", &[]), true).is_empty());
    }

    #[test]
    fn anonymous_exchanges_join_by_complete_histories_only() {
        let mut linker = SessionLinker::default();
        let (one, two) = (session("one"), session("two"));
        linker.link(&one, &exchange("m1"), &model(&["sys", "u"], "a", &[("f", "{}")]), false);
        linker.link(&two, &exchange("m2"), &model(&["sys", "u"], "b", &[("g", "{}")]), false);
        assert_eq!(linker.find_session(&model(&["sys", "u", "a", "r"], "c", &[])), Some(one.clone()));
        assert_eq!(linker.find_session(&model(&["sys", "u", "b", "r"], "c", &[])), Some(two));
        assert_eq!(
            linker.find_session(&model(&["sys", "u"], "c", &[])),
            None,
            "a shared beginning joins nothing"
        );
        assert_eq!(linker.find_session(&tool("f", "{}")), Some(one.clone()));
        linker.forget(&one);
        assert_eq!(linker.find_session(&tool("f", "{}")), None);
    }

    #[test]
    fn a_pending_call_in_two_anonymous_sessions_joins_neither() {
        let mut linker = SessionLinker::default();
        let (one, two) = (session("one"), session("two"));
        linker.link(&one, &exchange("m1"), &model(&["u"], "a", &[("f", "{}"), ("f", "{}")]), false);
        linker.link(&two, &exchange("m2"), &model(&["u2"], "b", &[("f", "{}")]), false);
        assert_eq!(linker.find_session(&tool("f", "{}")), None, "both wait for this call");
        linker.link(&two, &exchange("t1"), &tool("f", "{}"), false);
        assert_eq!(linker.find_session(&tool("f", "{}")), Some(one.clone()));
        linker.link(&one, &exchange("t2"), &tool("f", "{}"), false);
        assert_eq!(linker.find_session(&tool("f", "{}")), Some(one.clone()), "one request is left");
        linker.link(&one, &exchange("t3"), &tool("f", "{}"), false);
        assert_eq!(linker.find_session(&tool("f", "{}")), None);
        assert!(linker.anonymous_calls.0.is_empty(), "calls that were made leave the index");
    }

    #[test]
    fn the_index_of_pending_calls_follows_what_a_session_keeps() {
        let mut linker = SessionLinker::default();
        let one = session("one");
        let calls: Vec<(String, String)> =
            (0..MAX_OF_SESSION.get() + 9).map(|number| ("f".to_owned(), number.to_string())).collect();
        let calls: Vec<(&str, &str)> =
            calls.iter().map(|(tool, arguments)| (tool.as_str(), arguments.as_str())).collect();
        linker.link(&one, &exchange("m1"), &model(&["u"], "a", &calls), false);
        assert_eq!(linker.find_session(&tool("f", "8")), None, "the oldest requests left");
        assert_eq!(linker.find_session(&tool("f", "9")), Some(one.clone()));
        assert_eq!(linker.anonymous_calls.0.len(), MAX_OF_SESSION.get());
        linker.forget(&one);
        assert!(linker.anonymous_calls.0.is_empty() && linker.anonymous_histories.is_empty());
    }
}
