//! Owns the look at each frame's stated length before its payload is taken in. The frame parser of actix-http
//! collects a whole frame before it refuses one that is too large, so that a frame of 2^40 bytes would be
//! collected until memory ends.
//! Format of a frame: RFC 6455, section 5.2. It must never change a byte.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

const KIND_BITS: u8 = 0x0f;
const CLOSE: u8 = 8;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7f;
/// The second byte states that the length is in the next two bytes, or in the next eight.
const LENGTH_IN_TWO: u8 = 126;
const LENGTH_IN_EIGHT: u8 = 127;

/// The bytes of a client, as long as its frames are no larger than allowed.
pub(super) struct Measured {
    bytes: Payload,
    lengths: Lengths,
    oversize: Rc<Cell<bool>>,
}

impl Measured {
    /// Sets `oversize` before it fails.
    pub(super) fn new(bytes: Payload, frame_max: usize, oversize: Rc<Cell<bool>>) -> Self {
        Self { bytes, lengths: Lengths::new(frame_max), oversize }
    }
}

impl Stream for Measured {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.bytes.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            // The client has gone, which is an end and no fault of its frames.
            return Poll::Ready(None);
        }
        if let Poll::Ready(Some(Ok(chunk))) = &polled
            && !self.lengths.admit(chunk)
        {
            self.oversize.set(true);
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        polled
    }
}

/// Follows the frames of a client by their headers.
struct Lengths {
    frame_max: u64,
    header: Vec<u8>,
    /// Bytes of the present frame's payload that are still to come.
    payload_left: u64,
    /// Nobody looks at what comes after a close frame.
    closed: bool,
}

impl Lengths {
    fn new(frame_max: usize) -> Self {
        Self { frame_max: frame_max as u64, header: Vec::new(), payload_left: 0, closed: false }
    }

    /// Whether every frame that begins in these bytes is small enough.
    fn admit(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.closed {
            if self.payload_left > 0 {
                let skipped =
                    usize::try_from(self.payload_left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = length(&self.header) {
                if length > self.frame_max {
                    return false;
                }
                self.closed = self.header[0] & KIND_BITS == CLOSE;
                self.payload_left = length;
                self.header.clear();
            }
        }
        true
    }
}

/// The payload's length, once the header is whole.
fn length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & MASK_BIT == 0 { 0 } else { 4 };
    let (length, end) = match second & LENGTH_BITS {
        LENGTH_IN_TWO => (u16::from_be_bytes(header.get(2..4)?.try_into().ok()?).into(), 4),
        LENGTH_IN_EIGHT => (u64::from_be_bytes(header.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    (header.len() >= end + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(0x80 | length as u8),
            126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[1, 2, 3, 4]);
        frame.resize(frame.len() + length, 0xff);
        frame
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let bytes: Vec<u8> = [0, 1, 125, 126, 1_000, 0, 7].into_iter().flat_map(frame).collect();
        for cut in [1, 2, 3, 7, 64, bytes.len()] {
            let mut lengths = Lengths::new(1_000);
            assert!(bytes.chunks(cut).all(|chunk| lengths.admit(chunk)), "cut at {cut}");
            assert_eq!((lengths.payload_left, lengths.header.len()), (0, 0));
        }
    }

    #[test]
    fn a_frame_that_states_too_much_is_refused_by_its_header() {
        for length in [1_001, 65_535, 65_536, 1 << 20] {
            let header = &frame(length)[..if length > 65_535 { 14 } else { 8 }];
            assert!(!Lengths::new(1_000).admit(header), "{length}");
        }
        let mut huge = vec![0x82, 0xff];
        huge.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        huge.extend_from_slice(&[0; 4]);
        assert!(!Lengths::new(1_000).admit(&huge));
    }

    #[test]
    fn what_comes_after_a_close_frame_is_not_measured() {
        let mut close = frame(2);
        close[0] = 0x88;
        close.extend_from_slice(&[0xff; 64]);
        for cut in [1, 7, close.len()] {
            let mut lengths = Lengths::new(1_000);
            assert!(close.chunks(cut).all(|chunk| lengths.admit(chunk)), "cut at {cut}");
        }
    }
}
