//! How the calls of a map get done: in the caller's task, or by the writer.

use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Poll, ready};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::coop::consume_budget;

use crate::backend::{Key, StorageBackend, Value};
use crate::backlog::{Backlog, Note, Place, Room};
use crate::error::{PersistentError, Result};
use crate::local::Local;
use crate::panics::contain;
use crate::shared::Shared;
use crate::sync::Mutex;
use crate::transaction::{Call, Decision, Transaction};
use crate::write::Write;
use crate::writer::{Answer, Request};

pub(crate) enum Engine<K, V, S> {
    /// There is no store: memory is changed in the caller's task.
    Resident(Arc<Local<K, V>>),
    /// Memory is changed in the caller's task, and the saver stores it.
    Behind(Arc<Local<K, V>>, Follower<V>),
    /// By the writer at the other end of the queue.
    Through(mpsc::Sender<Request<K, V, S>>),
}

/// What a caller knows of the saver.
pub(crate) struct Follower<V> {
    pub(crate) backlog: Arc<Backlog>,
    /// Few at a time, though it has no bound of its own: one of each kind that the backlog gives, one close, and those
    /// that have a place.
    pub(crate) notes: mpsc::UnboundedSender<Note<V>>,
    /// For calls that the saver answers.
    places: Arc<Semaphore>,
}

/// So many calls wait for the saver in its line. More wait for a place there, and those that are given up take none.
const PLACES: usize = 1024;

/// To copy so many entries takes about as long as another call.
const ENTRIES_A_CALL: usize = 64;
/// After so many calls that do not wait, tokio lets other tasks go on.
const CALLS_A_TURN: usize = 128;

/// What a call may change.
pub(crate) enum Scope<K> {
    Key(K),
    All,
}

