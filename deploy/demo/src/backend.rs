//! The backend of the demo's shop: customers' requests, orders, and the ledger behind the tool server.
//!
//! The backend has no code for agents or models. A request is a plain text, and only the tools expose the orders.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use seeded::Stream;
use serde_json::{Value, json};

use crate::rng;

const ITEMS: [(&str, u32); 12] = [
    ("coffee grinder", 8_990),
    ("desk lamp", 4_450),
    ("rain jacket", 12_900),
    ("kettle", 3_995),
    ("trail shoes", 10_900),
    ("picture frame", 1_890),
    ("headphones", 14_950),
    ("blanket", 5_500),
    ("chess set", 6_240),
    ("bicycle bell", 1_295),
    ("backpack", 7_990),
    ("wall clock", 3_350),
];

/// Reason of a refund request; the refund policy depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Damaged,
    Late,
    Unwanted,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Late => "late",
            Self::Unwanted => "unwanted",
        }
    }

    /// Refund window, days after delivery.
    fn window_days(self) -> u32 {
        match self {
            Self::Damaged => 90,
            Self::Late => 60,
            Self::Unwanted => 30,
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Damaged => {
                &["it arrived broken", "it came damaged", "the box was crushed and it is broken inside"]
            }
            Self::Late => {
                &["it came far too late", "it arrived two weeks late", "it was late for the birthday"]
            }
            Self::Unwanted => {
                &["I do not need it any more", "I changed my mind", "it is the wrong colour for me"]
            }
        }
    }
}

/// An order.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: String,
    item: &'static str,
    amount_cents: u32,
    delivered_days_ago: u32,
    /// The payment provider is slow for this order and responds before the refund is booked.
    slow_payment: bool,
}

/// One customer with their messages.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Id of the live session.
    pub(crate) id: String,
    /// Messages of the customer, one per turn.
    pub(crate) turns: Vec<String>,
    pub(crate) order: Order,
}

impl Case {
    /// Draws the case with this number.
    pub(crate) fn draw(seed: u64, number: u32) -> Self {
        let id = format!("chat-{number:04}");
        let mut stream = rng::stream(seed, &["case", &id]);
        let (item, base_cents) = *stream.pick(&ITEMS);
        let kind = stream.below(100);
        let reason = *stream.pick(&[Reason::Damaged, Reason::Late, Reason::Unwanted]);
        let too_old = (65..85).contains(&kind);
        let window = reason.window_days();
        let delivered = if too_old { window + 1 + stream.below(60) } else { 2 + stream.below(window - 2) };
        let order = Order {
            id: format!("W{}", 10_000 + number * 7 + stream.below(7)),
            item,
            amount_cents: base_cents + 10 * stream.below(90),
            delivered_days_ago: delivered,
            slow_payment: stream.happens(0.2),
        };
        let mut turns =
            vec![if kind < 85 { refund(&order, reason, &mut stream) } else { question(&order, &mut stream) }];
        if stream.happens(0.35) {
            let follow =
                ["Thank you! When will that be done?", "Thanks. Is there anything I still have to do?"];
            turns.push((*stream.pick(&follow)).to_owned());
        }
        Self { id, turns, order }
    }
}

fn refund(order: &Order, reason: Reason, stream: &mut Stream) -> String {
    let why = stream.pick(reason.words());
    // Customers round, so the amount in the text is usually not the amount of the order.
    let said = (order.amount_cents + 50) / 100;
    let opening = *stream.pick(&["Hello,", "Hi,", "Good morning,", "Dear team,"]);
    let id = &order.id;
    let item = order.item;
    if stream.happens(0.12) {
        // The model gives up more often on a vague request.
        return format!(
            "{opening} something about my order {id} ({item}, about {said} euros) is not right, {why}. Can you do anything?"
        );
    }
    format!("{opening} I want my money back for order {id}, the {item} for about {said} euros: {why}.")
}

fn question(order: &Order, stream: &mut Stream) -> String {
    let id = &order.id;
    let item = order.item;
    let forms = [
        format!("Hi, where is my order {id}? It is the {item}."),
        format!("Hello, has my order {id} with the {item} been delivered?"),
    ];
    stream.pick(&forms).clone()
}

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolReply {
    pub(crate) body: Value,
    pub(crate) is_error: bool,
    /// Processing time of the backend.
    pub(crate) delay: Duration,
}

/// Orders, refunds and tickets: the only state that a write changes.
#[derive(Debug)]
pub(crate) struct Ledger {
    orders: BTreeMap<String, Order>,
    refunds: Mutex<BTreeMap<String, Vec<Value>>>,
    writes: Mutex<u64>,
}

impl Ledger {
    pub(crate) fn new(cases: &[Case]) -> Self {
        let orders = cases.iter().map(|case| (case.order.id.clone(), case.order.clone())).collect();
        Self { orders, refunds: Mutex::default(), writes: Mutex::default() }
    }

