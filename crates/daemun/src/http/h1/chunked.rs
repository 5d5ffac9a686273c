//! Taking the chunks off a request body (RFC 9112, section 7.1).
//!
//! One state per place in the grammar, one byte per step outside chunk data: nothing is skipped that was not
//! understood, so that no two readers can see different chunks. Extensions are read strictly and dropped, trailers are kept
//! apart (they are never merged into the head: RFC 9110, section 6.5.1).

use bytes::{Bytes, BytesMut};

use super::{Decoded, HeadLimits, Refusal};
use crate::http::fields::{is_token, is_value};
use crate::http::{Fields, Status, trailers};

/// Digits of a chunk size: as many as 64 bits have.
const MAX_DIGITS: u8 = 16;

/// Bytes of all chunk extensions of a body together. Nobody sends them but those who make a server work for nothing
/// (CVE-2023-39326).
const MAX_EXTENSIONS: usize = 4096;

/// Chunk data from this length on is handed on as it lies in the buffer; shorter ones are gathered by copying, so that
/// one-byte chunks do not become one-byte parts each with its own bookkeeping.
const WORTH_SHARING: usize = 2048;

const MALFORMED: Refusal = Refusal::bad("a chunk extension is malformed");

/// Reads chunks as they come in.
#[derive(Debug)]
pub struct ChunkedDecoder {
    place: Place,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    /// The lines of the trailer section as they came.
    trailers: Vec<u8>,
    limits: HeadLimits,
}

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Size,
    /// White space behind the size; only an extension may follow.
    SizeSpace,
    /// Behind `;`.
    NameStart,
    Name,
    NameSpace,
    /// Behind `=`.
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    /// Behind the closing quote.
    QuotedEnd,
    ValueSpace,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

