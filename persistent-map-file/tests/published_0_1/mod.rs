//! What the published version 0.1.3 was given for the golden files of the backends; their READMEs say how.

use std::collections::HashMap;

use persistent_map_core::Key;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Player {
    name: String,
    score: u32,
    ratio: f64,
    team: Option<String>,
    active: bool,
}

pub(crate) fn text(n: u64) -> String {
    const AWKWARD: [&str; 13] = [
        "",
        " ",
        "a,b;c\td",
        "\"quoted\"",
        "two\nlines",
        "héllo wörld",
        "日本語",
        "007",
        "value",
        "null",
        "=1+1",
        "key",
        "\r\n",
    ];
    match usize::try_from(n).ok().and_then(|n| AWKWARD.get(n)) {
        Some(awkward) => (*awkward).to_string(),
        None => format!("text {n}"),
    }
}

pub(crate) fn player(n: u64) -> Player {
    let small = u32::try_from(n).unwrap();
    Player {
        name: text(n),
        score: small * 7,
        ratio: f64::from(small) / 7.0,
        team: (!n.is_multiple_of(3)).then(|| format!("team {}", n % 5)),
        active: n.is_multiple_of(2),
    }
}

pub(crate) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap() - 150
}

pub(crate) fn large(n: u64) -> u64 {
    n * 1_000_000_007
}

/// What the README of the golden files says.
pub(crate) fn written<K: Key, V>(
    key: impl Fn(u64) -> K,
    value: impl Fn(u64) -> V,
) -> HashMap<K, V> {
    let kept = (0..300u64).filter(|n| n % 50 != 49);
    kept.map(|n| {
        let again = n.is_multiple_of(4) || n < 20;
        (key(n), value(if again { n } else { n + 1000 }))
    })
    .collect()
}
