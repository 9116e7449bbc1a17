//! Reads records in the exact form in which this build writes them: every name where it is expected, so that it is compared
//! and not looked up.
//!
//! An archiver reads hundreds of thousands of exchanges of a hundred named fields. What stands otherwise in any way, and what
//! is broken, is `None` here and left to the general decoder, which says what is wrong. Both read the same bytes alike.

use std::str::FromStr;

use bytes::Bytes;

use schemas::body::Body;
use schemas::exchange::{
    Confidence, Edge, Effect, Ending, Exchange, Header, Identifier, Link, Operation, OperationKind, Protocol,
    Redaction, RequestedCall, SmallStr, Usage,
};
use schemas::id::{AgentId, BuildId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{DIGEST_BYTES, Digest};

use super::{MessageValueView, RECORD_VERSION, Record};

/// Places for pieces that were read: few enough to lie in a processor's cache.
const PLACES: usize = 1024;

/// What was read and is shared where it comes again: identifiers as long as they repeat the last ones, and pieces that
/// every session of an agent sends, like its tools.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    tenant: Option<TenantId>,
    agent: Option<AgentId>,
    build: Option<BuildId>,
    session: Option<SessionId>,
    incarnation: Option<IncarnationId>,
    /// By their digests, the newer instead of the older; none where pieces are not remembered. The bytes are kept of what
    /// was met twice, for most pieces are met once.
    pieces: Vec<(Digest, Bytes)>,
}

impl Known {
    /// Remembers pieces too: equal ones share their bytes.
    pub(super) fn with_pieces() -> Self {
        Self { pieces: vec![(Digest([0; DIGEST_BYTES]), Bytes::new()); PLACES], ..Self::default() }
    }

    fn piece(&mut self, digest: Digest, bytes: &[u8]) -> Bytes {
        let [first, second, ..] = digest.0;
        let place = usize::from(u16::from_le_bytes([first, second])) % PLACES;
        match self.pieces.get_mut(place) {
            Some((known, shared)) if *known == digest => {
                if *shared != bytes {
                    *shared = Bytes::copy_from_slice(bytes);
                }
                shared.clone()
            }
            other => {
                if let Some(other) = other {
                    *other = (digest, Bytes::new());
                }
                Bytes::copy_from_slice(bytes)
            }
        }
    }
}

/// An encoded piece or exchange with its version byte.
pub(super) fn record(bytes: &[u8], known: &mut Known) -> Option<Record> {
    let rest = bytes.strip_prefix(&[RECORD_VERSION, MAP_OF_1])?;
    let mut from = Source { rest, known };
    let record = if from.name("Chunk") {
        from.map(3)?;
        let (session, digest) = (from.field("session")?, from.field("digest")?);
        let bytes = from.field("bytes")?;
        Record::Chunk { session, digest, bytes: from.known.piece(digest, bytes) }
    } else if from.name("Exchange") {
        Record::Exchange(Box::new(Read::read(&mut from)?))
    } else {
        return None;
    };
    from.rest.is_empty().then_some(record)
}

/// A parcel without its version byte.
pub(super) fn parcel(bytes: &[u8]) -> Option<MessageValueView<'_>> {
    let mut from = Source { rest: bytes, known: &mut Known::default() };
    let parcel = MessageValueView::read(&mut from)?;
    from.rest.is_empty().then_some(parcel)
}

const NIL: u8 = 0xc0;
const MAP_OF_1: u8 = 0x81;
const FIXED_TEXT: u8 = 0xa0;

/// What is left to read, in MessagePack.
struct Source<'a, 'k> {
    rest: &'a [u8],
    known: &'k mut Known,
}

