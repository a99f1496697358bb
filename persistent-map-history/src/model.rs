//! What a key does when it is called: the one thing that histories are compared with.

use std::fmt;

/// What a key holds.
pub(super) type State = Option<u64>;

/// A call on one key.
///
/// ```
/// use persistent_map_history::{Answer, History, Op, Rule};
///
/// let history = History::new();
/// let answers: [(Op, Answer); 4] = [
///     (Op::InsertIfAbsent(1), None.into()),
///     (Op::CompareAndSwap { expected: Some(2), new: None }, Err(Some(1)).into()),
///     (Op::Compute(Rule::AddOr { add: 4, or: 0 }), Some(5).into()),
///     (Op::Contains, true.into()),
/// ];
/// for (op, answer) in answers {
///     history.call(0, 7, op).returned(answer);
/// }
/// assert!(history.check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Answers the value.
    Get,
    /// Answers whether there is a value.
    Contains,
    /// Puts a value, and answers the one before.
    Insert(u64),
    /// Removes the value, and answers it.
    Remove,
    /// Puts a value if there is none, and answers the one that was there.
    InsertIfAbsent(u64),
    /// Puts `new` (or removes, if that is `None`) if the key holds what is `expected`, else answers what it holds.
    CompareAndSwap {
        /// What the key has to hold.
        expected: Option<u64>,
        /// What it holds then.
        new: Option<u64>,
    },
    /// Adds to the value if there is one, wrapping around, and answers the sum.
    Update(u64),
    /// Removes the value if it equals this one, and answers what was removed.
    RemoveIf(u64),
    /// Changes the entry by a rule, and answers what it holds then.
    Compute(Rule),
}

/// How [`Op::Compute`] changes an entry. For an example see [`Op`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// It holds this, whatever it held before.
    Set(Option<u64>),
    /// A value is removed; where there is none, this one is put.
    Toggle(u64),
    /// Adds to the value, wrapping around; where there is none, another one is put.
    AddOr {
        /// What is added.
        add: u64,
        /// What is put.
        or: u64,
    },
}

/// What a call was answered. Made from what the methods of a map return. For an example see [`Op`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answer {
    /// A value or none: to all but the two that follow.
    Value(Option<u64>),
    /// To [`Op::Contains`].
    Found(bool),
    /// To [`Op::CompareAndSwap`]: done, or what the key holds instead.
    Swapped(Result<(), Option<u64>>),
}

impl From<Option<u64>> for Answer {
    fn from(value: Option<u64>) -> Self {
        Answer::Value(value)
    }
}

impl From<bool> for Answer {
    fn from(found: bool) -> Self {
        Answer::Found(found)
    }
}

impl From<Result<(), Option<u64>>> for Answer {
    fn from(swapped: Result<(), Option<u64>>) -> Self {
        Answer::Swapped(swapped)
    }
}

impl Op {
    /// What the key holds after the call, and what is answered.
    pub(super) fn apply(self, state: State) -> (State, Answer) {
        match self {
            Op::Get => (state, Answer::Value(state)),
            Op::Contains => (state, Answer::Found(state.is_some())),
            Op::Insert(value) => (Some(value), Answer::Value(state)),
            Op::Remove => (None, Answer::Value(state)),
            Op::InsertIfAbsent(value) => (state.or(Some(value)), Answer::Value(state)),
            Op::CompareAndSwap { expected, new } if state == expected => {
                (new, Answer::Swapped(Ok(())))
            }
            Op::CompareAndSwap { .. } => (state, Answer::Swapped(Err(state))),
            Op::Update(add) => {
                let sum = state.map(|value| value.wrapping_add(add));
                (sum, Answer::Value(sum))
            }
            Op::RemoveIf(value) if state == Some(value) => (None, Answer::Value(state)),
            Op::RemoveIf(_) => (state, Answer::Value(None)),
            Op::Compute(rule) => {
                let new = rule.apply(state);
                (new, Answer::Value(new))
            }
        }
    }

    /// Whether this can be the answer, by its kind.
    pub(super) fn can_answer(self, answer: Answer) -> bool {
        match self {
            Op::Contains => matches!(answer, Answer::Found(_)),
            Op::CompareAndSwap { .. } => matches!(answer, Answer::Swapped(_)),
            _ => matches!(answer, Answer::Value(_)),
        }
    }

    /// Whether the call never changes anything.
    pub(super) fn is_read(self) -> bool {
        matches!(self, Op::Get | Op::Contains)
    }

