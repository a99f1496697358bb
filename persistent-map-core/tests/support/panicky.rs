//! Keys and values whose own code panics on command.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Code that a key or value brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Hash,
    Eq,
    Clone,
    Serialize,
    Deserialize,
    Drop,
}

thread_local! {
    static PLAN: Cell<Option<(Code, usize)>> = const { Cell::new(None) };
}

/// Lets this code panic when it runs next on this thread.
pub fn panic_next(code: Code) {
    panic_at(1, code);
}

/// Lets the `n`-th run of this code on this thread panic. Replaces what was planned before.
pub fn panic_at(n: usize, code: Code) {
    PLAN.set(Some((code, n)));
}

/// Forgets the plan. Returns whether it has been carried out.
pub fn has_panicked() -> bool {
    PLAN.take().is_none()
}

fn runs(code: Code) {
    let Some((planned, left)) = PLAN.get() else {
        return;
    };
    if planned == code && !std::thread::panicking() {
        PLAN.set((left > 1).then(|| (code, left - 1)));
        assert!(left > 1, "planted");
    }
}

#[derive(Debug)]
pub struct Panicky(pub u32);

impl Hash for Panicky {
    fn hash<H: Hasher>(&self, state: &mut H) {
        runs(Code::Hash);
        self.0.hash(state);
    }
}

impl PartialEq for Panicky {
    fn eq(&self, other: &Self) -> bool {
        runs(Code::Eq);
        self.0 == other.0
    }
}

impl Eq for Panicky {}

impl Clone for Panicky {
    fn clone(&self) -> Self {
        runs(Code::Clone);
        Panicky(self.0)
    }
}

impl Serialize for Panicky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        runs(Code::Serialize);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Panicky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        runs(Code::Deserialize);
        u32::deserialize(deserializer).map(Panicky)
    }
}

impl Drop for Panicky {
    fn drop(&mut self) {
        runs(Code::Drop);
    }
}

/// Gives each key a lane of its own, so that no call waits for the lane of another, and memory compares no two of them.
#[derive(Default)]
pub struct Apart(u64);

impl Hasher for Apart {
    fn write(&mut self, _: &[u8]) {
        panic!("a key that is no `Panicky`");
    }
    fn write_u32(&mut self, key: u32) {
        self.0 = u64::from(key) << 58;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
