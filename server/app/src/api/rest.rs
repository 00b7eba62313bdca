//! The rest of long documents: sentences that no question needed yet are embedded while nobody is served, so that the next
//! question need not wait for them.

use std::sync::Arc;
use std::time::Duration;

use pith_context::{ContextError, Document, Embedder, PreparedCache, PreparedKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::admission::Admission;

/// Sentences embedded before it is looked again whether anybody came: half a second of two cores, about.
const AT_ONCE: usize = 64;
/// How often it is looked whether everybody went.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most documents that wait, and most text of theirs, KiB. What comes then is left as it is.
const MOST: (usize, usize) = (64, 64 << 10);

/// Where documents are left for later.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    jobs: mpsc::Sender<Job>,
    /// KiB of text that may yet be left.
    room: Arc<Semaphore>,
    prepared: Arc<PreparedCache>,
}

/// A document of which some sentences have no vector.
struct Job {
    key: PreparedKey,
    document: Document,
    embedder: Arc<dyn Embedder>,
    _room: OwnedSemaphorePermit,
}

impl Rest {
    /// Works on what is left, of documents in `prepared`, whenever `admission` counts no calls; until what is given back is
    /// dropped.
    pub(crate) fn begin(
        prepared: Arc<PreparedCache>,
        admission: Arc<Admission>,
    ) -> (Self, AbortOnDropHandle<()>) {
        let (jobs, waiting) = mpsc::channel(MOST.0);
        let worker = tokio::spawn(work(waiting, Arc::clone(&prepared), admission));
        let room = Arc::new(Semaphore::new(MOST.1));
        (Self { jobs, room, prepared }, AbortOnDropHandle::new(worker))
    }

    /// Leaves those of `documents`, of `tenant`, that are kept with some sentences embedded and some not.
    pub(crate) fn leave(&self, tenant: &str, documents: &[Document], embedder: &Arc<dyn Embedder>) {
        for document in documents.iter().filter(|document| !document.stored) {
            let key = PreparedKey::new(tenant, document, embedder.identity());
            if self.prepared.get(&key).is_none_or(|kept| kept.is_embedded()) {
                continue;
            }
            let size = u32::try_from(document.text.len() >> 10).unwrap_or(u32::MAX).max(1);
            let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size) else { continue };
            let (document, embedder) = (document.clone(), Arc::clone(embedder));
            // A full queue: the next question embeds what it needs.
            let _ = self.jobs.try_send(Job { key, document, embedder, _room: room });
        }
    }
}

async fn work(
    mut waiting: mpsc::Receiver<Job>,
    prepared: Arc<PreparedCache>,
    admission: Arc<Admission>,
) {
    while let Some(job) = waiting.recv().await {
        let job = Arc::new(job);
        loop {
            while admission.in_flight() > 0 {
                tokio::time::sleep(PATIENCE).await;
            }
            let (next, prepared) = (Arc::clone(&job), Arc::clone(&prepared));
            match tokio::task::spawn_blocking(move || next.go_on(&prepared)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the rest of a document cannot be embedded");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "embedding the rest of a document panicked");
                    break;
                }
            }
        }
    }
}

impl Job {
    /// Embeds some sentences more; says whether that is worth repeating. What was forgotten is left alone.
    fn go_on(&self, cache: &PreparedCache) -> Result<bool, ContextError> {
        let Some(mut prepared) = cache.get(&self.key).filter(|kept| !kept.is_embedded()) else {
            return Ok(false);
        };
        Arc::make_mut(&mut prepared).embed_more(&self.document, &*self.embedder, AT_ONCE)?;
        let done = prepared.is_embedded();
        Ok(cache.replace(&self.key, prepared) && !done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pith_context::Prepared;

    use super::*;
    use crate::config;
    use crate::tenants::Tenants;

    /// Counts texts.
    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Embedder for Counts {
        fn identity(&self) -> &str {
            "counts"
        }

        fn dimensions(&self) -> usize {
            1
        }

        fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
            self.0.fetch_add(texts.len(), Ordering::SeqCst);
            out.extend(texts.iter().map(|_| 1.0));
            Ok(())
        }
    }

    struct Fixture {
        cache: Arc<PreparedCache>,
        admission: Arc<Admission>,
        counts: Arc<Counts>,
        document: Document,
        key: PreparedKey,
        rest: Rest,
        _worker: AbortOnDropHandle<()>,
    }

    impl Fixture {
        /// A document of 200 sentences, one of them embedded.
        fn new() -> Self {
            let text = (0..200).map(|n| format!("Sentence number {n} says something. ")).collect();
            let document = Document { text, ..Document::default() };
            let counts = Arc::<Counts>::default();
            let mut prepared = Prepared::new(&document, None, &mut || Ok(())).unwrap();
            prepared.embed_more(&document, &*counts, 1).unwrap();
            let cache = Arc::new(PreparedCache::new(1 << 24));
            let key = PreparedKey::new("one", &document, counts.identity());
            cache.put(key, Arc::new(prepared));
            let admission = Arc::new(Admission::new(4));
            let (rest, worker) = Rest::begin(Arc::clone(&cache), Arc::clone(&admission));
            Self { cache, admission, counts, document, key, rest, _worker: worker }
        }

        fn leave(&self) {
            let embedder: Arc<dyn Embedder> = Arc::clone(&self.counts) as _;
            self.rest.leave("one", std::slice::from_ref(&self.document), &embedder);
        }

        fn embedded(&self) -> usize {
            self.counts.0.load(Ordering::SeqCst)
        }

        async fn until(&self, done: impl Fn(&Self) -> bool) {
            let clock = std::time::Instant::now();
            while !done(self) {
                assert!(clock.elapsed() < Duration::from_secs(20), "{}", self.embedded());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn the_rest_is_embedded_once_nobody_is_served() {
        let fixture = Fixture::new();
        let tenants = Tenants::new(&[] as &[config::Tenant], 4);
        let call = fixture.admission.admit(&tenants.authenticate(None).unwrap()).unwrap();
        fixture.leave();
        tokio::time::sleep(4 * PATIENCE).await;
        assert_eq!(fixture.embedded(), 1, "somebody is served");

        drop(call);
        fixture.until(|fixture| fixture.cache.get(&fixture.key).unwrap().is_embedded()).await;
        assert_eq!(fixture.embedded(), 200, "each sentence once");
        // All of its room is given back, and there is nothing left to do.
        fixture.until(|fixture| fixture.rest.room.available_permits() == MOST.1).await;
        fixture.leave();
        assert_eq!(fixture.rest.room.available_permits(), MOST.1);
    }

    #[tokio::test]
    async fn what_was_forgotten_does_not_come_back() {
        let fixture = Fixture::new();
        let tenants = Tenants::new(&[] as &[config::Tenant], 4);
        let call = fixture.admission.admit(&tenants.authenticate(None).unwrap()).unwrap();
        fixture.leave();
        fixture.cache.forget("one");
        drop(call);
        fixture.until(|fixture| fixture.rest.room.available_permits() == MOST.1).await;
        assert!(fixture.cache.get(&fixture.key).is_none());
        assert_eq!(fixture.embedded(), 1);
        // Forgotten while it was worked on: what was embedded has no place to go.
        let late = Prepared::new(&fixture.document, None, &mut || Ok(())).unwrap();
        assert!(!fixture.cache.replace(&fixture.key, Arc::new(late)));
        assert!(fixture.cache.get(&fixture.key).is_none());
    }
}
