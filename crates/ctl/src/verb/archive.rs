//! `podbay image load` and `podbay image save`: archives to and from the runtime, piece by piece.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cri_proto::admin::{LoadImageRequest, SaveImageRequest, SaveImageResponse};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Streaming};

use crate::error::Error;
use crate::link::{Link, answer};

/// How much goes at a time, in bytes.
const PIECE: usize = 1 << 20;

/// Loads an archive and prints what was in it. It takes as long as the archive comes.
pub async fn load(link: &Link, file: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let failed = |source| match file == Path::new("-") {
        true => Error::Input(source),
        false => Error::File { doing: "reading", path: file.to_owned(), source },
    };
    let source: Box<dyn AsyncRead + Send + Unpin> = match file == Path::new("-") {
        true => Box::new(tokio::io::stdin()),
        false => Box::new(File::open(file).await.map_err(failed)?),
    };
    let broken = Arc::new(Mutex::new(None));
    let loaded = link.admin().load_image(Request::new(pieces(source, broken.clone()))).await;
    // A file that cannot be read to its end is why the runtime finds the archive cut off.
    if let Some(error) = broken.lock().expect("no holder panics").take() {
        return Err(failed(error));
    }
    let references = answer("LoadImage", loaded)?.references;
    super::print(out, &references.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// The pieces of a file. They end early when it cannot be read, and why is put down.
fn pieces(
    source: impl AsyncRead + Send + Unpin + 'static,
    broken: Arc<Mutex<Option<io::Error>>>,
) -> impl Stream<Item = LoadImageRequest> + Send + 'static {
    futures_util::stream::unfold((source, broken), |(mut source, broken)| async {
        match piece(&mut source).await {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some((LoadImageRequest { chunk }, (source, broken))),
            Err(error) => {
                *broken.lock().expect("no holder panics") = Some(error);
                None
            }
        }
    })
}

/// As much as there is, up to a piece; nothing at the end.
async fn piece(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(PIECE);
    let room = u64::try_from(PIECE).expect("a piece is small");
    source.take(room).read_to_end(&mut chunk).await?;
    Ok(chunk)
}

/// Saves an image. A file is whole or not there.
pub async fn save(link: &Link, image: String, output: &Path) -> Result<(), Error> {
    let to_stdout = output == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Error::ArchiveToTerminal);
    }
    let request = Request::new(SaveImageRequest { image });
    let pieces = answer("SaveImage", link.admin().save_image(request).await)?;
    if to_stdout {
        return copy(pieces, &mut io::stdout(), Error::Output).await;
    }
    let failed = |source| Error::File { doing: "writing", path: output.to_owned(), source };
    let mut file = NamedTempFile::new_in(directory(output)).map_err(failed)?;
    copy(pieces, &mut file, failed).await?;
    file.persist(output).map(drop).map_err(|error| failed(error.error))
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

async fn copy(
    mut pieces: Streaming<SaveImageResponse>,
    to: &mut impl Write,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    while let Some(piece) = pieces.next().await {
        let piece = piece
            .map_err(|status| Error::Refused { what: "SaveImage", status: Box::new(status) })?;
        to.write_all(&piece.chunk).map_err(&failed)?;
    }
    to.flush().map_err(failed)
}
