use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::record::MessageValue;

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
    let texts = (of(text()), of(name()), of(name()), of(text()));
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
            envelope: texts.3,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_this_build_writes_is_read_here(exchange in exchange()) {
        let is_early = exchange.started_at < 0 || exchange.session_started_at < 0;
        let written = Record::Exchange(Box::new(exchange));
        let bytes = written.encode().expect("encodes");
        let read = record(&bytes, &mut Known::default());
        if is_early {
            prop_assert_eq!(read, None, "times before 1970 are the general decoder's");
        } else {
            prop_assert_eq!(read, Some(written.clone()));
        }
        prop_assert_eq!(Record::decode(&bytes).expect("decodes"), written);
    }

    #[test]
    fn what_is_damaged_is_read_as_the_general_decoder_reads_it(
        exchange in exchange(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in of(any::<prop::sample::Index>()),
    ) {
        let exchange = Exchange { started_at: 1, session_started_at: 1, ..exchange };
        let mut bytes = Record::Exchange(Box::new(exchange)).encode().expect("encodes");
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        // Compared as they are written, for a damaged number may be none at all.
        if let Some(read) = record(&bytes, &mut Known::default()) {
            let general = Record::decode_any(&bytes).expect("decodes");
            prop_assert_eq!(read.encode().expect("encodes"), general.encode().expect("encodes"));
        }
    }

    #[test]
    fn pieces_and_parcels_too(session in id(), digest in digest(), bytes in vec(any::<u8>(), 0..70_000), cut in any::<prop::sample::Index>()) {
        let written = Record::Chunk { session, digest, bytes: bytes.into() };
        let encoded = written.encode().expect("encodes");
        prop_assert_eq!(record(&encoded, &mut Known::default()), Some(written));
        prop_assert_eq!(record(&encoded[..cut.index(encoded.len())], &mut Known::default()), None);

        let parcel = MessageValue { journal: "j".to_owned(), position: 1 << 40, part: 0, parts: 1, content: encoded };
        let sent = parcel.encode().expect("encodes");
        prop_assert_eq!(super::parcel(&sent[1..]).map(MessageValueView::to_owned_value), Some(parcel));
        prop_assert_eq!(super::parcel(&sent[1..cut.index(sent.len() - 1) + 1]), None);
    }
}

#[test]
fn identifiers_that_repeat_share_one_text() {
    let mut known = Known::default();
    let piece = |session: &str| {
        let session = SessionId::parse(session).expect("an id");
        Record::Chunk { session, digest: Digest([1; 16]), bytes: vec![1].into() }
    };
    let mut session = |written: Record| match record(&written.encode().expect("encodes"), &mut known) {
        Some(Record::Chunk { session, .. }) => session,
        other => panic!("{other:?}"),
    };
    let (first, second, third) = (session(piece("a")), session(piece("a")), session(piece("b")));
    assert!(std::ptr::eq(first.as_str(), second.as_str()));
    assert_eq!(third.as_str(), "b");
}

#[test]
fn equal_pieces_share_their_bytes_from_the_second_time_on() {
    let read = |known: &mut Known, session: &str, text: &'static str| {
        let session = SessionId::parse(session).expect("an id");
        let written = Record::Chunk { session, digest: Digest([1; 16]), bytes: Bytes::from(text) };
        match record(&written.encode().expect("encodes"), known) {
            Some(Record::Chunk { bytes, .. }) if bytes == text => bytes,
            other => panic!("{other:?}"),
        }
    };
    let mut known = Known::default();
    let [_, second, third] = ["a", "b", "c"].map(|session| read(&mut known, session, "tools"));
    assert_ne!(second.as_ptr(), third.as_ptr(), "nothing is remembered");
    let mut known = Known::with_pieces();
    let [_, second, third] = ["a", "b", "c"].map(|session| read(&mut known, session, "tools"));
    assert_eq!(second.as_ptr(), third.as_ptr());
    // Other bytes under the same name spoil nobody's.
    assert_ne!(read(&mut known, "d", "other").as_ptr(), third.as_ptr());
    assert_eq!(third, "tools");
}
