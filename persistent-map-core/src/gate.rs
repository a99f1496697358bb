//! Lets writers in among readers who never pause.
//!
//! The lock of a shard lets readers in past a writer who waits, so readers that overlap would keep it out for ever. A writer
//! who finds the lock taken closes the gate of the shard: readers who come now wait before it until the writer has got in.
//! So the writer waits for the reads that are under way, and for no others.
//!
//! A reader before a gate may be what a reader behind it waits for. That must not become a deadlock:
//! - A thread that reads inside of a read goes on, if a writer waits for what it holds. (If each reader of a circle were
//!   before a gate, each gate would have been closed after the next one.)
//! - Of what threads do among themselves nothing is known. So a reader does not wait for ever: a second, or as long again as
//!   the writer has waited by then.

use std::cell::Cell;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, thread_local};

/// How long a reader waits for a writer, at least.
const PATIENCE: Duration = Duration::from_secs(1);

/// For each bit, how many writers wait before a shard with this bit, of whatever map. Not the scheduler's: it is no lock.
static WAITED_FOR: [std::sync::atomic::AtomicUsize; 64] =
    [const { std::sync::atomic::AtomicUsize::new(0) }; 64];

/// So that the shards of two maps have different bits, as far as that goes.
static NEXT_BIT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

thread_local! {
    /// The bits of the shards that this thread is reading.
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// One gate for each shard.
pub(crate) struct Gates {
    /// How many are closed: what each reader looks at before it locks.
    closed: AtomicUsize,
    each: Box<[Gate]>,
    first_bit: usize,
}

struct Gate {
    line: Mutex<Line>,
    opened: Condvar,
}

struct Line {
    /// Writers who wait.
    writers: usize,
    /// How many have got in. Readers wait for one of them, not for all.
    turns: u64,
    /// Since when there is a writer who waits.
    since: Instant,
}

impl Gates {
    pub(crate) fn new(shards: usize) -> Self {
        let gate = || Gate {
            line: Mutex::new(Line {
                writers: 0,
                turns: 0,
                since: Instant::now(),
            }),
            opened: Condvar::new(),
        };
        Gates {
            closed: AtomicUsize::new(0),
            each: (0..shards).map(|_| gate()).collect(),
            first_bit: NEXT_BIT.fetch_add(shards, Ordering::Relaxed),
        }
    }

    /// What a reader of this shard does before it locks.
    #[inline]
    pub(crate) fn pass(&self, shard: usize) {
        if self.closed.load(Ordering::Relaxed) > 0 {
            self.wait_before(shard);
        }
    }

    /// What a reader of all shards does before it locks the first one.
    pub(crate) fn pass_all(&self) {
        (0..self.each.len()).for_each(|shard| self.pass(shard));
    }

    /// This thread has locked the shard, and runs code of others meanwhile.
    #[inline]
    pub(crate) fn reading(&self, shard: usize) -> Reading {
        Reading::new(self.bit(shard))
    }

    /// This thread has locked one shard or another.
    pub(crate) fn reading_all() -> Reading {
        Reading::new(u64::MAX)
    }

    /// Waits for a writer of this shard, if there is one.
    #[cold]
    fn wait_before(&self, shard: usize) {
        let gate = &self.each[shard];
        let mut line = gate.line();
        if line.writers == 0 || holds_what_a_writer_waits_for() {
            return;
        }
        let (turn, arrived) = (line.turns, Instant::now());
        let patience = PATIENCE.max(arrived - line.since);
        while line.writers > 0 && line.turns == turn {
            let left = patience.saturating_sub(arrived.elapsed());
            if left.is_zero() {
                return;
            }
            let woken = gate.opened.wait_timeout(line, left);
            (line, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What a writer does to lock a shard: at once, or behind its gate.
    #[inline]
    pub(crate) fn let_in<G>(
        &self,
        shard: usize,
        at_once: Option<G>,
        lock: impl FnOnce() -> G,
    ) -> G {
        at_once.unwrap_or_else(|| self.wait_inside(shard, lock))
    }

    #[cold]
    fn wait_inside<G>(&self, shard: usize, lock: impl FnOnce() -> G) -> G {
        let _closed = self.close(shard);
        lock()
    }

    /// Until what it returns is dropped.
    fn close(&self, shard: usize) -> Closed<'_> {
        let gate = &self.each[shard];
        let waited_for = &WAITED_FOR[self.bit(shard).trailing_zeros() as usize];
        waited_for.fetch_add(1, Ordering::SeqCst);
        let mut line = gate.line();
        if line.writers == 0 {
            line.since = Instant::now();
        }
        line.writers += 1;
        drop(line);
        self.closed.fetch_add(1, Ordering::SeqCst);
        Closed {
            gates: self,
            shard,
            waited_for,
        }
    }

    #[inline]
    fn bit(&self, shard: usize) -> u64 {
        1 << ((self.first_bit + shard) % WAITED_FOR.len())
    }
}

impl Gate {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A closed gate. Opens when it is dropped, unless another writer waits.
struct Closed<'a> {
    gates: &'a Gates,
    shard: usize,
    waited_for: &'static std::sync::atomic::AtomicUsize,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let gate = &self.gates.each[self.shard];
        let mut line = gate.line();
        line.writers -= 1;
        line.turns += 1;
        drop(line);
        self.gates.closed.fetch_sub(1, Ordering::SeqCst);
        self.waited_for.fetch_sub(1, Ordering::SeqCst);
        gate.opened.notify_all();
    }
}

/// While it lives, this thread holds a lock that a writer may need.
pub(crate) struct Reading {
    before: u64,
}

impl Reading {
    #[inline]
    fn new(bits: u64) -> Self {
        HELD.with(|held| Reading {
            before: held.replace(held.get() | bits),
        })
    }
}

impl Drop for Reading {
    #[inline]
    fn drop(&mut self) {
        HELD.with(|held| held.set(self.before));
    }
}

/// Whether this thread is inside of a read, so that it must not wait for a write.
pub(crate) fn is_reading() -> bool {
    HELD.with(Cell::get) != 0
}

fn holds_what_a_writer_waits_for() -> bool {
    let held = HELD.with(Cell::get);
    let is_held = |bit: &usize| held & (1 << *bit) != 0;
    let mut held_bits = (0..WAITED_FOR.len()).filter(is_held);
    held_bits.any(|bit| WAITED_FOR[bit].load(Ordering::SeqCst) > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Whether a thread that does this comes to its end before a writer lets it, and how long it took in any case.
    fn passes(gates: &Arc<Gates>, read: impl FnOnce(&Gates) + Send + 'static) -> bool {
        let (done, passed) = channel();
        let gates = Arc::clone(gates);
        thread::spawn(move || {
            read(&gates);
            let _ = done.send(());
        });
        passed.recv_timeout(PATIENCE / 2).is_ok()
    }

    #[test]
    fn a_reader_waits_for_a_writer_of_its_own_shard_and_no_longer_than_its_patience() {
        let gates = Arc::new(Gates::new(2));
        let closed = gates.close(0);
        assert!(passes(&gates, |gates| gates.pass(1)));
        assert!(!passes(&gates, |gates| gates.pass(0)));
        assert!(!passes(&gates, Gates::pass_all));
        let started = Instant::now();
        gates.pass(0);
        assert!(started.elapsed() >= PATIENCE);
        drop(closed);
        assert!(passes(&gates, Gates::pass_all));
    }

    #[test]
    fn each_writer_lets_those_pass_who_wait_for_it() {
        let gates = Arc::new(Gates::new(1));
        let (first, second) = (gates.close(0), gates.close(0));
        let (done, passed) = channel();
        let reader = {
            let gates = Arc::clone(&gates);
            thread::spawn(move || {
                gates.pass(0);
                done.send(()).unwrap();
            })
        };
        thread::sleep(PATIENCE / 10);
        drop(first);
        passed.recv_timeout(PATIENCE / 2).expect("it waits for all");
        reader.join().unwrap();
        assert!(!passes(&gates, |gates| gates.pass(0)));
        drop(second);
        assert!(passes(&gates, |gates| gates.pass(0)));
    }

    #[test]
    fn a_reader_inside_of_a_read_waits_only_while_no_writer_waits_for_it() {
        let gates = Arc::new(Gates::new(2));
        let _closed = gates.close(0);
        let inside_of = |shard| {
            move |gates: &Gates| {
                let _reading = gates.reading(shard);
                assert!(is_reading());
                gates.pass(0);
            }
        };
        assert!(!passes(&gates, inside_of(1)));
        assert!(passes(&gates, inside_of(0)));
        let _other = gates.close(1);
        assert!(passes(&gates, inside_of(1)));
        assert!(!is_reading());
    }
}
