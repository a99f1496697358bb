//! Parts of the messages of errors.

use std::error::Error;

use crate::error::PersistentError;

/// A cause and its own causes, each said once: some errors have their cause in their text, others have not.
pub(crate) fn whole(cause: &(dyn Error + 'static)) -> String {
    let mut said = cause.to_string();
    let mut next = cause.source();
    while let Some(deeper) = next {
        let text = deeper.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = deeper.source();
    }
    said
}

/// A failure as the reason of another one: what became of its own change is not what that one is about.
pub(crate) fn brief(error: &PersistentError) -> String {
    let mut text = error.to_string();
    if text.ends_with(&format!("; {}", error.outcome())) {
        text.truncate(text.len() - error.outcome().to_string().len() - 2);
    }
    text
}

pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::CodecError;
    use crate::error::Outcome;
    use crate::row::{CorruptRow, Location};

    /// Says its cause in its text or leaves that to others, and has it as its source in both cases.
    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("outer")]
        Silent(#[source] std::io::Error),
        #[error("outer, because of {0}")]
        Telling(#[source] std::io::Error),
    }

    #[test]
    fn a_cause_is_told_with_its_causes_and_none_of_them_twice() {
        let full = || std::io::Error::other("disk full");
        assert_eq!(whole(&Layer::Silent(full())), "outer: disk full");
        assert_eq!(
            whole(&Layer::Telling(full())),
            "outer, because of disk full"
        );
        let error = PersistentError::storage("writing x.db", Layer::Silent(full()));
        assert_eq!(
            error.to_string(),
            "the store failed while writing x.db: outer: disk full; nothing was applied, and the call may be repeated"
        );
        let source = error.source().expect("the cause itself, for code");
        assert!(source.is::<Layer>(), "{source}");
    }

    /// One of each variant, and its row in the page. Does not compile before a new variant is in the list.
    #[test]
    fn the_page_has_a_row_for_each_error() {
        let cause = || Arc::new(PersistentError::storage("writing x.db", "disk full"));
        let all = [
            PersistentError::storage("writing x.db", "disk full"),
            PersistentError::Unstorable {
                part: "value",
                type_name: "T",
                codec: "json",
                advice: "Advice",
                cause: CodecError::new("no form"),
            },
            PersistentError::TooLarge {
                part: "key",
                bytes: 2,
                limit: 1,
            },
            PersistentError::Corrupt(Box::new(CorruptRow::new(
                Location::default(),
                1,
                b"a",
                "torn",
            ))),
            PersistentError::Damaged {
                place: "x.db".into(),
                reason: "torn".into(),
            },
            PersistentError::Mismatch {
                place: "x.db".into(),
                expected: "a".into(),
                found: "b".into(),
                advice: "Advice".into(),
            },
            PersistentError::Refused {
                path: "x.db".into(),
                reason: "torn".into(),
                advice: "Advice".into(),
                cause: None,
            },
            PersistentError::InUse {
                path: "x.db".into(),
                owner: "process 1".into(),
            },
            PersistentError::Poisoned { first: cause() },
            PersistentError::Closed,
            PersistentError::WriterGone,
            PersistentError::unsupported("this"),
            PersistentError::Panicked {
                during: "`Hash`",
                outcome: Outcome::NotApplied,
            },
            PersistentError::WouldDeadlock {
                place: "inside of async code",
                advice: "Advice",
            },
            PersistentError::PartlyCleared {
                removed: 1,
                cause: cause(),
            },
            PersistentError::Unsaved {
                entries: 2,
                cause: cause(),
            },
            PersistentError::NotAsWritten {
                missing: 1,
                other: 0,
                unexpected: 0,
            },
            PersistentError::NoRuntime,
        ];
        let page = include_str!("../docs/errors.md");
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| [`"))
            .collect();
        let names: Vec<String> = all
            .iter()
            .map(|error| format!("| [`{0}`](PersistentError::{0}) |", name(error)))
            .collect();
        assert_eq!(rows.len(), names.len());
        for (row, name) in rows.iter().zip(&names) {
            assert!(
                row.starts_with(name),
                "{name} is not where it should be: {row}"
            );
        }
        for reason in ["Poisoned", "PartlyCleared", "Unsaved"] {
            let error = all.iter().find(|error| name(error) == reason).unwrap();
            assert!(
                !error.to_string().contains("nothing was applied"),
                "what became of another change: {error}"
            );
        }
    }

    macro_rules! names {
        ($error:expr; $($variant:ident)+) => {
            match $error {
                $(PersistentError::$variant { .. } => stringify!($variant),)+
            }
        };
    }

    fn name(error: &PersistentError) -> &'static str {
        names! { error;
            Storage Unstorable TooLarge Corrupt Damaged Mismatch Refused InUse Poisoned Closed WriterGone Unsupported
            Panicked WouldDeadlock PartlyCleared Unsaved NotAsWritten NoRuntime
        }
    }
}