impl<K, V, S> Engine<K, V, S>
where
    K: Key,
    V: Value,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Makes one change that depends on nothing.
    pub(crate) async fn write<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
        write: Write<K, V>,
    ) -> Result<Option<V>> {
        shared.check_may_wait()?;
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        match self {
            Engine::Resident(local) => {
                consume_budget().await;
                local.write(shared, write)
            }
            Engine::Behind(local, saver) => {
                let _place = saver.room(shared).await?;
                let write = prepare_in_place(shared, write)?;
                saver.tell(local.write(shared, write))
            }
            Engine::Through(queue) => {
                let write = prepare_in_place(shared, write)?;
                submit(shared, queue, |answer| Request::Write(write, answer)).await
            }
        }
    }

    /// Makes changes that depend on nothing, all or none. Returns how many have found an entry.
    pub(crate) async fn write_all<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
        atomic_batches: bool,
        writes: Vec<Write<K, V>>,
    ) -> Result<usize> {
        shared.check_may_wait()?;
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        if writes.len() > 1 && !atomic_batches {
            return Err(PersistentError::no_batches());
        }
        match self {
            Engine::Resident(local) => {
                take_turns_for(writes.len()).await;
                local.write_all(shared, writes)
            }
            Engine::Behind(local, saver) => {
                take_turns_for(writes.len()).await;
                let _place = saver.room(shared).await?;
                let writes = prepare_all(shared, writes)?;
                saver.tell(local.write_all(shared, writes))
            }
            Engine::Through(queue) => {
                let writes = prepare_all(shared, writes)?;
                if writes.is_empty() {
                    return yielding(Ok(0)).await;
                }
                submit(shared, queue, |answer| Request::Batch(writes, answer)).await
            }
        }
    }

    /// Runs `run` where nothing else changes the map, and stores what it has decided.
    pub(crate) async fn call<B: StorageBackend<K, V>, R: Send + 'static>(
        &self,
        shared: &Shared<K, V, B, S>,
        scope: Scope<K>,
        run: impl FnMut(&mut Transaction<'_, K, V, S>) -> Decision<R> + Send + 'static,
    ) -> Result<R> {
        shared.check_may_wait()?;
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        match self {
            Engine::Resident(local) => {
                consume_budget().await;
                call_here(shared, local, &scope, run)
            }
            Engine::Behind(local, saver) => {
                let _place = saver.room(shared).await?;
                saver.tell(call_here(shared, local, &scope, run))
            }
            Engine::Through(queue) => {
                submit(shared, queue, |answer| {
                    Request::Call(Box::new(Call::answering(run, answer)))
                })
                .await
            }
        }
    }

    /// Removes what `keep` says no to: in one step, or one by one.
    pub(crate) async fn retain<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
        atomic_batches: bool,
        mut keep: impl FnMut(&K, &V) -> bool + Send + 'static,
    ) -> Result<usize> {
        shared.check_may_wait()?;
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        take_turns_for(shared.cache.len()).await;
        if atomic_batches {
            let remove_others = move |transaction: &mut Transaction<'_, K, V, S>| {
                let mut removed = 0;
                for key in transaction.keys() {
                    if transaction.with(&key, |value| !keep(&key, value)) == Some(true) {
                        transaction.remove(&key);
                        removed += 1;
                    }
                }
                Decision::Commit(removed)
            };
            let all = Scope::All;
            return self.call(shared, all, remove_others).await;
        }
        let keep = Arc::new(Mutex::new(keep));
        let mut removed = 0;
        for key in contain("`Clone` of a key", || shared.cache.keys())? {
            let keep = Arc::clone(&keep);
            let remove = move |transaction: &mut Transaction<'_, K, V, S>| {
                let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
                let goes = transaction.with(&key, |value| !keep(&key, value)) == Some(true);
                if goes {
                    transaction.remove(&key);
                }
                Decision::Commit(goes)
            };
            match self.call(shared, Scope::All, remove).await {
                Ok(gone) => removed += usize::from(gone),
                Err(error) => return Err(error.after_removing(removed as u64)),
            }
        }
        Ok(removed)
    }

    pub(crate) async fn clear<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
        atomic_batches: bool,
    ) -> Result<()> {
        shared.check_may_wait()?;
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        match self {
            Engine::Resident(local) => {
                take_turns_for(shared.cache.len()).await;
                local.clear(shared)
            }
            Engine::Behind(..) => {
                let none = self.retain(shared, atomic_batches, |_, _| false);
                none.await.map(drop)
            }
            Engine::Through(queue) => submit(shared, queue, Request::Clear).await,
        }
    }

    pub(crate) async fn flush<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
    ) -> Result<()> {
        shared.check_may_wait()?;
        match self {
            Engine::Resident(_) => {
                consume_budget().await;
                shared.status.check_writable()?;
                shared.backend.flush().await
            }
            Engine::Behind(_, saver) => saver.ask(shared, Note::Flush).await,
            Engine::Through(queue) => submit(shared, queue, Request::Flush).await,
        }
    }

    /// All entries at one moment. Works on a closed map as well: nothing changes it any more.
    pub(crate) async fn snapshot<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
    ) -> Result<Vec<(K, V)>> {
        shared.check_may_wait()?;
        let copy = || contain("`Clone` of a key or value", || shared.cache.all());
        match self {
            Engine::Resident(local) | Engine::Behind(local, _) => {
                take_turns_for(shared.cache.len()).await;
                local.still(copy)
            }
            // By the writer on a poisoned map as well: it may still be showing what is stored.
            Engine::Through(queue) => match queued(shared, queue, Request::Snapshot).await {
                Err(PersistentError::Closed | PersistentError::WriterGone) => {
                    let _ = shared.status.ended().await;
                    copy()
                }
                result => result,
            },
        }
    }

    pub(crate) async fn verify<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
        equal: fn(&V, &V) -> bool,
    ) -> Result<u64> {
        shared.check_may_wait()?;
        match self {
            Engine::Resident(_) => yielding(Ok(shared.cache.len() as u64)).await,
            Engine::Behind(_, saver) => {
                saver
                    .ask(shared, |answer, place| Note::Verify(equal, answer, place))
                    .await
            }
            Engine::Through(queue) => {
                submit(shared, queue, |answer| Request::Verify(equal, answer)).await
            }
        }
    }

    pub(crate) async fn close<B: StorageBackend<K, V>>(
        &self,
        shared: &Shared<K, V, B, S>,
    ) -> Result<()> {
        shared.check_may_wait()?;
        match self {
            Engine::Resident(local) => {
                local.close();
                shared.released.get_or_init(|| shared.finish(Ok(()))).await;
            }
            Engine::Behind(_, saver) => {
                if shared.status.request_close() {
                    let _ = saver.notes.send(Note::Close);
                    saver.backlog.wake_all();
                }
            }
            Engine::Through(_) => {
                shared.status.request_close();
            }
        }
        shared.status.ended().await
    }

    /// Calls that have been made and have no result yet.
    pub(crate) fn queued(&self) -> usize {
        match self {
            Engine::Resident(_) | Engine::Behind(..) => 0,
            Engine::Through(queue) => queue.max_capacity() - queue.capacity(),
        }
    }

    /// Entries and their prepared bytes that are accepted and not stored.
    pub(crate) fn unsaved(&self) -> (usize, usize) {
        match self {
            Engine::Behind(_, saver) => (saver.backlog.unsaved_entries(), saver.backlog.bytes()),
            Engine::Resident(_) | Engine::Through(_) => (0, 0),
        }
    }
}

