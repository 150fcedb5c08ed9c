//! A pull, from a reference to a recorded image: manifest, config, layers. What the source gives is
//! taken for what its digest says and nothing else; the image is recorded when all of it is here.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use names::{Digest, ImageRef};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    amend, config,
    error::Error,
    flight::Flights,
    layer::{self, Wanted},
    manifest::{self, Descriptor, Document, Manifest},
    progress::{self, Progress, State},
    source::{Auth, Failure, Source},
    store::{Draft, Hold, Store},
    unpack::Limits,
};

/// How many indexes may lead to each other.
const DEEPEST: u32 = 3;

/// How often a layer's failure for somebody else is not taken for ours.
const OTHERS_FAILURES: u32 = 2;

/// Layers that are coming, by blob and diff id, whoever asked for them.
pub(crate) type LayerFlights = Flights<(Digest, Digest), u64, Result<(), Arc<Error>>>;

/// What the pulled image will be called.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    /// As it was asked for.
    Asked,
    /// By these tags, each with its repository's digest. It may be none.
    Tags(Vec<ImageRef>),
}

/// All that one pull needs.
#[derive(Clone)]
pub(crate) struct Pull {
    pub store: Arc<Store>,
    pub source: Arc<dyn Source>,
    pub layers: Arc<LayerFlights>,
    pub limits: Limits,
    /// How many layers come at a time.
    pub parallel: usize,
    pub image: ImageRef,
    pub wanted: String,
    pub auth: Option<Auth>,
    pub names: Names,
}

impl Pull {
    /// Pulls, and gives back the image's id.
    pub async fn run(self, told: watch::Sender<Progress>) -> Result<Digest, Error> {
        let (top, manifest) = self.resolve().await?;
        let (text, diffs) = self.config(&manifest.config).await?;
        let wanted = pair(&manifest, &diffs)?;
        let holds = self.fetch(wanted, &told).await?;
        let (tags, digests) = self.called(&top);
        let (store, id) = (Arc::clone(&self.store), manifest.config.digest);
        let image = blocking(move || {
            let (amend, _hold) = amend::make(&store, &diffs)?.unzip();
            store.commit_image(Draft { id, config: text, layers: diffs, amend, tags, digests })
        })
        .await?;
        drop(holds);
        Ok(image.id.clone())
    }

    /// The digest that the reference leads to, and the manifest for this host behind it.
    async fn resolve(&self) -> Result<(Digest, Manifest), Error> {
        let (top, mut document) = self.document(&self.wanted, None).await?;
        for _ in 0..DEEPEST {
            let manifests = match document {
                Document::Manifest(manifest) => return Ok((top, manifest)),
                Document::Index(manifests) => manifests,
            };
            let chosen = self.choose(&manifests)?;
            (_, document) = self.document(chosen.digest.as_str(), Some(chosen)).await?;
        }
        Err(Error::BadManifest { digest: top, why: "its indexes lead to ever more".into() })
    }

    fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Result<&'a Descriptor, Error> {
        let host = manifest::host();
        manifest::choose(manifests, &host).ok_or_else(|| Error::NoPlatform {
            image: self.image.to_string(),
            platform: host.to_string(),
            offered: manifest::offered(manifests),
        })
    }

    /// Fetches and reads a manifest or index; verifies it against what named it.
    async fn document(
        &self,
        wanted: &str,
        named: Option<&Descriptor>,
    ) -> Result<(Digest, Document), Error> {
        let fetched = self.source.manifest(&self.image, wanted, self.auth.as_ref()).await;
        let fetched = fetched.map_err(|source| self.failed(source))?;
        let got = Digest::from_sha256(Sha256::digest(&fetched.bytes).into());
        let must = wanted.parse().unwrap_or(fetched.digest);
        if got != must {
            return Err(Error::Lied { what: "the manifest", wanted: must, got });
        }
        let length = fetched.bytes.len() as u64;
        if let Some(named) = named.filter(|named| named.size != length) {
            let (wanted, digest) = (named.size, got);
            return Err(Error::WrongSize { what: "the manifest", digest, wanted, got: length });
        }
        match manifest::parse(&fetched.bytes, &fetched.media_type) {
            Ok(document) => Ok((got, document)),
            Err(why) => Err(Error::BadManifest { digest: got, why }),
        }
    }

    fn failed(&self, source: Failure) -> Error {
        let what = match &self.names {
            Names::Asked => self.image.to_string(),
            Names::Tags(_) => "an image out of the archive".into(),
        };
        Error::Fetch { what, source }
    }

    /// The config's text and its diff ids.
    async fn config(&self, named: &Descriptor) -> Result<(String, Vec<Digest>), Error> {
        let bad = |why: String| Error::BadConfig { digest: named.digest.clone(), why };
        if let Some(image) = self.store.index().images.get(&named.digest) {
            return Ok((image.config_text().to_owned(), image.layers.clone()));
        }
        if named.size > config::LARGEST {
            return Err(bad(format!("it has more than {} bytes", config::LARGEST)));
        }
        let blob = self.source.blob(&self.image, &named.digest, named.size, self.auth.as_ref());
        let stream = blob.await.map_err(|source| self.failed(source))?;
        let bytes =
            layer::receive_small("the image config", &named.digest, named.size, stream).await?;
        let parsed = config::parse(&bytes).map_err(|why| bad(why.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".into()))?;
        Ok((text, parsed.diff_ids))
    }

    /// Has all layers come that are not here. They stay as long as the holds are kept.
    async fn fetch(
        &self,
        wanted: Vec<Wanted>,
        told: &watch::Sender<Progress>,
    ) -> Result<Vec<Hold>, Error> {
        told.send_replace(Progress {
            layers: wanted
                .iter()
                .map(|layer| progress::Layer {
                    blob: layer.blob.clone(),
                    total: layer.size,
                    state: State::Waiting,
                })
                .collect(),
        });
        let tell = |at: usize, state| {
            told.send_modify(|progress| progress.layers[at].state = state);
        };
        stream::iter(wanted.into_iter().enumerate())
            .map(|(at, layer)| async move { self.layer(layer, |state| tell(at, state)).await })
            .buffer_unordered(self.parallel.max(1))
            .try_collect()
            .await
    }

    async fn layer(&self, wanted: Wanted, tell: impl Fn(State)) -> Result<Hold, Error> {
        let (hold, here) = self.store.hold(&wanted.diff);
        if here {
            tell(State::Present);
            return Ok(hold);
        }
        for tries in 0..=OTHERS_FAILURES {
            let key = (wanted.blob.clone(), wanted.diff.clone());
            let waiter =
                self.layers.join(key, |progress| self.clone().receive(wanted.clone(), progress));
            let mut progress = waiter.progress();
            let told = async {
                while progress.changed().await.is_ok() {
                    tell(State::Coming(*progress.borrow_and_update()));
                }
                std::future::pending().await
            };
            let result = tokio::select! {
                result = waiter.result() => result,
                () = told => None,
            };
            match result.unwrap_or_else(|| Err(Arc::new(Error::Interrupted))) {
                Ok(()) => {
                    tell(State::Done);
                    return Ok(hold);
                }
                // It failed for somebody else, perhaps with other credentials: we try ourselves.
                Err(_) if !waiter.first && tries < OTHERS_FAILURES => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Interrupted)
    }

    async fn receive(self, wanted: Wanted, progress: watch::Sender<u64>) -> Result<(), Arc<Error>> {
        let blob = self.source.blob(&self.image, &wanted.blob, wanted.size, self.auth.as_ref());
        let stream = blob.await.map_err(|source| self.failed(source))?;
        Ok(layer::receive(self.store, self.limits, wanted, stream, progress).await?)
    }

    /// The tags and the digests that the image gets.
    fn called(&self, top: &Digest) -> (Vec<ImageRef>, Vec<ImageRef>) {
        match &self.names {
            Names::Asked if self.image.digest().is_some() => {
                (Vec::new(), vec![self.image.with_digest(top.clone())])
            }
            Names::Asked => (vec![self.image.clone()], vec![self.image.with_digest(top.clone())]),
            Names::Tags(tags) => {
                let digests = tags.iter().map(|tag| tag.with_digest(top.clone())).collect();
                (tags.clone(), digests)
            }
        }
    }
}

/// Brings the layers' blobs and their diff ids together.
fn pair(manifest: &Manifest, diffs: &[Digest]) -> Result<Vec<Wanted>, Error> {
    if manifest.layers.len() != diffs.len() {
        let (layers, ids) = (manifest.layers.len(), diffs.len());
        let why = format!("the manifest has {layers} layers and the config has {ids}");
        return Err(Error::BadConfig { digest: manifest.config.digest.clone(), why });
    }
    let pairs = manifest.layers.iter().zip(diffs);
    Ok(pairs
        .map(|(layer, diff)| Wanted {
            blob: layer.digest.clone(),
            size: layer.size,
            diff: diff.clone(),
        })
        .collect())
}

/// Does work of the disk where it holds nobody up, to its end even if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}