    /// Whether this answer says that the call changed nothing, in whatever state it came.
    pub(super) fn changed_nothing(self, answer: Answer) -> bool {
        match self {
            Op::Get | Op::Contains => true,
            Op::Insert(value) => answer == Answer::Value(Some(value)),
            Op::Remove | Op::RemoveIf(_) => answer == Answer::Value(None),
            Op::InsertIfAbsent(_) => answer != Answer::Value(None),
            Op::CompareAndSwap { expected, new } => {
                expected == new || answer != Answer::Swapped(Ok(()))
            }
            Op::Update(add) => add == 0 || answer == Answer::Value(None),
            Op::Compute(_) => false,
        }
    }

    /// The value that was there before, if this answer leaves one value only and does not leave that there was none.
    pub(super) fn wanted(self, answer: Answer) -> State {
        match self {
            Op::Compute(Rule::AddOr { or, .. }) if answer == Answer::Value(Some(or)) => None,
            _ => self.fitting(answer),
        }
    }

    /// The value that may have been there before, if this answer leaves one value only.
    pub(super) fn fitting(self, answer: Answer) -> State {
        match (self, answer) {
            (Op::Contains, _) => None,
            (Op::CompareAndSwap { expected, .. }, Answer::Swapped(Ok(()))) => expected,
            (_, Answer::Swapped(Err(value))) => value,
            (Op::Update(add) | Op::Compute(Rule::AddOr { add, .. }), Answer::Value(Some(sum))) => {
                Some(sum.wrapping_sub(add))
            }
            (Op::Compute(_), _) => None,
            (_, Answer::Value(value)) => value,
            _ => None,
        }
    }

    /// What this answer says that the call put, if it changed anything.
    pub(super) fn left(self, answer: Answer) -> State {
        match (self, answer) {
            _ if self.changed_nothing(answer) => None,
            (Op::Update(_) | Op::Compute(_), Answer::Value(value)) => value,
            _ => self.puts(),
        }
    }

    /// The value that the call compares with.
    pub(super) fn compares_with(self) -> State {
        match self {
            Op::CompareAndSwap { expected, .. } => expected,
            Op::RemoveIf(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the call does something else where there is no value.
    pub(super) fn heeds_absence(self) -> bool {
        matches!(
            self,
            Op::InsertIfAbsent(_)
                | Op::CompareAndSwap { expected: None, .. }
                | Op::Compute(Rule::Toggle(_) | Rule::AddOr { .. })
        )
    }

    /// What the call adds to a value.
    pub(super) fn adds(self) -> u64 {
        match self {
            Op::Update(add) | Op::Compute(Rule::AddOr { add, .. }) => add,
            _ => 0,
        }
    }

    /// The value that the call puts, other than by adding.
    pub(super) fn puts(mut self) -> State {
        self.value().copied()
    }

    /// The same call with another value to put.
    pub(super) fn putting(mut self, other: u64) -> Op {
        if let Some(value) = self.value() {
            *value = other;
        }
        self
    }

    fn value(&mut self) -> Option<&mut u64> {
        match self {
            Op::Insert(value)
            | Op::InsertIfAbsent(value)
            | Op::Compute(Rule::Toggle(value) | Rule::AddOr { or: value, .. }) => Some(value),
            Op::CompareAndSwap { new: value, .. } | Op::Compute(Rule::Set(value)) => value.as_mut(),
            Op::Get | Op::Contains | Op::Remove | Op::Update(_) | Op::RemoveIf(_) => None,
        }
    }
}

impl Rule {
    fn apply(self, state: State) -> State {
        match self {
            Rule::Set(value) => value,
            Rule::Toggle(value) => match state {
                None => Some(value),
                Some(_) => None,
            },
            Rule::AddOr { add, or } => Some(state.map_or(or, |value| value.wrapping_add(add))),
        }
    }
}

/// A state in words.
pub(super) struct Holds(pub(super) State);

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(value) => value.fmt(f),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Op::Get => f.write_str("get"),
            Op::Contains => f.write_str("contains"),
            Op::Insert(value) => write!(f, "insert({value})"),
            Op::Remove => f.write_str("remove"),
            Op::InsertIfAbsent(value) => write!(f, "insert_if_absent({value})"),
            Op::CompareAndSwap { expected, new } => {
                write!(f, "compare_and_swap({}, {})", Holds(expected), Holds(new))
            }
            Op::Update(add) => write!(f, "update(+{add})"),
            Op::RemoveIf(value) => write!(f, "remove_if({value})"),
            Op::Compute(rule) => write!(f, "compute({rule})"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Rule::Set(value) => write!(f, "set {}", Holds(value)),
            Rule::Toggle(value) => write!(f, "toggle {value}"),
            Rule::AddOr { add, or } => write!(f, "+{add}, or {or}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Answer::Value(value) => Holds(value).fmt(f),
            Answer::Found(found) => found.fmt(f),
            Answer::Swapped(Ok(())) => f.write_str("ok"),
            Answer::Swapped(Err(value)) => write!(f, "refused, it is {}", Holds(value)),
        }
    }
}
