//! What a map must show by now, and what its store may hold.

use persistent_map_core::{Outcome, PersistentError};

use crate::steps::{Answer, Call, KEYS, State};

/// How a map differs from what it promises.
pub(crate) type Contradiction = String;

pub(crate) struct Truth {
    /// The store follows memory.
    pub(crate) behind: bool,
    /// The store has no atomic batches.
    pub(crate) one_at_a_time: bool,
    /// What the map must show.
    pub(crate) memory: State,
    /// What may be found when the map is opened again, oldest first: what memory was since all of it was last stored for
    /// certain, and what it would have become by a call of unknown outcome.
    stored: Vec<State>,
    /// An outcome was unknown.
    pub(crate) poisoned: bool,
}

impl Truth {
    pub(crate) fn new(behind: bool, one_at_a_time: bool) -> Self {
        Truth {
            behind,
            one_at_a_time,
            memory: State::new(),
            stored: vec![State::new()],
            poisoned: false,
        }
    }

    /// What a call must answer, and what it leaves then.
    pub(crate) fn ask(&self, call: &Call) -> (Answer, State) {
        let mut wanted = self.memory.clone();
        (call.apply(&mut wanted), wanted)
    }

    /// Whether a call may be refused for what it is.
    pub(crate) fn is_refusable(&self, call: &Call) -> bool {
        self.one_at_a_time && call.is_of_many()
    }

    /// A call was answered with `Ok`.
    pub(crate) fn done(&mut self, call: &Call, wanted: State) -> Result<(), Contradiction> {
        if self.poisoned && wanted != self.memory {
            return Err("a change was accepted after an unknown outcome".into());
        }
        if self.is_refusable(call) && differences(&self.memory, &wanted) > 1 {
            return Err("several entries changed in a store without atomic batches".into());
        }
        self.memory = wanted;
        if self.behind {
            self.stored.push(self.memory.clone());
        } else if !self.poisoned {
            self.all_stored();
        }
        Ok(())
    }

    /// A call that wanted a state was answered with an error, during which the store has failed.
    pub(crate) fn failed(
        &mut self,
        call: &Call,
        error: &PersistentError,
        wanted: State,
        shown: State,
    ) -> Result<(), Contradiction> {
        let outcome = error.outcome();
        if self.one_at_a_time && call.is_of_all() && outcome != Outcome::NotApplied {
            self.partly(error, &wanted, shown)?;
        }
        if outcome == Outcome::Unknown && !self.behind {
            self.poisoned = true;
            self.stored.push(wanted);
        }
        Ok(())
    }

    /// A call has removed some entries, one at a time, before it failed.
    fn partly(
        &mut self,
        error: &PersistentError,
        wanted: &State,
        shown: State,
    ) -> Result<(), Contradiction> {
        if !is_between(&shown, &self.memory, wanted) {
            return Err(format!("it leaves {shown:?}"));
        }
        let removed = (self.memory.len() - shown.len()) as u64;
        if let PersistentError::PartlyCleared { removed: said, .. } = error
            && *said != removed
        {
            return Err(format!("it says {said} were removed, and {removed} were"));
        }
        self.memory = shown;
        if !self.behind {
            self.stored.clear();
        }
        self.stored.push(self.memory.clone());
        Ok(())
    }

    /// Takes in an error that has nothing to do with the call that it answers. Whether the store has failed since all was
    /// last stored is for others to know.
    pub(crate) fn refused(
        &mut self,
        error: &PersistentError,
        store_has_failed: bool,
    ) -> Result<(), Contradiction> {
        let fits = match error {
            PersistentError::PartlyCleared { cause, .. } => {
                return self.refused(cause, store_has_failed);
            }
            PersistentError::Poisoned { .. } => self.poisoned || self.behind && store_has_failed,
            PersistentError::Unsaved { .. } => self.behind && store_has_failed,
            // The store has just failed, in a save.
            error => self.behind && store_has_failed && error.outcome() == Outcome::Unknown,
        };
        if !fits {
            return Err(format!("it fails without reason: {error}"));
        }
        self.poisoned |= !matches!(error, PersistentError::Unsaved { .. });
        Ok(())
    }

    /// Everything that is accepted is stored.
    pub(crate) fn all_stored(&mut self) {
        self.stored = vec![self.memory.clone()];
    }

    /// There was no store.
    pub(crate) fn all_gone(&mut self) {
        self.stored = vec![State::new()];
    }

    /// The map was opened again. What is found counts from now on.
    pub(crate) fn found(&mut self, found: State) -> Result<(), Contradiction> {
        let between = |pair: &[State]| is_between(&found, &pair[0], &pair[1]);
        let allowed = self.stored.contains(&found)
            || self.one_at_a_time && self.stored.windows(2).any(between);
        if !allowed {
            return Err(format!(
                "the store has {found:?}, and not one of {:?}",
                self.stored
            ));
        }
        self.memory = found;
        self.all_stored();
        self.poisoned = false;
        Ok(())
    }
}

/// In how many keys two states differ.
fn differences(one: &State, other: &State) -> usize {
    (0..KEYS)
        .filter(|key| one.get(key) != other.get(key))
        .count()
}

/// Whether each key is as before or as after.
fn is_between(state: &State, before: &State, after: &State) -> bool {
    let is_one = |key| {
        let value = state.get(&key);
        value == before.get(&key) || value == after.get(&key)
    };
    (0..KEYS).all(is_one) && state.keys().all(|key| *key < KEYS)
}
