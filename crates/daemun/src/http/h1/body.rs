//! Taking the framing off a request body (RFC 9112, section 6).

use bytes::{Bytes, BytesMut};

use super::{ChunkedDecoder, Framing, HeadLimits, Refusal};
use crate::http::Fields;

/// Reads a body of either framing as it comes in.
#[derive(Debug)]
pub enum BodyDecoder {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(ChunkedDecoder),
}

/// What a decoder took from its input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoded {
    /// Some bytes of the body, never none.
    Data(Bytes),
    /// Nothing: more has to come in.
    Partial,
    /// Nothing: the body is over, and what is left in the input belongs to the next request.
    End,
}

impl BodyDecoder {
    /// The decoder for this framing. `limits` are for a trailer section.
    pub fn new(framing: Framing, limits: HeadLimits) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkedDecoder::new(limits)),
        }
    }

    /// Takes what it can from the front of `input`.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Refusal> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            Self::Length(_) if input.is_empty() => Ok(Decoded::Partial),
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= here as u64;
                Ok(Decoded::Data(input.split_to(here).freeze()))
            }
            Self::Chunked(decoder) => decoder.decode(input),
        }
    }

    /// So many bytes of a body of known length were taken without being decoded.
    pub fn skip(&mut self, bytes: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(bytes as u64);
        }
    }

    /// The fields behind the body that may be passed on, once, when its end was found.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        match self {
            Self::Length(_) => None,
            Self::Chunked(decoder) => decoder.take_trailers(),
        }
    }

    /// Bytes that are still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }
}
