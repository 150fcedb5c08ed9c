//! Archives of images, in pieces: what comes is read by the image store, which blocks, and what goes
//! is written by it.

use std::io;

use cri_proto::admin;
use images::{Image, Images};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tonic::{Status, Streaming, codegen::BoxStream};

use crate::code;

/// How many bytes of an archive go in one message.
const PIECE: usize = 256 << 10;

/// How many messages may wait for a slow client before the archive does.
const AHEAD: usize = 4;

/// Keeps the images of the archive, and gives their names: ids where they have no other.
pub(super) async fn load(
    images: &Images,
    pieces: Streaming<admin::LoadImageRequest>,
) -> Result<Vec<String>, Status> {
    let bytes = pieces.map(|piece| match piece {
        Ok(piece) => Ok(io::Cursor::new(piece.chunk)),
        Err(status) => Err(io::Error::other(status)),
    });
    let reader = SyncIoBridge::new(StreamReader::new(bytes));
    let loaded = images.load_from(reader).await.map_err(|error| code::image(&error))?;
    Ok(loaded.iter().flat_map(|image| names(image)).collect())
}

fn names(image: &Image) -> Vec<String> {
    if image.tags.is_empty() {
        return vec![image.id.to_string()];
    }
    image.tags.iter().map(ToString::to_string).collect()
}

type Piece = Result<admin::SaveImageResponse, Status>;

pub(super) fn save(images: Images, name: String) -> BoxStream<admin::SaveImageResponse> {
    let (pieces, stream) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let out = Pieces { to: pieces.clone(), buffer: Vec::new() };
        if let Err(error) = images.save(&name, out).await {
            // A client that has gone does not hear it either.
            let _ = pieces.send(Err(code::image(&error))).await;
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Writes into messages. The store writes on a thread that may block, so a slow client slows it.
struct Pieces {
    to: mpsc::Sender<Piece>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.buffer);
        let sent = self.to.blocking_send(Ok(admin::SaveImageResponse { chunk }));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