impl<'a> Source<'a, '_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(first)
    }

    /// Passes over a text of fewer than 32 bytes, if it is this one.
    #[inline]
    fn name(&mut self, name: &str) -> bool {
        let Some((&marker, rest)) = self.rest.split_first() else { return false };
        if usize::from(marker ^ FIXED_TEXT) != name.len() {
            return false;
        }
        let Some(rest) = rest.strip_prefix(name.as_bytes()) else { return false };
        self.rest = rest;
        true
    }

    #[inline]
    fn field<T: Read<'a>>(&mut self, name: &str) -> Option<T> {
        if self.name(name) { T::read(self) } else { None }
    }

    /// Passes over the head of a map, if it has this many entries.
    fn map(&mut self, entries: usize) -> Option<()> {
        let found = match self.byte()? {
            marker @ 0x80..=0x8f => usize::from(marker & 0x0f),
            0xde => u16::from_be_bytes(self.bytes()?).into(),
            _ => return None,
        };
        (found == entries).then_some(())
    }

    fn array(&mut self) -> Option<usize> {
        Some(match self.byte()? {
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => u16::from_be_bytes(self.bytes()?).into(),
            0xdd => u32::from_be_bytes(self.bytes()?) as usize,
            _ => return None,
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = match self.byte()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.byte()?.into(),
            0xda => u16::from_be_bytes(self.bytes()?).into(),
            0xdb => u32::from_be_bytes(self.bytes()?) as usize,
            _ => return None,
        };
        simdutf8::basic::from_utf8(self.slice(length)?).ok()
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            0xc4 => self.byte()?.into(),
            0xc5 => u16::from_be_bytes(self.bytes()?).into(),
            0xc6 => u32::from_be_bytes(self.bytes()?) as usize,
            _ => return None,
        };
        self.slice(length)
    }

    fn unsigned(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0x00..=0x7f => small.into(),
            0xcc => self.byte()?.into(),
            0xcd => u16::from_be_bytes(self.bytes()?).into(),
            0xce => u32::from_be_bytes(self.bytes()?).into(),
            0xcf => u64::from_be_bytes(self.bytes()?),
            _ => return None,
        })
    }
}

/// A value of a record.
trait Read<'a>: Sized {
    fn read(from: &mut Source<'a, '_>) -> Option<Self>;

    /// Reads so many of them, one after another.
    fn read_all(count: usize, from: &mut Source<'a, '_>) -> Option<Vec<Self>> {
        // An item has at least a byte, so a length that is not true asks for no more memory than the message has.
        let mut items = Vec::with_capacity(count.min(from.rest.len()));
        for _ in 0..count {
            items.push(Self::read(from)?);
        }
        Some(items)
    }
}

impl<'a> Read<'a> for &'a str {
    fn read(from: &mut Source<'a, '_>) -> Option<Self> {
        from.text()
    }
}

impl<'a> Read<'a> for &'a [u8] {
    fn read(from: &mut Source<'a, '_>) -> Option<Self> {
        from.binary()
    }
}

impl Read<'_> for String {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        from.text().map(str::to_owned)
    }
}

impl Read<'_> for SmallStr {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        from.text().map(Self::new)
    }
}

impl Read<'_> for Vec<u8> {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        from.binary().map(<[u8]>::to_vec)
    }
}

impl Read<'_> for Digest {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        from.binary()?.try_into().ok().map(|bytes: [u8; DIGEST_BYTES]| Self(bytes))
    }

    /// Most bytes of most records are digests: the names of a history's pieces, sent again with each call.
    fn read_all(count: usize, from: &mut Source<'_, '_>) -> Option<Vec<Self>> {
        const HEAD: [u8; 2] = [0xc4, 16];
        const BYTES: usize = HEAD.len() + DIGEST_BYTES;
        let (items, _) = from.slice(count.checked_mul(BYTES)?)?.as_chunks::<BYTES>();
        let mut digests = Vec::with_capacity(count);
        for item in items {
            let (head, digest) = item.split_first_chunk()?;
            if *head != HEAD {
                return None;
            }
            digests.push(Self(digest.try_into().ok()?));
        }
        Some(digests)
    }
}

impl Read<'_> for bool {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        match from.byte()? {
            0xc2 => Some(false),
            0xc3 => Some(true),
            _ => None,
        }
    }
}

impl Read<'_> for f64 {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        (from.byte()? == 0xcb).then_some(())?;
        from.bytes().map(Self::from_be_bytes)
    }
}

impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    fn read(from: &mut Source<'a, '_>) -> Option<Self> {
        match from.rest.strip_prefix(&[NIL]) {
            Some(rest) => {
                from.rest = rest;
                Some(None)
            }
            None => T::read(from).map(Some),
        }
    }
}

