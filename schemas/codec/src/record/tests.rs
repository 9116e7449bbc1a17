//! Property tests: every encoded record decodes equal, and damaged bytes never panic.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use std::str::FromStr;

use schemas::body::Body;
use schemas::exchange::{
    Confidence, Exchange, Header, Identifier, Link, Operation, Redaction, RequestedCall, SmallStr, Usage,
};
use schemas::keys::DIGEST_BYTES;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["", "[a-zé⟦]{1,40}", Just("x".repeat(300)), Just("y".repeat(70_000))]
}

fn name() -> impl Strategy<Value = SmallStr> {
    text().prop_map(SmallStr::from)
}

fn id<T: FromStr + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-zé]{1,40}".prop_map(|text| T::from_str(&text).ok().expect("an id"))
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, bits)| number >> bits)
}

fn small() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0_u32..32).prop_map(|(number, bits)| number >> bits)
}

fn word<T: FromStr + std::fmt::Debug>(all: &'static [&'static str]) -> impl Strategy<Value = T> {
    proptest::sample::select(all).prop_map(|text| T::from_str(text).ok().expect("a word"))
}

fn confidence() -> impl Strategy<Value = Confidence> {
    word(&["weak", "likely", "certain"])
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; DIGEST_BYTES]>().prop_map(Digest)
}

fn body() -> impl Strategy<Value = Body> {
    let template = prop_oneof![vec(any::<u8>(), 0..300), Just(vec![7; 70_000])];
    (template, vec(small(), 0..40), vec(digest(), 0..40), number())
        .prop_map(|(template, chunk_offsets, chunks, bytes)| Body { template, chunk_offsets, chunks, bytes })
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = word(&["turn", "chat", "call_tool", "list_tools", "other", "opaque"]);
    let call = (of(text()), text(), text());
    let call = call.prop_map(|(id, tool, arguments)| RequestedCall { id, tool, arguments });
    let texts = (vec(of(text()), 9), vec(call, 0..3));
    let flags = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    (kind, texts, flags, of(digest()), word(&["read", "write", "unknown"])).prop_map(
        |(kind, (texts, requested), (is_error, reversible, idempotent), arguments_digest, effect)| {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            Operation {
                method: next(),
                model: next(),
                input: next(),
                output: next(),
                finish_reason: next(),
                tool: next(),
                arguments: next(),
                arguments_verbatim: next(),
                result: next(),
                requested,
                arguments_digest,
                is_error,
                effect,
                reversible,
                idempotent,
                ..Operation::new(kind)
            }
        },
    )
}

fn header() -> impl Strategy<Value = Header> {
    (name(), name()).prop_map(|(name, value)| Header { name, value })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let identifier = (name(), name(), name(), confidence(), any::<bool>()).prop_map(
        |(name, value, source, confidence, chosen)| Identifier { name, value, source, confidence, chosen },
    );
    let link = (id(), name(), name(), confidence()).prop_map(|(to, kind, source, confidence)| Link {
        to,
        kind,
        source,
        confidence,
    });
    let redaction =
        (name(), name(), small()).prop_map(|(kind, location, count)| Redaction { kind, location, count });
    let usage = (of(number()), of(number()), of(number()), of(-1e9..1e9)).prop_map(
        |(input_tokens, output_tokens, cached_tokens, cost_usd)| Usage {
            input_tokens,
            output_tokens,
            cached_tokens,
            cost_usd,
        },
    );
    let ids = (id(), id(), id(), of(id()), id(), id());
    let words = (
        word(&["turn", "model", "tool"]),
        word(&["openai_chat", "mcp", "generic_json", "opaque", "imported"]),
        word(&["complete", "failed", "truncated", "cancelled"]),
    );
    let numbers =
        (small(), number(), any::<i64>(), any::<i64>(), of(number()), of(number()), of(any::<u16>()));
    let texts = (of(text()), of(name()), of(name()));
    let lists = (vec(header(), 0..3), vec(header(), 0..3), vec(small(), 0..20));
    let more = (vec(identifier, 0..3), vec(link, 0..3), vec(redaction, 0..3));
    (ids, words, numbers, texts, lists, more, (body(), body()), operation(), usage).prop_map(
        |(ids, words, numbers, texts, lists, more, (request, response), operation, usage)| Exchange {
            exchange: ids.0,
            tenant: ids.1,
            agent: ids.2,
            build: ids.3,
            session: ids.4,
            incarnation: ids.5,
            seq: numbers.0,
            incarnation_seq: numbers.1,
            edge: words.0,
            protocol: words.1,
            started_at: numbers.2,
            session_started_at: numbers.3,
            first_byte_us: numbers.4,
            duration_us: numbers.5,
            frame_gaps_us: lists.2,
            ending: words.2,
            ending_detail: texts.0,
            http_method: texts.1,
            path: texts.2,
            status: numbers.6,
            request_headers: lists.0,
            response_headers: lists.1,
            request,
            response,
            operation,
            usage,
            identifiers: more.0,
            links: more.1,
            redactions: more.2,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let chunk = (id(), digest(), vec(any::<u8>(), 0..70_000))
        .prop_map(|(session, digest, bytes)| Record::Chunk { session, digest, bytes: bytes.into() });
    prop_oneof![chunk, exchange().prop_map(|exchange| Record::Exchange(Box::new(exchange)))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_encoded_record_decodes_equal(record in record()) {
        let bytes = record.encode().expect("encodes");
        prop_assert_eq!(Record::decode(&bytes).expect("decodes"), record);
    }

    /// Damage is an error or another record, never a panic, and a record that decodes can be encoded.
    #[test]
    fn a_damaged_record_never_panics(
        record in record(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = record.encode().expect("encodes");
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(decoded) = Record::decode(&bytes) {
            decoded.encode().expect("encodes");
        }
    }

    #[test]
    fn a_truncated_record_is_refused(record in record(), end in any::<prop::sample::Index>()) {
        let bytes = record.encode().expect("encodes");
        prop_assert!(Record::decode(&bytes[..end.index(bytes.len())]).is_err());
    }
}

#[test]
fn other_versions_are_named() {
    let error = Record::decode(&[9, 1]).expect_err("version 9");
    assert!(matches!(error, RecordError::Version { found: 9, supported: RECORD_VERSION }), "{error}");
}
