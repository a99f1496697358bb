//~ the item is gated behind the `csv_backend` feature
//~ the item is gated behind the `json` feature
use persistent_map::Json;
use persistent_map::csv::CsvBackend;

fn main() {}
