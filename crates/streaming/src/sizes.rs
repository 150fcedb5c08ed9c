//! Sizes of a terminal, as clients send them: JSON objects, one after the other.

use serde_json::Deserializer;

use crate::Size;

/// More than any size takes.
const LIMIT: usize = 4 << 10;

/// Reads sizes out of pieces that are cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Sizes(Vec<u8>);

/// The client sends something else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotASize;

impl Sizes {
    /// The last size of those that are whole by now; those before it are out of date.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Option<Size>, NotASize> {
        if self.0.len() + piece.len() > LIMIT {
            return Err(NotASize);
        }
        self.0.extend_from_slice(piece);
        let mut sizes = Deserializer::from_slice(&self.0).into_iter();
        let (mut last, mut read) = (None, 0);
        loop {
            match sizes.next() {
                Some(Ok(size)) => (last, read) = (Some(size), sizes.byte_offset()),
                Some(Err(error)) if !is_cut(&error, &self.0[read..]) => return Err(NotASize),
                Some(Err(_)) | None => break,
            }
        }
        self.0.drain(..read);
        Ok(last)
    }
}

/// Whether the rest of the value is still to come. Of a number that nobody wants serde_json says that it
/// is wrong where it is only cut, as after its sign; one more digit tells.
fn is_cut(error: &serde_json::Error, value: &[u8]) -> bool {
    let longer = || serde_json::from_slice::<Size>(&[value, b"0"].concat());
    error.is_eof() || longer().is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_whole_size_counts_and_a_part_waits_for_the_rest() {
        let mut sizes = Sizes::default();
        let pieces: [&[u8]; 4] =
            [b"{\"Width\":80,\"Height\":24}\n{\"Wid", b"th\":81,", b"\"Height\":25}", b"\n"];
        let taken = pieces.map(|piece| sizes.take(piece).unwrap());
        let (first, second) = (Size { width: 80, height: 24 }, Size { width: 81, height: 25 });
        assert_eq!(taken, [Some(first), None, Some(second), None]);
    }

    #[test]
    fn a_number_that_nobody_wants_may_be_cut_anywhere() {
        let text = b"{\"Width\":80,\"Depth\":-1.5e-3,\"Height\":24}";
        let mut sizes = Sizes::default();
        let taken: Vec<_> = text.chunks(1).map(|piece| sizes.take(piece).unwrap()).collect();
        assert_eq!(taken.last(), Some(&Some(Size { width: 80, height: 24 })));
        assert_eq!(Sizes::default().take(b"{\"Depth\":--"), Err(NotASize));
        assert_eq!(Sizes::default().take(b"{-"), Err(NotASize));
    }

    #[test]
    fn what_is_no_size_is_refused_and_so_is_one_without_an_end() {
        assert_eq!(Sizes::default().take(b"true"), Err(NotASize));
        assert_eq!(Sizes::default().take(b"{\"Width\":-1}"), Err(NotASize));
        assert_eq!(Sizes::default().take(b"{\"Width\":65536}"), Err(NotASize));
        let mut sizes = Sizes::default();
        let endless = (0..=LIMIT).map(|_| sizes.take(b" ")).find(Result::is_err);
        assert_eq!(endless, Some(Err(NotASize)));
    }

    proptest! {
        #[test]
        fn no_input_panics_or_is_kept_without_end(pieces: Vec<Vec<u8>>) {
            let mut sizes = Sizes::default();
            for piece in pieces {
                let _ = sizes.take(&piece);
                prop_assert!(sizes.0.len() <= LIMIT);
            }
        }

        #[test]
        fn sizes_are_the_same_however_they_are_cut(width: u16, height: u16, cut in 0_usize..30) {
            let text = format!("{{\"Width\":{width},\"Height\":{height}}}");
            let (start, rest) = text.as_bytes().split_at(cut.min(text.len()));
            let mut sizes = Sizes::default();
            let first = sizes.take(start).unwrap();
            let second = sizes.take(rest).unwrap();
            prop_assert_eq!(first.or(second), Some(Size { width, height }));
        }
    }
}