impl<K, V, S> Clone for Engine<K, V, S> {
    fn clone(&self) -> Self {
        match self {
            Engine::Resident(local) => Engine::Resident(Arc::clone(local)),
            Engine::Behind(local, saver) => Engine::Behind(Arc::clone(local), saver.clone()),
            Engine::Through(queue) => Engine::Through(queue.clone()),
        }
    }
}

/// Prepares a write in the task of its caller: whatever the code of its key does wrong, it does here.
fn prepare_in_place<K, V, B, S>(
    shared: &Shared<K, V, B, S>,
    mut write: Write<K, V>,
) -> Result<Write<K, V>>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone,
{
    contain(
        "`Hash`, `Eq`, `Clone`, `Serialize` or `Deserialize`",
        || {
            let (resident, removals) = shared.cache.resident_key(write.key());
            write.resolve_key(resident, removals);
            write.prepared_by(&shared.backend)
        },
    )?
}

fn prepare_all<K, V, B, S>(
    shared: &Shared<K, V, B, S>,
    writes: Vec<Write<K, V>>,
) -> Result<Vec<Write<K, V>>>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone,
{
    let writes = writes.into_iter();
    writes
        .map(|write| prepare_in_place(shared, write))
        .collect()
}

fn call_here<K, V, B, S, R>(
    shared: &Shared<K, V, B, S>,
    local: &Local<K, V>,
    scope: &Scope<K>,
    run: impl FnMut(&mut Transaction<'_, K, V, S>) -> Decision<R> + Send,
) -> Result<R>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone,
    R: Send,
{
    let mut call = Call::here(run);
    match scope {
        Scope::Key(key) => local.call_on_key(shared, key, &mut call)?,
        Scope::All => local.call_on_all(shared, &mut call)?,
    }
    call.into_result()
}

impl<V> Follower<V> {
    pub(crate) fn new(backlog: Arc<Backlog>, notes: mpsc::UnboundedSender<Note<V>>) -> Self {
        Follower {
            backlog,
            notes,
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    async fn room<K, B, S>(&self, shared: &Shared<K, V, B, S>) -> Result<Room<'_>> {
        self.backlog.room(|| shared.status.check_writable()).await
    }

    /// Tells the saver what it should know after a change.
    fn tell<R>(&self, result: Result<R>) -> Result<R> {
        if let Some(note) = self.backlog.note() {
            // A saver that is gone has closed the lanes.
            let _ = self.notes.send(note);
        }
        if result.is_err() {
            // It may have poisoned the map: those who wait for room must look again.
            self.backlog.wake_all();
        }
        result
    }

    /// Asks the saver, and waits for its answer.
    async fn ask<K, B, S, T>(
        &self,
        shared: &Shared<K, V, B, S>,
        note: impl FnOnce(Answer<T>, Place) -> Note<V>,
    ) -> Result<T> {
        if let Err(refused) = shared.status.check_writable() {
            return yielding(Err(refused)).await;
        }
        // It has none left only while the saver has that many notes, and then it takes the next one or has ended.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| PersistentError::Closed)?;
        let (answer, result) = oneshot::channel();
        self.notes
            .send(note(answer, place))
            .map_err(|_| PersistentError::Closed)?;
        answer_or_end(shared, result).await
    }
}

impl<V> Clone for Follower<V> {
    fn clone(&self) -> Self {
        Follower {
            backlog: Arc::clone(&self.backlog),
            notes: self.notes.clone(),
            places: Arc::clone(&self.places),
        }
    }
}

/// An answer that is there at once. A task that asks again and again must let others go on from time to time, as it does
/// where it waits for a channel.
async fn yielding<T>(answer: Result<T>) -> Result<T> {
    consume_budget().await;
    answer
}

/// Before work on all these entries in the caller's task. What takes as long as many calls counts as many: otherwise a task
/// would go through a large map a hundred times before others go on, the one that saves among them.
async fn take_turns_for(entries: usize) {
    for _ in 0..=(entries / ENTRIES_A_CALL).min(CALLS_A_TURN) {
        consume_budget().await;
    }
}

/// Hands a call to the writer, if it may write.
async fn submit<K, V, B, S, T>(
    shared: &Shared<K, V, B, S>,
    queue: &mpsc::Sender<Request<K, V, S>>,
    request: impl FnOnce(Answer<T>) -> Request<K, V, S>,
) -> Result<T> {
    if let Err(refused) = shared.status.check_writable() {
        return yielding(Err(refused)).await;
    }
    queued(shared, queue, request).await
}

/// Waits for a place in the queue, and then for the answer.
async fn queued<K, V, B, S, T>(
    shared: &Shared<K, V, B, S>,
    queue: &mpsc::Sender<Request<K, V, S>>,
    request: impl FnOnce(Answer<T>) -> Request<K, V, S>,
) -> Result<T> {
    if let Err(refused) = shared.status.check_open() {
        return yielding(Err(refused)).await;
    }
    let place = queue.reserve().await.map_err(|_| PersistentError::Closed)?;
    hand_over(shared, queue, place, request).await
}

/// From the moment that the place is ours there is no way back, and no `await` until the request is handed over.
async fn hand_over<K, V, B, S, T>(
    shared: &Shared<K, V, B, S>,
    queue: &mpsc::Sender<Request<K, V, S>>,
    place: mpsc::Permit<'_, Request<K, V, S>>,
    request: impl FnOnce(Answer<T>) -> Request<K, V, S>,
) -> Result<T> {
    let (answer, result) = oneshot::channel();
    place.send(request(answer));
    // Whatever is handed over before the queue is closed will be answered. After that it may lie there for good.
    if queue.is_closed() {
        return answer_or_end(shared, result).await;
    }
    result.await.unwrap_or(Err(PersistentError::WriterGone))
}

/// The writer answers all that it has taken before it ends. What has no answer by then was never taken.
async fn answer_or_end<K, V, B, S, T>(
    shared: &Shared<K, V, B, S>,
    mut result: oneshot::Receiver<Result<T>>,
) -> Result<T> {
    let mut ended = pin!(shared.status.ended());
    poll_fn(|context| {
        if let Poll::Ready(answer) = Pin::new(&mut result).poll(context) {
            return Poll::Ready(answer.unwrap_or(Err(PersistentError::WriterGone)));
        }
        let end = ready!(ended.as_mut().poll(context));
        Poll::Ready(match (result.try_recv(), end) {
            (Ok(answer), _) => answer,
            (Err(_), Err(PersistentError::WriterGone)) => Err(PersistentError::WriterGone),
            (Err(_), _) => Err(PersistentError::Closed),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::hash::{BuildHasherDefault, Hasher};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::task::Context;
    use std::time::Duration;

    use async_trait::async_trait;
    use serde::{Deserialize, Serialize};
    use tokio::time::timeout;

    use super::*;
    use crate::local::resolve_key;
    use crate::{Behind, PersistentMap, WriteMode};

    /// Remembers how the keys of its writes are written, and keeps nothing.
    #[derive(Default)]
    struct Log {
        keys: Mutex<Vec<OsString>>,
        is_stuck: bool,
    }

    #[async_trait]
    impl StorageBackend<PathBuf, u8> for Log {
        async fn load_all(&self) -> Result<HashMap<PathBuf, u8>> {
            Ok(HashMap::new())
        }
        async fn save(&self, key: PathBuf, _: u8) -> Result<()> {
            self.keys.lock().unwrap().push(key.into_os_string());
            Ok(())
        }
        async fn delete(&self, _: &PathBuf) -> Result<()> {
            Ok(())
        }
        async fn flush(&self) -> Result<()> {
            if self.is_stuck {
                return Err(PersistentError::storage("flushing", "stuck"));
            }
            Ok(())
        }
    }

    /// On two threads this can happen between two instructions, which no test from outside can bring about.
    #[tokio::test]
    async fn a_call_that_has_its_place_when_the_map_ends_does_not_hold_it_up_and_is_answered() {
        let map = PersistentMap::new(Log::default()).await.unwrap();
        let Engine::Through(queue) = &map.engine else {
            panic!("a backend without a store");
        };
        let place = queue.reserve().await.unwrap();
        let closed = timeout(Duration::from_secs(5), map.close()).await;
        closed.expect("the close waits for the place").unwrap();

        let call = hand_over(&map.shared, queue, place, |answer| {
            Request::Write(Write::insert(PathBuf::from("a"), 1), answer)
        });
        let answer = timeout(Duration::from_secs(5), call)
            .await
            .expect("an answer");
        assert!(matches!(answer, Err(PersistentError::Closed)), "{answer:?}");
    }

    /// Between the two notes another thread has found the map open.
    #[tokio::test]
    async fn a_flush_that_comes_behind_a_close_hears_how_that_went() {
        let stuck = Log {
            is_stuck: true,
            ..Log::default()
        };
        let map = PersistentMap::builder(stuck).write_mode(WriteMode::Behind(Behind::new()));
        let map = map.open().await.unwrap();
        let Engine::Behind(_, saver) = &map.engine else {
            panic!("a backend without a store");
        };
        let place = Arc::clone(&saver.places).acquire_owned().await.unwrap();
        let (answer, flushed) = oneshot::channel();
        assert!(saver.notes.send(Note::Close).is_ok());
        assert!(saver.notes.send(Note::Flush(answer, place)).is_ok());
        assert!(flushed.await.unwrap().is_err());
        assert!(map.close().await.is_err());
    }

    thread_local! {
        static ON_CLONE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    }

    /// Does something else while it is copied, once.
    #[derive(PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Busy(u64);

    impl Clone for Busy {
        fn clone(&self) -> Self {
            if let Some(act) = ON_CLONE.take() {
                act();
            }
            Busy(self.0)
        }
    }

    struct TwoEntries;

    #[async_trait]
    impl StorageBackend<Busy, u8> for TwoEntries {
        async fn load_all(&self) -> Result<HashMap<Busy, u8>> {
            Ok(HashMap::from([(Busy(0), 0), (Busy(u64::MAX), 0)]))
        }
        async fn save(&self, _: Busy, _: u8) -> Result<()> {
            Ok(())
        }
        async fn delete(&self, _: &Busy) -> Result<()> {
            Ok(())
        }
        async fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    /// The first and the last `u64` are in different shards.
    #[derive(Default)]
    struct Plain(u64);

    impl Hasher for Plain {
        fn write(&mut self, _: &[u8]) {
            panic!("a key that is no `u64`");
        }
        fn write_u64(&mut self, key: u64) {
            self.0 = key;
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }

    type Prepare<S> = fn(&Shared<Busy, u8, TwoEntries, S>, Write<Busy, u8>) -> Write<Busy, u8>;

    /// Another thread removes an entry in the middle of the look-up. Which one, the map does not remember.
    #[tokio::test]
    async fn a_key_is_looked_up_again_if_an_entry_went_while_it_was_looked_up() {
        let ways: [(&str, Prepare<BuildHasherDefault<Plain>>); 3] = [
            ("prepared", |shared, write| {
                prepare_in_place(shared, write).unwrap()
            }),
            ("of a transaction", |shared, write| {
                let mut transaction = Transaction::new(&shared.cache, None);
                transaction.set(Busy(write.key().0), 1);
                transaction.into_writes().pop().unwrap()
            }),
            ("behind", |shared, mut write| {
                resolve_key(shared, &[], &mut write).unwrap();
                write
            }),
        ];
        for (way, prepare) in ways {
            let map =
                PersistentMap::builder(TwoEntries).hasher(BuildHasherDefault::<Plain>::default());
            let map = map.open().await.unwrap();
            let shared = Arc::clone(&map.shared);
            ON_CLONE.set(Some(Box::new(move || {
                shared.publish(Write::remove(Busy(u64::MAX))).unwrap();
            })));
            let write = prepare(&map.shared, Write::insert(Busy(0), 1));
            assert_eq!(map.len(), 1, "{way}: nothing went meanwhile");
            assert!(
                write.key_may_differ(map.shared.cache.removals()),
                "{way}: its key counts as looked up after the removal"
            );
        }
    }

    #[tokio::test]
    async fn calls_that_were_given_up_leave_few_notes() {
        let map = PersistentMap::<PathBuf, u8, _>::new(Log::default());
        let map = map.await.unwrap();
        let (notes, mut inbox) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::new(Behind::new(), true));
        let saver = Follower::<u8>::new(backlog, notes);
        for _ in 0..3 * PLACES {
            let flush = pin!(saver.ask(&map.shared, Note::Flush));
            assert!(give_up(flush).await.is_none());
        }
        assert_eq!(inbox.len(), PLACES);
        // Whoever waits gets the place of a note that is taken.
        let mut flush = Box::pin(saver.ask(&map.shared, Note::Flush));
        assert!(give_up(flush.as_mut()).await.is_none());
        drop(inbox.recv().await);
        assert!(give_up(flush.as_mut()).await.is_none());
        assert_eq!(inbox.len(), PLACES);
    }

    /// Polls a call once.
    async fn give_up<T>(mut call: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let once = |context: &mut Context<'_>| match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        };
        tokio::task::coop::unconstrained(poll_fn(once)).await
    }

    /// Between the two instructions another thread has removed the entry and written it anew.
    #[tokio::test]
    async fn an_entry_that_comes_back_spelled_differently_is_still_one_row() {
        for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
            let map = PersistentMap::builder(Log::default()).write_mode(mode);
            let map = map.open().await.unwrap();
            map.insert(PathBuf::from("a/b"), 1).await.unwrap();
            let late = Write::insert(PathBuf::from("a/b"), 3);
            let late = prepare_in_place(&map.shared, late).unwrap();
            map.remove(Path::new("a/b")).await.unwrap();
            map.insert(PathBuf::from("a//b"), 2).await.unwrap();
            match &map.engine {
                Engine::Through(queue) => {
                    let request = |answer| Request::Write(late, answer);
                    submit(&map.shared, queue, request).await.unwrap();
                }
                Engine::Behind(local, _) => drop(local.write(&map.shared, late).unwrap()),
                Engine::Resident(_) => panic!("a backend without a store"),
            }
            map.flush().await.unwrap();
            let log = map.backend().keys.lock().unwrap().clone();
            assert_eq!(log[1], log[2], "two rows for one entry: {log:?}");
            assert_eq!(log.len(), 3);
        }
    }
}
