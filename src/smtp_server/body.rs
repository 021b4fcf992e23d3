//! The content of one message while it arrives: into one buffer, with room in front for what we add.
//!
//! Content is copied once, from the connection's input into the buffer; the header fields that we add are written
//! into the room before it when the whole is known, so that the message is contiguous without being moved.

use bytes::{Buf, Bytes, BytesMut};

use crate::smtp::data::{ChunkChecker, DataDecoder, Fault, Progress};

/// Room for Received, Date and Message-Id.
const HEAD_BYTES: usize = 1536;
/// What is set aside for content whose size the client did not tell.
const CONTENT_BYTES_GUESS: usize = 6 * 1024;
/// The most that is set aside on the client's word alone.
const CONTENT_BYTES_TRUSTED_MAX: u64 = 1 << 20;
/// How much more than the largest message is read, to give the refusal at its proper place.
const OVERRUN_BYTES_MAX: u64 = 16 << 20;

/// Why content cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyProblem {
    /// Over the limit.
    TooBig,
    /// Against the discipline of line ends.
    Fault(Fault),
}

/// Content that arrives.
#[derive(Debug)]
pub struct Body {
    /// Room, then content.
    buffer: BytesMut,
    /// Content seen so far, kept or not.
    seen: u64,
    bytes_max: u64,
    too_big: bool,
    data: DataDecoder,
    chunks: ChunkChecker,
}

impl Body {
    /// An empty one. `declared` is what SIZE= said.
    pub fn new(declared: Option<u64>, bytes_max: u64) -> Self {
        let content = declared.map_or(CONTENT_BYTES_GUESS, |size| {
            // A little more, for the line of the dot and for clients that count badly.
            (size.min(bytes_max).min(CONTENT_BYTES_TRUSTED_MAX) + 64) as usize
        });
        let mut buffer = BytesMut::with_capacity(HEAD_BYTES + content);
        buffer.resize(HEAD_BYTES, 0);
        Self {
            buffer,
            seen: 0,
            bytes_max,
            too_big: false,
            data: DataDecoder::default(),
            chunks: ChunkChecker::default(),
        }
    }

    /// Takes a piece of what follows DATA.
    pub fn push_data(&mut self, input: &[u8]) -> Progress {
        let progress = self.data.decode(input, &mut self.buffer);
        let taken = if let Progress::End { consumed } = progress { consumed } else { input.len() };
        self.saw(taken);
        progress
    }

    /// Takes a piece of a BDAT chunk.
    pub fn push_chunk(&mut self, input: &[u8]) {
        self.chunks.check(input);
        if self.chunks.fault(false).is_none() {
            self.buffer.extend_from_slice(input);
        }
        self.saw(input.len());
    }

    fn saw(&mut self, bytes: usize) {
        self.seen = self.seen.saturating_add(bytes as u64);
        if self.content().len() as u64 > self.bytes_max && !self.too_big {
            self.too_big = true;
            self.buffer = BytesMut::zeroed(HEAD_BYTES);
        }
        if self.problem(false).is_some() {
            // Nobody will need it.
            self.buffer.truncate(HEAD_BYTES);
        }
    }

    /// Whether a chunk of this size would be too much.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        bytes.checked_add(self.content().len() as u64).is_some_and(|sum| sum <= self.bytes_max)
    }

    /// So far over the limit that waiting for the end of the data is no use.
    pub fn is_overrun(&self) -> bool {
        self.seen > self.bytes_max.saturating_mul(2).saturating_add(OVERRUN_BYTES_MAX)
    }

    /// What is wrong; `end` says that no more will come.
    pub fn problem(&self, end: bool) -> Option<BodyProblem> {
        let fault = self.data.fault().or(self.chunks.fault(end)).map(BodyProblem::Fault);
        fault.or(self.too_big.then_some(BodyProblem::TooBig))
    }

    /// The content so far.
    pub fn content(&self) -> &[u8] {
        self.buffer.get(HEAD_BYTES..).unwrap_or_default()
    }

    /// The whole message, `head` in front. Content that came by BDAT may lack the end of its last line.
    pub fn finish(mut self, head: &[u8]) -> Bytes {
        if !self.content().is_empty() && !self.content().ends_with(b"\r\n") {
            self.buffer.extend_from_slice(b"\r\n");
        }
        match HEAD_BYTES.checked_sub(head.len()) {
            Some(start) => {
                self.buffer[start..HEAD_BYTES].copy_from_slice(head);
                self.buffer.advance(start);
                self.buffer.freeze()
            }
            // Names of the greatest lengths, all at once: the copy is made then.
            None => [head, self.content()].concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stands_behind_the_head_in_one_buffer() {
        let mut body = Body::new(None, 1000);
        assert_eq!(body.push_data(b"A: b\r\n\r\n..c\r\n"), Progress::More);
        assert_eq!(body.push_data(b".\r\nQUIT\r\n"), Progress::End { consumed: 3 });
        assert_eq!((body.content(), body.problem(true)), (&b"A: b\r\n\r\n.c\r\n"[..], None));
        assert_eq!(body.finish(b"R: x\r\n"), &b"R: x\r\nA: b\r\n\r\n.c\r\n"[..]);
    }

    #[test]
    fn a_head_of_any_length_fits() {
        for length in [0, 1, HEAD_BYTES, HEAD_BYTES + 1, 2 * HEAD_BYTES] {
            let mut body = Body::new(Some(3), 1000);
            body.push_chunk(b"abc");
            let head = vec![b'h'; length];
            assert_eq!(body.finish(&head), [&head[..], b"abc\r\n"].concat());
        }
    }

    #[test]
    fn what_is_too_big_is_not_kept() {
        let mut body = Body::new(None, 12);
        body.push_data(b"..123456789\r\n");
        assert_eq!(body.problem(false), None, "a stuffed dot is not content");
        body.push_data(b"0");
        assert_eq!((body.problem(false), body.content().len()), (Some(BodyProblem::TooBig), 0));
        assert!(!body.is_overrun());
        for _ in 0..=17 {
            body.push_data(&vec![b'x'; 1 << 20]);
        }
        assert!(body.is_overrun());
        assert!(body.buffer.capacity() < 4 << 20);
    }

    #[test]
    fn a_size_that_only_was_claimed_is_not_set_aside() {
        assert!(Body::new(Some(u64::MAX), u64::MAX).buffer.capacity() < 2 << 20);
    }

    #[test]
    fn chunks_leave_room_or_not() {
        let mut body = Body::new(None, 10);
        body.push_chunk(b"01234\r\n");
        assert!(body.has_room_for(3) && !body.has_room_for(4) && !body.has_room_for(u64::MAX));
        body.push_chunk(b"\n");
        assert_eq!(body.problem(false), Some(BodyProblem::Fault(Fault::BareLf)));
    }
}
