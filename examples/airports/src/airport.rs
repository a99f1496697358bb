//! Airports, and the file that they come from.
//!
//! Every field has the type that its column allows and no narrower one, so that an airport says exactly what its line
//! in the file says: elevations have tenths, and what may be empty is an `Option`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use csv::Position;
use serde::{Deserialize, Serialize};

/// 7,884 airports, with a header line.
pub const AIRPORTS_CSV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/airports.csv");

/// Airports by their three-letter IATA code.
pub type Airports = BTreeMap<String, Airport>;

/// A line of the file without the IATA code, which is its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Airport {
    /// The four-letter ICAO code.
    pub icao: String,
    /// The name in full.
    pub name: String,
    /// The city it serves.
    pub city: Option<String>,
    /// State, province or region.
    pub subd: Option<String>,
    /// The two-letter country code.
    pub country: String,
    /// Feet above sea level.
    pub elevation: f64,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
    /// The time zone's name.
    pub tz: String,
    /// The FAA's code (United States and associated places).
    pub lid: Option<String>,
}

/// Reads a file of airports.
///
/// # Errors
/// The file cannot be read, a field is missing or of the wrong type, or a code is there twice. The error names the file
/// and the line.
pub fn read(path: impl AsRef<Path>) -> Result<Airports, ReadError> {
    let path = path.as_ref();
    let failed = |reason: csv::Error| ReadError::new(path, reason.to_string());

    let mut file = csv::Reader::from_path(path).map_err(failed)?;
    let header = file.headers().map_err(failed)?.clone();
    let mut airports = Airports::new();
    for record in file.records() {
        let record = record.map_err(failed)?;
        let Code { iata } = record.deserialize(Some(&header)).map_err(failed)?;
        let airport = record.deserialize(Some(&header)).map_err(failed)?;
        if airports.contains_key(&iata) {
            let line = record.position().map_or(0, Position::line);
            return Err(ReadError::new(
                path,
                format!("line {line}: {iata} is there twice"),
            ));
        }
        airports.insert(iata, airport);
    }
    Ok(airports)
}

/// Why a file of airports cannot be read.
#[derive(Debug)]
pub struct ReadError {
    file: PathBuf,
    reason: String,
}

impl ReadError {
    fn new(file: &Path, reason: String) -> Self {
        ReadError {
            file: file.to_path_buf(),
            reason,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

impl Error for ReadError {}

/// The column that is the key.
#[derive(Deserialize)]
struct Code {
    iata: String,
}
