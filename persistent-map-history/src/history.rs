//! What many tasks asked of a map and were answered, and whether one order of the calls explains all of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::anomaly::Anomaly;
use crate::calls::Calls;
use crate::model::{Answer, Op, State};
use crate::search;

/// A record of calls and answers, which [`check`](Self::check) holds against the one promise that matters: each call
/// takes effect at once, at some moment between its beginning and its answer (linearizability).
///
/// Clones are handles on the same history, for any number of tasks. The clock is a counter: a call takes a stamp when it
/// begins and one when it is answered, and of two calls the one that was answered before the other began comes first.
///
/// ```
/// use persistent_map_history::{History, Op};
///
/// let history = History::new();
/// let (task, key) = (0, 7);
///
/// let write = history.call(task, key, Op::Insert(1));
/// // Here the map is called.
/// write.returned(None);
/// history.call(task, key, Op::Get).returned(Some(1));
/// assert_eq!(history.check().unwrap().answered, 2);
///
/// history.call(task, key, Op::Insert(2)).returned(Some(1));
/// history.call(task, key, Op::Get).returned(Some(1));
/// let anomaly = history.check().unwrap_err();
/// assert_eq!(anomaly.key(), key);
/// assert!(anomaly.to_string().contains("get -> 1"));
/// ```
///
/// # What became of a call
///
/// - [`Call::returned`]: it took effect between its stamps, and answered this.
/// - [`Call::failed`]: it did not take effect, and never will.
/// - [`Call::unanswered`], or the handle is dropped: cancelled, timed out, or an error that does not know. It takes
///   effect at any time after its beginning, or never.
///
/// [`reopened`](Self::reopened) ends the time of all calls before it.
///
/// # How it is checked
///
/// Each key is checked alone, because a history is linearizable if and only if that of each object is (Herlihy and Wing,
/// *Linearizability: A correctness condition for concurrent objects*, 1990). For a key, orders are tried depth first, one
/// call after the other, among those calls that began before the first answer that is still to be explained (Wing and
/// Gong, *Testing and verifying concurrent objects*, 1993). A set of ordered calls and the state they lead to are tried
/// once only (Lowe, *Testing for linearizability*, 2017).
///
/// These cut the search, and none of them changes its outcome:
///
/// - A call whose answer says that it changed nothing is ordered as soon as its answer is right.
/// - An unanswered read is left out. An unanswered write is tried only where nothing else helps, and only if what it
///   leaves is what another call needs; of equal ones the first is tried.
/// - A way that leaves a value behind for good is left, if an answer still needs it.
/// - What failed with some of the unanswered calls fails with more of them, and without those that had no part in it.
///
/// To decide a history is NP-complete (Gibbons and Korach, *Testing shared memories*, 1997), so some take exponential
/// time: many writes at once that answers do not tell apart. Values that are written once only keep a check fast.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Records>);

#[derive(Debug, Default)]
struct Records {
    clock: AtomicU64,
    start: HashMap<u64, u64>,
    /// By task, so that tasks seldom wait for each other: waiting would hide some interleavings.
    shards: [Mutex<Vec<Record>>; 16],
    reopens: Mutex<Vec<u64>>,
}

/// A call, and what is known of its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) task: usize,
    pub(crate) key: u64,
    pub(crate) op: Op,
    pub(crate) call: u64,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Unanswered,
    Failed(u64),
    Returned(u64, Answer),
}

impl History {
    /// A history that begins with no entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// A history that begins with these entries.
    ///
    /// ```
    /// use persistent_map_history::{History, Op};
    ///
    /// let history = History::starting_with([(7, 1)]);
    /// history.call(0, 7, Op::Remove).returned(Some(1));
    /// history.call(0, 8, Op::Contains).returned(false);
    /// assert!(history.check().is_ok());
    /// ```
    pub fn starting_with(entries: impl IntoIterator<Item = (u64, u64)>) -> Self {
        History(Arc::new(Records {
            start: entries.into_iter().collect(),
            ..Records::default()
        }))
    }

    /// Stamps the beginning of a call: to be called before the map is. The task is for the reader of an [`Anomaly`]. For an
    /// example see [`History`].
    #[must_use = "a call whose handle is dropped counts as unanswered"]
    pub fn call(&self, task: usize, key: u64, op: Op) -> Call {
        let call = self.0.tick();
        let shard = task % self.0.shards.len();
        let mut records = locked(&self.0.shards[shard]);
        records.push(Record {
            task,
            key,
            op,
            call,
            end: End::Unanswered,
        });
        Call {
            records: Arc::clone(&self.0),
            shard,
            at: records.len() - 1,
        }
    }