    /// Number of executed writes.
    pub(crate) fn writes(&self) -> u64 {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes a tool call; bad arguments give an error reply.
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> ToolReply {
        match tool {
            "refund_policy" => policy(arguments),
            "find_order" => self.with_order(arguments, |order| answer(describe(order), 2)),
            "refund_status" => self.with_order(arguments, |order| self.status(order)),
            "issue_refund" => self.with_order(arguments, |order| self.refund(order, arguments)),
            "open_ticket" => self.with_order(arguments, |order| self.ticket(order, arguments)),
            _ => error(format!("there is no tool {tool:?}")),
        }
    }

    fn with_order(&self, arguments: &Value, then: impl FnOnce(&Order) -> ToolReply) -> ToolReply {
        let wanted = arguments.get("order_id").and_then(Value::as_str).unwrap_or_default();
        match self.orders.get(&wanted.trim().to_uppercase()) {
            Some(order) => then(order),
            None => error(format!("order {wanted:?} is not known")),
        }
    }

    fn status(&self, order: &Order) -> ToolReply {
        let refunds = self.refunds.lock().unwrap_or_else(PoisonError::into_inner);
        let made = refunds.get(&order.id).cloned().unwrap_or_default();
        answer(json!({"order_id": order.id, "refunds": made}), 2)
    }

    fn refund(&self, order: &Order, arguments: &Value) -> ToolReply {
        let Some(cents) = arguments.get("amount_cents").and_then(Value::as_u64) else {
            return error("amount_cents is missing".to_owned());
        };
        self.count_write();
        let mut refunds = self.refunds.lock().unwrap_or_else(PoisonError::into_inner);
        let made = refunds.entry(order.id.clone()).or_default();
        let refund_id = format!("R{}-{}", order.id.trim_start_matches('W'), made.len() + 1);
        made.push(json!({"refund_id": refund_id, "amount_cents": cents, "status": "booked"}));
        let (status, delay_ms) = if order.slow_payment { ("processing", 120) } else { ("booked", 6) };
        answer(json!({"refund_id": refund_id, "amount_cents": cents, "status": status}), delay_ms)
    }

    fn ticket(&self, order: &Order, arguments: &Value) -> ToolReply {
        self.count_write();
        let topic = arguments.get("topic").and_then(Value::as_str).unwrap_or("other");
        let ticket = format!("T{}", order.id.trim_start_matches('W'));
        answer(json!({"ticket": ticket, "order_id": order.id, "topic": topic}), 4)
    }

    fn count_write(&self) {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

fn policy(arguments: &Value) -> ToolReply {
    let wanted = arguments.get("reason").and_then(Value::as_str).unwrap_or_default();
    match [Reason::Damaged, Reason::Late, Reason::Unwanted]
        .into_iter()
        .find(|reason| reason.as_str() == wanted)
    {
        Some(reason) => answer(
            json!({"reason": reason.as_str(), "window_days": reason.window_days(),
                "rule": "refund in full within the window after delivery; later requests go to a person"}),
            1,
        ),
        None => error(format!("there is no policy for {wanted:?}; use damaged, late or unwanted")),
    }
}

fn describe(order: &Order) -> Value {
    json!({"order_id": order.id, "item": order.item, "amount_cents": order.amount_cents, "currency": "EUR",
        "delivered_days_ago": order.delivered_days_ago})
}

fn answer(body: Value, delay_ms: u64) -> ToolReply {
    ToolReply { body, is_error: false, delay: Duration::from_millis(delay_ms) }
}

fn error(message: String) -> ToolReply {
    ToolReply { body: json!({"error": message}), is_error: true, delay: Duration::from_millis(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refund_call_books_a_refund() {
        let cases: Vec<Case> = (0..20).map(|number| Case::draw(1, number)).collect();
        let ledger = Ledger::new(&cases);
        let id = &cases[3].order.id;
        let arguments = json!({"order_id": id, "amount_cents": 500});
        assert_eq!(ledger.call("issue_refund", &arguments).body["refund_id"], format!("R{}-1", &id[1..]));
        assert_eq!(ledger.call("issue_refund", &arguments).body["refund_id"], format!("R{}-2", &id[1..]));
        let status = ledger.call("refund_status", &json!({"order_id": id.to_lowercase()}));
        assert_eq!(status.body["refunds"].as_array().map(Vec::len), Some(2));
        assert_eq!(ledger.writes(), 2);
    }

    #[test]
    fn bad_arguments_give_an_error() {
        let ledger = Ledger::new(&[Case::draw(1, 0)]);
        assert!(ledger.call("find_order", &json!({"order_id": "W1"})).is_error);
        assert!(ledger.call("refund_policy", &json!({"reason": "bored"})).is_error);
        assert!(ledger.call("make_coffee", &json!({})).is_error);
        assert!(ledger.call("issue_refund", &json!({"order_id": Case::draw(1, 0).order.id})).is_error);
        assert_eq!(ledger.writes(), 0);
    }

    #[test]
    fn two_hundred_cases_contain_every_kind_and_distinct_orders() {
        let cases: Vec<Case> = (0..200).map(|number| Case::draw(42, number)).collect();
        let ledger = Ledger::new(&cases);
        assert_eq!(ledger.orders.len(), 200);
        let slow = cases.iter().filter(|case| case.order.slow_payment).count();
        assert!((20..65).contains(&slow), "{slow} slow payments of 200");
        assert!(
            cases
                .iter()
                .any(|case| case.turns[0].contains("where is") || case.turns[0].contains("delivered"))
        );
        assert!(cases.iter().any(|case| case.turns.len() == 2));
    }
}
