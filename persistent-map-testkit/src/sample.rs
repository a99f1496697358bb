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
///
/// Types that have few values, such as `bool` and `u8`, come to their end and begin again. That does for a field. A type
/// of keys should have 10,000 different ones for the kit, and one of values a hundred.
pub trait Sample {
    /// The `n`-th value: the same each time, and different from that of any other `n`.
    fn sample(n: u64) -> Self;

    /// Values that not every format can write and read back, such as NaN: a store must refuse them, or give them back.
    /// [`sample`](Self::sample) has none of them.
    ///
    /// Default: none.
    ///
    /// ```
    /// use persistent_map_testkit::Sample;
    ///
    /// assert!(f64::awkward().iter().any(|number| number.is_nan()));
    /// assert!(Option::<Option<u8>>::awkward().contains(&Some(None)));
    /// assert!(String::awkward().is_empty());
    /// ```
    fn awkward() -> Vec<Self>
    where
        Self: Sized,
    {
        Vec::new()
    }
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

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Sample for $integer {
            fn sample(n: u64) -> Self {
                // Up from zero and down from the other end of the bits, in turn.
                let half = n / 2 % (1 << (<$integer>::BITS.min(64) - 1));
                let half = <$integer>::try_from(half).unwrap_or_default();
                if n.is_multiple_of(2) { half } else { !half }
            }
        }
    )*};
}

integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

macro_rules! floats {
    ($($float:ty, $whole:ty);*) => {$(
        impl Sample for $float {
            fn sample(n: u64) -> Self {
                const EDGES: [$float; 4] = [0.0, <$float>::MIN, <$float>::MAX, <$float>::MIN_POSITIVE];
                let edge = usize::try_from(n).ok().and_then(|n| EDGES.get(n));
                let whole = <$whole>::try_from(n % u64::from(<$whole>::MAX)).unwrap_or_default();
                edge.copied().unwrap_or_else(|| <$float>::from(whole) / 7.0)
            }

            fn awkward() -> Vec<Self> {
                vec![<$float>::NAN, <$float>::INFINITY, <$float>::NEG_INFINITY]
            }
        }
    )*};
}

floats!(f32, u16; f64, u32);

impl Sample for bool {
    fn sample(n: u64) -> Self {
        !n.is_multiple_of(2)
    }
}

impl Sample for char {
    fn sample(n: u64) -> Self {
        const AWKWARD: [char; 8] = ['\0', '"', '\'', '\\', '\n', ',', '\u{10ffff}', '😀'];
        let awkward = usize::try_from(n).ok().and_then(|n| AWKWARD.get(n));
        // From here on there are so many without a gap.
        let other = || char::from_u32(0x100 + u32::try_from(n % 0xd000).unwrap_or_default());
        awkward.copied().or_else(other).unwrap_or_default()
    }
}

impl Sample for () {
    fn sample(_: u64) -> Self {}
}

/// Nothing, long, and with all bytes among them.
impl Sample for Vec<u8> {
    fn sample(n: u64) -> Self {
        match n {
            0 => Vec::new(),
            1 => vec![0xff; 3000],
            _ => n
                .to_be_bytes()
                .into_iter()
                .skip_while(|byte| *byte == 0)
                .collect(),
        }
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(n: u64) -> Self {
        n.checked_sub(1).map(T::sample)
    }

    fn awkward() -> Vec<Self> {
        // If `T` may be `None` as well, this is `Some(None)`.
        let first = Some(T::sample(0));
        first.into_iter().chain(T::awkward()).map(Some).collect()
    }
}

impl<A: Sample, B: Sample> Sample for (A, B) {
    fn sample(n: u64) -> Self {
        (A::sample(n), B::sample(n))
    }

    fn awkward() -> Vec<Self> {
        let first = A::awkward().into_iter().map(|a| (a, B::sample(0)));
        let second = B::awkward().into_iter().map(|b| (A::sample(0), b));
        first.chain(second).collect()
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

/// A value that is plain, and has [`awkward`](Sample::awkward) ones that many formats lose: NaN becomes nothing, `Some(None)`
/// becomes `None`. For stores with a format of their own, which have no codec that is tried before it writes.
///
/// ```
/// use persistent_map_memory::InMemoryBackend as MyBackend;
/// use persistent_map_testkit::{Odd, conformance, open_with};
///
/// conformance!(odd_values, open_with::<String, Odd, _, _>(|_dir| async { Ok(MyBackend::new()) }));
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Odd {
    /// May be NaN.
    pub ratio: f64,
    /// May be one nothing or the other.
    pub answer: Option<Option<u32>>,
    /// May be there and hold nothing.
    pub mark: Option<()>,
    /// May be larger than a float can tell.
    pub count: u128,
}

impl Sample for Odd {
    fn sample(n: u64) -> Self {
        Odd {
            ratio: f64::sample(n),
            answer: (!n.is_multiple_of(3)).then(|| Some(u32::sample(n))),
            mark: None,
            count: n.into(),
        }
    }

    fn awkward() -> Vec<Self> {
        let plain = || Odd::sample(1);
        let ratios = f64::awkward().into_iter();
        let mut values: Vec<Self> = ratios.map(|ratio| Odd { ratio, ..plain() }).collect();
        values.push(Odd {
            answer: Some(None),
            ..plain()
        });
        values.push(Odd {
            mark: Some(()),
            ..plain()
        });
        values.push(Odd {
            count: u128::MAX,
            ..plain()
        });
        values
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn different<T: Sample + Eq + Hash>(count: u64) {
        let all: HashSet<T> = (0..count).map(T::sample).collect();
        assert_eq!(all.len() as u64, count, "{}", std::any::type_name::<T>());
    }

    #[test]
    fn no_two_samples_are_the_same_while_there_are_others() {
        different::<String>(10_000);
        different::<u8>(256);
        different::<i8>(256);
        different::<u16>(65_536);
        different::<i16>(65_536);
        different::<u32>(10_000);
        different::<i64>(10_000);
        different::<u64>(10_000);
        different::<u128>(10_000);
        different::<i128>(10_000);
        different::<bool>(2);
        different::<char>(10_000);
        different::<Vec<u8>>(10_000);
        different::<Option<u64>>(10_000);
        different::<(u64, bool)>(10_000);
        let bits: HashSet<u32> = (0..10_000).map(|n| f32::sample(n).to_bits()).collect();
        assert_eq!(bits.len(), 10_000);
        let bits: HashSet<u64> = (0..10_000).map(|n| f64::sample(n).to_bits()).collect();
        assert_eq!(bits.len(), 10_000);
    }

    #[test]
    fn awkward_values_are_not_among_the_others() {
        assert!((0..10_000).all(|n| f32::sample(n).is_finite() && f64::sample(n).is_finite()));
        assert!(
            (0..10_000)
                .map(Odd::sample)
                .all(|odd| !Odd::awkward().contains(&odd))
        );
        assert!(<(f64, Option<u8>)>::awkward().len() > 3);
    }
}