impl ChunkedDecoder {
    /// A decoder that stands before the first chunk. Of `limits` it takes those of the trailer section.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            place: Place::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            trailers: Vec::new(),
            limits,
        }
    }

    /// The fields behind the body that may be passed on, once, when its end was found.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        if self.trailers.is_empty() { None } else { trailers::read(&std::mem::take(&mut self.trailers)) }
    }

    /// Takes what it can from the front of `input`.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Refusal> {
        let mut gathered = BytesMut::new();
        loop {
            self.walk_to_data(input)?;
            if self.place == Place::End || input.is_empty() {
                break;
            }
            let here = usize::try_from(self.size).unwrap_or(usize::MAX).min(input.len());
            if here >= WORTH_SHARING && !gathered.is_empty() {
                break;
            }
            let data = input.split_to(here);
            self.size -= here as u64;
            if self.size == 0 {
                self.place = Place::DataCr;
            }
            if here >= WORTH_SHARING {
                return Ok(Decoded::Data(data.freeze()));
            }
            gathered.extend_from_slice(&data);
        }
        if gathered.is_empty() {
            return Ok(if self.place == Place::End { Decoded::End } else { Decoded::Partial });
        }
        Ok(Decoded::Data(Bytes::from(gathered)))
    }

    /// Steps over everything that is not chunk data.
    fn walk_to_data(&mut self, input: &mut BytesMut) -> Result<(), Refusal> {
        let mut taken = 0;
        while self.place != Place::Data && self.place != Place::End {
            let Some(&byte) = input.get(taken) else { break };
            self.place = self.step(byte)?;
            taken += 1;
        }
        let _ = input.split_to(taken);
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<Place, Refusal> {
        match self.place {
            Place::Size => self.step_size(byte),
            Place::SizeLf if byte == b'\n' => Ok(self.begin_chunk()),
            Place::DataCr if byte == b'\r' => Ok(Place::DataLf),
            Place::DataLf if byte == b'\n' => Ok(Place::Size),
            Place::SizeLf => Err(Refusal::bad("a chunk size does not end in CRLF")),
            Place::DataCr | Place::DataLf => Err(Refusal::bad("a chunk is longer than its size")),
            Place::TrailerStart | Place::TrailerName | Place::TrailerValue | Place::TrailerLf | Place::LastLf => {
                self.step_trailer(byte)
            }
            Place::Data | Place::End => Ok(self.place),
            _ => self.step_extension(byte),
        }
    }

    fn step_size(&mut self, byte: u8) -> Result<Place, Refusal> {
        if let Some(digit) = (byte as char).to_digit(16) {
            self.digits += 1;
            if self.digits > MAX_DIGITS {
                return Err(Refusal::bad("a chunk size has too many digits"));
            }
            // Sixteen digits fill 64 bits exactly: nothing is shifted out.
            self.size = self.size << 4 | u64::from(digit);
            return Ok(Place::Size);
        }
        match byte {
            _ if self.digits == 0 => Err(Refusal::bad("a chunk size is not a hexadecimal number")),
            b'\r' => Ok(Place::SizeLf),
            b';' => self.extension(Place::NameStart),
            b' ' | b'\t' => self.extension(Place::SizeSpace),
            _ => Err(Refusal::bad("a chunk size is not a hexadecimal number")),
        }
    }

    fn begin_chunk(&mut self) -> Place {
        self.digits = 0;
        if self.size == 0 { Place::TrailerStart } else { Place::Data }
    }

    /// `chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (section 7.1.1).
    fn step_extension(&mut self, byte: u8) -> Result<Place, Refusal> {
        let space = matches!(byte, b' ' | b'\t');
        let next = match (self.place, byte) {
            (Place::NameStart | Place::ValueStart | Place::SizeSpace | Place::NameSpace | Place::ValueSpace, _)
                if space =>
            {
                self.place
            }
            (Place::NameStart | Place::Name, _) if is_token(byte) => Place::Name,
            (Place::Name, _) if space => Place::NameSpace,
            (Place::Name | Place::NameSpace, b'=') => Place::ValueStart,
            (Place::ValueStart, b'"') => Place::Quoted,
            (Place::ValueStart | Place::Value, _) if is_token(byte) => Place::Value,
            (Place::Value | Place::QuotedEnd, _) if space => Place::ValueSpace,
            (Place::Quoted, b'"') => Place::QuotedEnd,
            (Place::Quoted, b'\\') => Place::QuotedPair,
            (Place::Quoted | Place::QuotedPair, _) if is_value(byte) => Place::Quoted,
            (Place::Quoted | Place::QuotedPair | Place::NameStart | Place::ValueStart, _) => return Err(MALFORMED),
            (_, b';') => Place::NameStart,
            // No white space before the end of the line: it belongs to what follows it.
            (Place::Name | Place::Value | Place::QuotedEnd, b'\r') => Place::SizeLf,
            _ => return Err(MALFORMED),
        };
        self.extension(next)
    }

    fn extension(&mut self, next: Place) -> Result<Place, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSIONS {
            return Err(Refusal::bad("the chunk extensions are too long"));
        }
        Ok(next)
    }

    fn step_trailer(&mut self, byte: u8) -> Result<Place, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.limits.max_head {
            return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "the trailer section is too long", "max_head"));
        }
        let next = match (self.place, byte) {
            (Place::TrailerStart, b'\r') => Ok(Place::LastLf),
            (Place::TrailerStart, _) if is_token(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > self.limits.max_fields {
                    return Err(Refusal::over(
                        Status::FIELDS_TOO_LARGE,
                        "there are too many trailer fields",
                        "max_fields",
                    ));
                }
                Ok(Place::TrailerName)
            }
            (Place::TrailerName, b':') => Ok(Place::TrailerValue),
            (Place::TrailerName, _) if is_token(byte) => Ok(Place::TrailerName),
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerValue, _) if is_value(byte) => Ok(Place::TrailerValue),
            (Place::TrailerLf, b'\n') => Ok(Place::TrailerStart),
            (Place::LastLf, b'\n') => Ok(Place::End),
            _ => Err(Refusal::bad("the trailer section is malformed")),
        }?;
        if !matches!(next, Place::LastLf | Place::End) {
            self.trailers.push(byte);
        }
        Ok(next)
    }
}
