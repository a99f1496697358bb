//! The calls that are waited for, and the thread that ends the process when one is late.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::late;

const POLL: Duration = Duration::from_millis(50);

/// All calls under way.
#[derive(Clone)]
pub(super) struct Watch {
    state: Arc<Mutex<State>>,
    /// Within this each call answers.
    answer: Duration,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, Waiting>,
    longest: Duration,
    longest_call: &'static str,
    /// Says how the map stands.
    describe: Option<Box<dyn Fn() -> String + Send>>,
}

struct Waiting {
    call: &'static str,
    since: Instant,
    bound: Duration,
}

/// A call under way, until it is dropped.
pub(super) struct Call<'a> {
    watch: &'a Watch,
    id: u64,
}

impl Watch {
    /// Starts the thread, which ends this process when a call is late.
    pub(super) fn start(case: String, answer: Duration) -> Self {
        let state = Arc::default();
        let watch = Watch { state, answer };
        let watched = watch.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(POLL);
                watched.look(&case);
            }
        });
        watch
    }

    /// How the map stands is asked for when a call is late.
    pub(super) fn describe_by(&self, describe: impl Fn() -> String + Send + 'static) {
        self.state().describe = Some(Box::new(describe));
    }

    /// An asynchronous call, which answers in time.
    pub(super) async fn call<F: Future>(&self, call: &'static str, future: F) -> F::Output {
        let _call = self.begin(call, self.answer);
        future.await
    }

    /// A call that holds its thread, which answers in time.
    pub(super) fn blocking<R>(&self, call: &'static str, work: impl FnOnce() -> R) -> R {
        let _call = self.begin(call, self.answer);
        work()
    }

    /// Calls that answer together within a bound of their own.
    pub(super) fn begin(&self, call: &'static str, bound: Duration) -> Call<'_> {
        let mut state = self.state();
        state.last += 1;
        let id = state.last;
        let since = Instant::now();
        state.waiting.insert(id, Waiting { call, since, bound });
        Call { watch: self, id }
    }

    /// The longest wait for one call so far, and the call that it was.
    pub(super) fn longest(&self) -> (Duration, &'static str) {
        let state = self.state();
        (state.longest, state.longest_call)
    }

    fn look(&self, case: &str) {
        let mut state = self.state();
        let calls = state.waiting.values();
        let mut late: Vec<_> = calls
            .filter(|waiting| waiting.since.elapsed() > waiting.bound)
            .collect();
        late.sort_by_key(|waiting| waiting.since);
        let Some(first) = late.first() else {
            return;
        };
        let mut text = format!(
            "{case}: {} has not answered for {:.1} s (the bound is {:?}); {} calls are late, {} wait",
            first.call,
            first.since.elapsed().as_secs_f64(),
            first.bound,
            late.len(),
            state.waiting.len(),
        );
        let describe = state.describe.take();
        drop(state);
        text.push_str(&late::whereabouts(describe));
        eprintln!("VIOLATION: {text}");
        std::process::exit(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        let Some(ended) = state.waiting.remove(&self.id) else {
            return;
        };
        let waited = ended.since.elapsed();
        // Other bounds are those of many calls together.
        if ended.bound == self.watch.answer && waited > state.longest {
            (state.longest, state.longest_call) = (waited, ended.call);
        }
    }
}
