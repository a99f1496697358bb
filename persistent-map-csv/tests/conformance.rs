//! The contract, with each kind of table and each setting that changes what is written.

use persistent_map_csv::CsvBackend;
use persistent_map_testkit::{Item, Sample, conformance, open_with};
use serde::{Deserialize, Serialize};

conformance!(
    structs_with_a_list,
    open_with::<String, Item, _, _>(|dir| async move { Ok(CsvBackend::new(dir.join("test.csv"))) })
);

conformance!(
    single_values,
    open_with::<u64, String, _, _>(|dir| async move {
        Ok(CsvBackend::new(dir.join("test.csv"))
            .key_column("number")
            .guard_formulas(true))
    })
);

conformance!(
    without_sync,
    open_with::<String, Item, _, _>(|dir| async move {
        Ok(CsvBackend::new(dir.join("test.csv")).sync(false))
    })
);

/// A struct of scalars and options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    number: i64,
    ratio: f64,
    text: String,
    note: Option<String>,
    count: Option<u32>,
    is_even: bool,
}

impl Sample for Flat {
    fn sample(n: u64) -> Self {
        Flat {
            number: i64::try_from(n).unwrap() - 50,
            ratio: f64::from(u32::try_from(n).unwrap()) / 7.0,
            text: String::sample(n),
            note: match n % 4 {
                0 => None,
                1 => Some(String::new()),
                2 => Some("\"\"".to_string()),
                _ => Some(String::sample(n)),
            },
            count: n.is_multiple_of(3).then_some(7),
            is_even: n.is_multiple_of(2),
        }
    }
}

conformance!(
    flat_structs,
    open_with::<String, Flat, _, _>(|dir| async move { Ok(CsvBackend::new(dir.join("test.csv"))) })
);
