//! Header blocks through zlib: one stream for each direction of a connection, flushed after each
//! block, so that a block cannot be read without all that came before it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::{dictionary::DICTIONARY, error::BadHeaders};

/// How much is inflated before the limit is looked at again.
const STEP: usize = 4096;

/// Its 300 KiB are taken when there is something to say.
#[derive(Debug, Default)]
pub(crate) struct Deflater(Option<Compress>);

impl Deflater {
    pub(crate) fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
        // Deflate never adds more than a few bytes for each 16 KiB, so that one call does it.
        let mut block = Vec::with_capacity(plain.len() * 2 + 64);
        let stream = self.0.get_or_insert_with(compressor);
        let done = stream.compress_vec(plain, &mut block, FlushCompress::Sync);
        done.expect("a stream that is not finished goes on");
        block
    }
}

fn compressor() -> Compress {
    let mut stream = Compress::new(Compression::default(), true);
    stream.set_dictionary(&DICTIONARY).expect("a stream that is new takes a dictionary");
    stream
}

#[derive(Debug)]
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Nothing can be inflated after an error.
    pub(crate) fn inflate(&mut self, block: &[u8], limit: usize) -> Result<Vec<u8>, BadHeaders> {
        let mut plain = Vec::new();
        let mut rest = block;
        let mut room = [0; STEP];
        loop {
            let (read, written) = self.step(rest, &mut room)?;
            rest = rest.get(read..).unwrap_or_default();
            plain.extend_from_slice(&room[..written]);
            if plain.len() > limit {
                return Err(BadHeaders::TooLarge(limit));
            }
            if rest.is_empty() && written < STEP {
                return Ok(plain);
            }
        }
    }

    /// How much of the input was read, and of the room written. It is never nothing while there is
    /// input: zlib takes some, or fails.
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> Result<(usize, usize), BadHeaders> {
        let before = (self.0.total_in(), self.0.total_out());
        match self.0.decompress(input, room, FlushDecompress::Sync) {
            Ok(Status::Ok) => {}
            Ok(Status::BufError) if input.is_empty() => {}
            Err(error) if error.needs_dictionary().is_some() => {
                self.0.set_dictionary(&DICTIONARY).map_err(|_| BadHeaders::Zlib)?;
            }
            _ => return Err(BadHeaders::Zlib),
        }
        let count = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
        Ok((count(before.0, self.0.total_in()), count(before.1, self.0.total_out())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_said_before_is_said_again_in_a_few_bytes() {
        let mut deflater = Deflater::default();
        let first = deflater.deflate(b"streamtype: error; port: 8080; requestid: 1");
        let again = deflater.deflate(b"streamtype: error; port: 8080; requestid: 1");
        assert!(again.len() < first.len() / 2, "{} then {}", first.len(), again.len());
    }

    #[test]
    fn a_bomb_is_defused_at_the_limit() {
        let bomb = Deflater::default().deflate(&vec![0; 16 << 20]);
        assert!(bomb.len() < 32 << 10);
        let limit = 64 << 10;
        assert_eq!(Inflater::new().inflate(&bomb, limit), Err(BadHeaders::TooLarge(limit)));
    }

    #[test]
    fn a_stream_without_the_dictionary_or_with_an_end_is_refused() {
        let mut other = Compress::new(Compression::default(), true);
        let mut block = Vec::with_capacity(64);
        other.set_dictionary(b"another dictionary").unwrap();
        other.compress_vec(b"via", &mut block, FlushCompress::Sync).unwrap();
        assert_eq!(Inflater::new().inflate(&block, 64), Err(BadHeaders::Zlib));

        let mut block = Vec::with_capacity(64);
        compressor().compress_vec(b"via", &mut block, FlushCompress::Finish).unwrap();
        assert_eq!(Inflater::new().inflate(&block, 64), Err(BadHeaders::Zlib));
    }

    proptest! {
        #[test]
        fn blocks_come_out_as_they_went_in(blocks: Vec<Vec<u8>>) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::new());
            for plain in blocks {
                let block = deflater.deflate(&plain);
                prop_assert_eq!(inflater.inflate(&block, plain.len()), Ok(plain));
            }
        }

        #[test]
        fn large_blocks_too(seed: Vec<u8>, times in 1usize..2000) {
            let plain = seed.repeat(times);
            let block = Deflater::default().deflate(&plain);
            prop_assert_eq!(Inflater::new().inflate(&block, plain.len()), Ok(plain));
        }

        #[test]
        fn no_bytes_panic(blocks: Vec<Vec<u8>>) {
            let mut inflater = Inflater::new();
            for block in blocks {
                let _ = inflater.inflate(&block, 4096);
            }
        }
    }
}