    /// The map has ended, and no other is open yet. Calls that are not answered by now have taken effect or never will;
    /// an answer that is still given to one of them counts as given now.
    ///
    /// What the store has kept is for reads to say: read each key from the next map.
    ///
    /// ```
    /// use persistent_map_history::{History, Op};
    ///
    /// let history = History::new();
    /// history.call(0, 7, Op::Insert(1)).unanswered();
    /// history.reopened();
    /// history.call(0, 7, Op::Get).returned(None);
    /// assert!(history.check().is_ok());
    ///
    /// history.call(0, 7, Op::Get).returned(Some(1));
    /// assert!(history.check().is_err());
    /// ```
    pub fn reopened(&self) {
        let now = self.0.tick();
        locked(&self.0.reopens).push(now);
    }

    /// Looks for an order of the calls on each key that explains all answers. Calls that have no answer yet count as
    /// unanswered. For an example see [`History`].
    ///
    /// # Errors
    /// There is no such order for a key.
    pub fn check(&self) -> Result<Figures, Anomaly> {
        let mut reopens = locked(&self.0.reopens).clone();
        reopens.sort_unstable();
        let mut figures = Figures {
            reopens: reopens.len(),
            ..Figures::default()
        };
        let mut keys = BTreeMap::<u64, Vec<Record>>::new();
        for shard in &self.0.shards {
            for record in locked(shard).iter() {
                figures.calls += 1;
                match record.end {
                    End::Unanswered => figures.unanswered += 1,
                    End::Failed(_) => figures.failed += 1,
                    End::Returned(..) => figures.answered += 1,
                }
                keys.entry(record.key).or_default().push(*record);
            }
        }
        figures.keys = keys.len();
        for (key, mut records) in keys {
            records.sort_unstable_by_key(|record| record.call);
            let start: State = self.0.start.get(&key).copied();
            match search::explain(&Calls::new(&records, &reopens), start) {
                Some(order) => figures.tried += order.tried,
                None => return Err(Anomaly::new(key, &records, &reopens, start)),
            }
        }
        Ok(figures)
    }
}

impl Records {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A call that has begun. Dropped, it is unanswered. From [`History::call`].
///
/// ```
/// use persistent_map_core::{Outcome, PersistentError};
/// use persistent_map_history::{Call, History, Op};
///
/// fn ended(call: Call, answer: Result<Option<u64>, PersistentError>) {
///     match answer {
///         Ok(value) => call.returned(value),
///         Err(error) if error.outcome() == Outcome::NotApplied => call.failed(),
///         Err(_) => call.unanswered(),
///     }
/// }
///
/// let history = History::new();
/// ended(history.call(0, 7, Op::Insert(1)), Err(PersistentError::WriterGone));
/// ended(history.call(0, 7, Op::Get), Ok(Some(1)));
/// assert!(history.check().is_ok());
/// ```
#[derive(Debug)]
pub struct Call {
    records: Arc<Records>,
    shard: usize,
    at: usize,
}

impl Call {
    /// The call was answered: to be called when the map has returned.
    ///
    /// # Panics
    /// If this is no answer to what was asked, such as a `bool` to [`Op::Get`].
    pub fn returned(self, answer: impl Into<Answer>) {
        let answer = answer.into();
        let now = self.records.tick();
        self.end(End::Returned(now, answer));
    }

    /// The call was answered with an error that says that nothing was applied.
    pub fn failed(self) {
        let now = self.records.tick();
        self.end(End::Failed(now));
    }

    /// The call was cancelled, has timed out, or was answered with an error that does not know the outcome.
    pub fn unanswered(self) {
        self.end(End::Unanswered);
    }

    fn end(self, end: End) {
        let mut records = locked(&self.records.shards[self.shard]);
        let record = &mut records[self.at];
        if let End::Returned(_, answer) = end {
            let op = record.op;
            assert!(op.can_answer(answer), "`{answer}` is no answer to {op}");
        }
        record.end = end;
    }
}

/// What a check has looked at. From [`History::check`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// All calls.
    pub calls: usize,
    /// Those that were answered.
    pub answered: usize,
    /// Those that failed with nothing applied.
    pub failed: usize,
    /// Those whose outcome is unknown.
    pub unanswered: usize,
    /// The keys that were called for.
    pub keys: usize,
    /// How often the map was reopened.
    pub reopens: usize,
    /// The steps of the search: about one for each call that changed something, if it never had to turn back.
    pub tried: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
