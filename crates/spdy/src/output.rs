//! What is to be sent: frames in their order, until the caller has written them.

use bytes::{Buf, BytesMut};

use crate::{
    StreamId,
    error::{Reason, Status},
    frame::{FIN, VERSION, kind},
    headers::Headers,
    zlib::Deflater,
};

/// The most that one DATA frame holds, as in other peers: they read a frame whole before they pass it
/// on.
const PIECE: usize = 32 << 10;

#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: BytesMut,
    deflater: Deflater,
}

impl Output {
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes
    }

    /// The first n bytes have been written.
    pub(crate) fn written(&mut self, n: usize) {
        self.bytes.advance(n.min(self.bytes.len()));
    }

    /// One frame at least, since an end needs one even if nothing is left to say.
    pub(crate) fn data(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        let mut rest = bytes;
        loop {
            let (piece, more) = rest.split_at(rest.len().min(PIECE));
            rest = more;
            self.bytes.extend_from_slice(&stream.0.to_be_bytes());
            let flags = if fin && rest.is_empty() { FIN } else { 0 };
            self.body(flags, &[piece]);
            if rest.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn syn_stream(&mut self, stream: StreamId, fin: bool, headers: &Headers) {
        let block = self.deflater.deflate(&headers.block());
        let flags = if fin { FIN } else { 0 };
        self.control(kind::SYN_STREAM, flags, &[&stream.0.to_be_bytes(), &[0; 6], &block]);
    }

    pub(crate) fn syn_reply(&mut self, stream: StreamId, headers: &Headers) {
        let block = self.deflater.deflate(&headers.block());
        self.control(kind::SYN_REPLY, 0, &[&stream.0.to_be_bytes(), &block]);
    }

    pub(crate) fn reset(&mut self, stream: StreamId, status: Status) {
        self.control(kind::RST_STREAM, 0, &[&stream.0.to_be_bytes(), &status.0.to_be_bytes()]);
    }

    pub(crate) fn ping(&mut self, id: u32) {
        self.control(kind::PING, 0, &[&id.to_be_bytes()]);
    }

    pub(crate) fn go_away(&mut self, last: StreamId, reason: Reason) {
        self.control(kind::GOAWAY, 0, &[&last.0.to_be_bytes(), &reason.0.to_be_bytes()]);
    }

    pub(crate) fn window_update(&mut self, stream: StreamId, delta: u32) {
        self.control(kind::WINDOW_UPDATE, 0, &[&stream.0.to_be_bytes(), &delta.to_be_bytes()]);
    }

    fn control(&mut self, kind: u16, flags: u8, parts: &[&[u8]]) {
        self.bytes.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.body(flags, parts);
    }

    fn body(&mut self, flags: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let [.., above, x, y, z] = length.to_be_bytes();
        debug_assert_eq!(above, 0, "a frame of {length} bytes");
        self.bytes.extend_from_slice(&[flags, x, y, z]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }
}
