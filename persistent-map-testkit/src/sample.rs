//! Keys and values to test with.

use serde::{Deserialize, Serialize};

/// A type that can make any number of different values of itself, the awkward ones first.
///
/// ```
/// use persistent_map_testkit::Sample;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
/// struct Account { owner: String, balance: Option<u64> }
///
/// impl Sample for Account {
///     fn sample(n: u64) -> Self {
///         Account { owner: String::sample(n), balance: (n > 0).then(|| u64::sample(n)) }
///     }
/// }
/// assert_ne!(Account::sample(0), Account::sample(1));
/// ```
pub trait Sample {
    /// The `n`-th value: the same each time, and different from that of any other `n`.
    fn sample(n: u64) -> Self;
}

impl Sample for String {
    fn sample(n: u64) -> Self {
        const AWKWARD: [&str; 16] = [
            "",
            " ",
            "\0",
            "\n",
            "\r\n",
            "a,b;c\td",
            "\"quoted\"",
            "it's; DROP TABLE entries; --",
            "=1+1",
            "%_*?",
            "héllo wörld",
            "日本語",
            "\u{feff}",
            "\u{fffd}",
            "007",
            "NULL",
        ];
        match usize::try_from(n).ok().and_then(|n| AWKWARD.get(n)) {
            Some(awkward) => (*awkward).to_string(),
            None if n == AWKWARD.len() as u64 => "k".repeat(2000),
            None => format!("key {n}"),
        }
    }
}

impl Sample for u64 {
    fn sample(n: u64) -> Self {
        // Both ends of the range, in turn.
        if n.is_multiple_of(2) {
            n / 2
        } else {
            u64::MAX - n / 2
        }
    }
}

/// A value with a bit of everything, of sizes from a few bytes to 100 KiB. For an example see
/// [`conformance!`](crate::conformance).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Makes it different from all others.
    pub number: u64,
    /// Awkward text.
    pub text: String,
    /// May be missing.
    pub note: Option<String>,
    /// Empty, short, or large.
    pub bytes: Vec<u8>,
}

impl Sample for Item {
    fn sample(n: u64) -> Self {
        let size = match n % 100 {
            0 => 0,
            7 => 100 << 10,
            _ => 50,
        };
        Item {
            number: n,
            text: String::sample(n),
            note: match n % 3 {
                0 => None,
                1 => Some(String::new()),
                _ => Some("note".to_string()),
            },
            bytes: (0..size).map(|at| (at + n).to_le_bytes()[0]).collect(),
        }
    }
}
