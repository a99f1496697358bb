//! The file of airports is read completely and exactly.

use std::fs;

use airports::{AIRPORTS_CSV, Airport, Airports, read};

#[test]
fn the_file_has_7884_airports() {
    let airports = read(AIRPORTS_CSV).unwrap();
    assert_eq!(airports.len(), 7_884);
    assert_eq!(
        airports["LHR"],
        Airport {
            icao: "EGLL".to_string(),
            name: "London Heathrow Airport".to_string(),
            city: Some("London".to_string()),
            subd: Some("England".to_string()),
            country: "GB".to_string(),
            elevation: 83.0,
            lat: 51.4706,
            lon: -0.46194,
            tz: "Europe/London".to_string(),
            lid: None,
        }
    );
}

#[test]
#[allow(
    clippy::float_cmp,
    reason = "what is stored must be what was read, to the last bit"
)]
fn oddities_of_the_file_are_kept() {
    let airports = read(AIRPORTS_CSV).unwrap();
    // No city; a quoted comma; doubled quotes; below the sea; tenths of a foot; an FAA code.
    assert_eq!(airports["AAA"].city, None);
    assert_eq!(
        airports["AAP"].city.as_deref(),
        Some("Samarinda, Borneo Island")
    );
    assert_eq!(
        airports["PAQ"].name,
        "Warren \"Bud\" Woods Palmer Municipal Airport"
    );
    assert_eq!(airports["AMS"].elevation, -11.0);
    assert_eq!(airports["SFO"].elevation, 13.1);
    assert_eq!(airports["SFO"].lid.as_deref(), Some("SFO"));
}

/// Keys are unique, too: each line has an entry, and the codes are in the order of the file.
#[test]
fn airports_written_as_csv_are_the_file_again() {
    let airports = read(AIRPORTS_CSV).unwrap();
    let file = fs::read_to_string(AIRPORTS_CSV).unwrap();
    let written = as_csv(&airports);
    for (line, (expected, found)) in (1..).zip(file.lines().zip(written.lines())) {
        assert_eq!(found, expected, "line {line}");
    }
    assert!(written == file);
}

#[test]
fn errors_name_file_and_line() {
    let header = "iata,icao,name,city,subd,country,elevation,lat,lon,tz,lid\n";
    let good =
        "LHR,EGLL,London Heathrow Airport,London,England,GB,83,51.4706,-0.46194,Europe/London,\n";
    let bad = [
        good.to_string(),
        good.replace("LHR", "LCY").replace("83", "high"),
        good.replace("LHR", "LCY").replace(",GB", ""),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.csv");
    for line in bad {
        fs::write(&path, [header, good, &line].concat()).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(
            error.contains("line 3") || error.contains("line: 3"),
            "{error}"
        );
    }
    let error = read(dir.path().join("none.csv")).unwrap_err().to_string();
    assert!(error.contains("none.csv: "), "{error}");
}

fn as_csv(airports: &Airports) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
        "iata",
        "icao",
        "name",
        "city",
        "subd",
        "country",
        "elevation",
        "lat",
        "lon",
        "tz",
        "lid",
    ])
    .unwrap();
    for (iata, airport) in airports {
        // The file has elevations with decimals only where needed, and positions always.
        csv.write_record([
            iata,
            &airport.icao,
            &airport.name,
            airport.city.as_deref().unwrap_or_default(),
            airport.subd.as_deref().unwrap_or_default(),
            &airport.country,
            &format!("{}", airport.elevation),
            &format!("{:?}", airport.lat),
            &format!("{:?}", airport.lon),
            &airport.tz,
            airport.lid.as_deref().unwrap_or_default(),
        ])
        .unwrap();
    }
    String::from_utf8(csv.into_inner().unwrap()).unwrap()
}
