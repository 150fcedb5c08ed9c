//! Long lists, sent in pieces: a piece is small beside what any client takes, and no more than one is
//! held for a client that is slow.

use std::iter::Peekable;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;

/// How much goes into a piece, in bytes. A larger item goes alone.
const PIECE: usize = 1 << 20;

/// How many things are asked for what goes into the next pieces at once.
const AT_ONCE: usize = 64;

/// A stream of all items, each made when its piece is sent.
pub(crate) fn of<T, M>(
    items: impl Iterator<Item = T> + Send + 'static,
    piece: fn(Vec<T>) -> M,
) -> BoxStream<M>
where
    T: Message + 'static,
    M: 'static,
{
    let pieces = Pieces { items: items.peekable() };
    Box::pin(tokio_stream::iter(pieces.map(move |items| Ok(piece(items)))))
}

/// A stream of what is read of all `things`, a few at a time. It ends when its client goes away.
pub(crate) fn read<R, T, M, F>(
    things: Vec<R>,
    read: impl Fn(Vec<R>) -> F + Send + 'static,
    piece: fn(Vec<T>) -> M,
) -> BoxStream<M>
where
    R: Clone + Send + 'static,
    T: Message + 'static,
    M: Send + 'static,
    F: Future<Output = Vec<T>> + Send,
    R: Sync,
{
    let (sender, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        for some in things.chunks(AT_ONCE) {
            let items = read(some.to_vec()).await;
            for items in (Pieces { items: items.into_iter().peekable() }) {
                if sender.send(Ok(piece(items))).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Items, by as many as fit a piece.
struct Pieces<I: Iterator> {
    items: Peekable<I>,
}

impl<T: Message, I: Iterator<Item = T>> Iterator for Pieces<I> {
    type Item = Vec<T>;

    fn next(&mut self) -> Option<Vec<T>> {
        let first = self.items.next()?;
        let mut size = first.encoded_len();
        let mut piece = vec![first];
        while let Some(next) = self.items.next_if(|next| size + next.encoded_len() <= PIECE) {
            size += next.encoded_len();
            piece.push(next);
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use cri_proto::v1;
    use proptest::prelude::*;
    use tokio_stream::StreamExt;

    use super::*;

    /// A container whose message is about as large as that.
    fn container(size: usize) -> v1::Container {
        v1::Container { id: "x".repeat(size), ..Default::default() }
    }

    fn piece(containers: Vec<v1::Container>) -> v1::StreamContainersResponse {
        v1::StreamContainersResponse { containers }
    }

    #[tokio::test]
    async fn nothing_is_sent_in_no_pieces() {
        assert!(of(std::iter::empty(), piece).next().await.is_none());
        let nothing = read(Vec::<()>::new(), |_| async { vec![] }, piece).next().await;
        assert!(nothing.is_none());
    }

    #[tokio::test]
    async fn what_is_read_comes_in_order_and_in_whole() {
        let all: Vec<usize> = (0..200).collect();
        let one = |n: usize| v1::Container { id: n.to_string(), ..Default::default() };
        let read = read(all, move |some| async move { some.into_iter().map(one).collect() }, piece);
        let pieces: Vec<_> = read.map(Result::unwrap).collect().await;
        assert_eq!(pieces.len(), 4, "a piece for those that were read at once");
        let ids = pieces.iter().flat_map(|piece| &piece.containers).map(|it| it.id.as_str());
        assert!(ids.eq((0..200).map(|n: usize| n.to_string())));
    }

    proptest! {
        #[test]
        fn pieces_are_bounded_and_nothing_is_lost(sizes in prop::collection::vec(0..3 * PIECE / 2, 0..12)) {
            let items: Vec<_> = sizes.iter().map(|size| container(*size)).collect();
            let pieces: Vec<_> = Pieces { items: items.clone().into_iter().peekable() }.collect();
            for piece in &pieces {
                let size: usize = piece.iter().map(Message::encoded_len).sum();
                prop_assert!(size <= PIECE || piece.len() == 1);
            }
            prop_assert_eq!(pieces.concat(), items);
        }
    }
}