impl<'a, T: Read<'a>> Read<'a> for Vec<T> {
    fn read(from: &mut Source<'a, '_>) -> Option<Self> {
        let length = from.array()?;
        T::read_all(length, from)
    }
}

/// Numbers that are never below zero; a time before 1970 is left to the general decoder.
macro_rules! numbers {
    ($($name:ident),*) => {
        $(impl Read<'_> for $name {
            fn read(from: &mut Source<'_, '_>) -> Option<Self> {
                from.unsigned()?.try_into().ok()
            }
        })*
    };
}

numbers!(u16, u64, i64);

impl Read<'_> for u32 {
    fn read(from: &mut Source<'_, '_>) -> Option<Self> {
        from.unsigned()?.try_into().ok()
    }

    /// The chunk_offsets of bodies, a few bytes each: read without looking at anything else between them.
    fn read_all(count: usize, from: &mut Source<'_, '_>) -> Option<Vec<Self>> {
        let mut rest = from.rest;
        let mut numbers = Vec::with_capacity(count.min(rest.len()));
        for _ in 0..count {
            let number;
            (number, rest) = match *rest {
                [small @ ..=0x7f, ref rest @ ..] => (small.into(), rest),
                [0xcc, byte, ref rest @ ..] => (byte.into(), rest),
                [0xcd, a, b, ref rest @ ..] => (u16::from_be_bytes([a, b]).into(), rest),
                [0xce, a, b, c, d, ref rest @ ..] => (Self::from_be_bytes([a, b, c, d]), rest),
                _ => return None,
            };
            numbers.push(number);
        }
        from.rest = rest;
        Some(numbers)
    }
}

macro_rules! words {
    ($($name:ident),*) => {
        $(impl Read<'_> for $name {
            fn read(from: &mut Source<'_, '_>) -> Option<Self> {
                Self::from_str(from.text()?).ok()
            }
        })*
    };
}

words!(Edge, Protocol, Ending, OperationKind, Effect, Confidence);
words!(ExchangeId);

macro_rules! known {
    ($($name:ident: $type:ident),*) => {
        $(impl Read<'_> for $type {
            fn read(from: &mut Source<'_, '_>) -> Option<Self> {
                let text = from.text()?;
                match &from.known.$name {
                    Some(known) if known.as_str() == text => Some(known.clone()),
                    _ => from.known.$name.insert(Self::parse(text).ok()?).clone().into(),
                }
            }
        })*
    };
}

known!(tenant: TenantId, agent: AgentId, build: BuildId, session: SessionId, incarnation: IncarnationId);

/// Structures with their fields in the order in which they are declared, and so written.
macro_rules! fields {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl<'a> Read<'a> for $type {
            fn read(from: &mut Source<'a, '_>) -> Option<Self> {
                from.map([$(stringify!($field)),*].len())?;
                Some(Self { $($field: from.field(stringify!($field))?),* })
            }
        }
    };
}

fields!(MessageValueView<'a> { journal, position, part, parts, content });
fields!(Exchange {
    exchange,
    tenant,
    agent,
    build,
    session,
    incarnation,
    seq,
    incarnation_seq,
    edge,
    protocol,
    started_at,
    session_started_at,
    first_byte_us,
    duration_us,
    frame_gaps_us,
    ending,
    ending_detail,
    http_method,
    path,
    status,
    request_headers,
    response_headers,
    request,
    response,
    operation,
    usage,
    identifiers,
    links,
    redactions,
    envelope,
});
fields!(Body { template, chunk_offsets, chunks, bytes });
fields!(Operation {
    kind,
    method,
    model,
    input,
    output,
    finish_reason,
    requested,
    tool,
    arguments,
    arguments_verbatim,
    arguments_digest,
    result,
    is_error,
    effect,
    reversible,
    idempotent,
});
fields!(RequestedCall { id, tool, arguments });
fields!(Usage { input_tokens, output_tokens, cached_tokens, cost_usd });
fields!(Identifier { name, value, source, confidence, chosen });
fields!(Link { to, kind, source, confidence });
fields!(Redaction { kind, location, count });
fields!(Header { name, value });

#[cfg(test)]
mod tests;
