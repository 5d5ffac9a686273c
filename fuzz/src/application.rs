//! What programs behind us say: heads of CGI programs, frames of workers.

use bytes::{Bytes, BytesMut};
use daemun_protocol::cgi::{MAX_HEAD, parse_head};
use daemun_protocol::frame::{Answer, Hello, Kind, MAX_PAYLOAD, credit, file_range, put, split_head, take};

/// A head is found at the same place under every split, and holds nothing that could end a line.
pub(crate) fn cgi_head(data: &[u8]) {
    let whole = parse_head(data);
    let stepped = (1..=data.len()).find_map(|end| parse_head(&data[..end]).transpose());
    match (whole, stepped) {
        (Ok(Some(head)), Some(Ok(other))) => {
            assert_eq!(head, other);
            assert!(head.length <= data.len() && head.length <= MAX_HEAD + 2);
            let clean = |range: &std::ops::Range<usize>| {
                !data[range.clone()].iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
            };
            assert!(head.fields.iter().all(|(name, value)| !name.is_empty() && clean(name) && clean(value)));
            assert!(head.location.iter().all(clean));
            assert!(head.status.iter().all(|(code, reason)| (100..600).contains(code) && clean(reason)));
        }
        (Ok(None), None) | (Err(_), Some(Err(_))) => {}
        (whole, stepped) => panic!("{whole:?} at once, {stepped:?} in pieces"),
    }
}

/// Frames come off the stream the same however they come in, and payloads are read within their bounds.
pub(crate) fn frames(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut stepped = BytesMut::new();
    let mut rest = data.iter();
    loop {
        let frame = take(&mut whole);
        let other = loop {
            match take(&mut stepped) {
                Ok(None) => match rest.next() {
                    Some(&byte) => stepped.extend_from_slice(&[byte]),
                    None => break Ok(None),
                },
                other => break other,
            }
        };
        match (frame, other) {
            (Ok(Some(frame)), Ok(Some(other))) => {
                assert_eq!((frame.kind, frame.request, &frame.payload), (other.kind, other.request, &other.payload));
                assert!(frame.payload.len() <= MAX_PAYLOAD as usize);
                payload(frame.kind, frame.request, &frame.payload);
            }
            (Ok(None), Ok(None)) => return,
            (Err(one), Err(other)) => return assert_eq!(one, other),
            (one, other) => panic!("{one:?} at once, {other:?} in pieces"),
        }
    }
}

fn payload(kind: Kind, request: u32, payload: &Bytes) {
    let _ = (Hello::parse(payload), credit(payload), file_range(payload));
    if let Ok(answer) = Answer::parse(payload.clone()) {
        assert!(answer.head.len() + answer.body.len() <= payload.len());
    }
    if let Ok((_, head)) = split_head(payload.clone()) {
        assert!(head.len() <= payload.len());
    }
    let mut written = Vec::new();
    put(&mut written, kind, request, payload);
    let again = take(&mut BytesMut::from(&written[..])).expect("our own frame").expect("whole");
    assert_eq!((again.kind, again.request, &again.payload), (kind, request, payload));
}
