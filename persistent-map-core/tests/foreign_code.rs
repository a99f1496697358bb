//! Code that the map is given: serde implementations that do not fit together, and rows that are not of its types.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use persistent_map_core::{
    Bincode, Codec, Json, MessagePack, OnCorrupt, Outcome, PersistentError, PersistentMap, Result,
};
use serde::{Deserialize, Serialize};

mod support;
use support::Shelf;
use support::limit::limit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    id: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Circle { radius: f64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    more: std::collections::BTreeMap<String, u64>,
}

async fn insert<C: Codec, V>(codec: C, value: V) -> Result<V>
where
    V: persistent_map_core::Value,
{
    let map = PersistentMap::new(Shelf::new(codec)).await?;
    let inserted = map.insert("k".to_string(), value).await;
    assert_eq!(map.contains_key("k"), inserted.is_ok());
    assert_eq!(
        map.backend().rows.lock().unwrap().len(),
        usize::from(inserted.is_ok())
    );
    inserted?;
    Ok(map.get("k").unwrap())
}

#[tokio::test]
async fn a_type_that_bincode_cannot_read_back_is_refused_with_advice_and_others_take_it() {
    fn check(refused: Result<impl std::fmt::Debug>) {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, PersistentError::Unstorable { .. }),
            "{error:?}"
        );
        assert_eq!(error.outcome(), Outcome::NotApplied);
        let text = error.to_string();
        for word in [
            "the value of type",
            "bincode2",
            "skip_serializing_if",
            "untagged",
            "MessagePack",
        ] {
            assert!(text.contains(word), "{word} is missing: {text}");
        }
    }
    let _limit = limit();
    let skipping = Skipping { note: None, id: 7 };
    let untagged = Untagged::Number(7);
    let tagged = Tagged::Circle { radius: 1.0 };
    let flattened = Flattened {
        id: 7,
        more: [("a".to_string(), 1)].into(),
    };
    check(insert(Bincode, skipping.clone()).await);
    check(insert(Bincode, untagged.clone()).await);
    check(insert(Bincode, Untagged::Text(String::new())).await);
    check(insert(Bincode, tagged.clone()).await);
    assert!(insert(Bincode, flattened.clone()).await.is_err());

    assert_eq!(
        insert(MessagePack, skipping.clone()).await.unwrap(),
        skipping
    );
    assert_eq!(
        insert(MessagePack, untagged.clone()).await.unwrap(),
        untagged
    );
    assert_eq!(insert(MessagePack, tagged.clone()).await.unwrap(), tagged);
    assert_eq!(
        insert(MessagePack, flattened.clone()).await.unwrap(),
        flattened
    );
    assert_eq!(insert(Json, skipping.clone()).await.unwrap(), skipping);
    assert_eq!(insert(Json, untagged.clone()).await.unwrap(), untagged);
    assert_eq!(insert(Json, tagged.clone()).await.unwrap(), tagged);
    assert_eq!(insert(Json, flattened.clone()).await.unwrap(), flattened);
    assert!(
        insert(Json, f64::NAN).await.is_err(),
        "JSON has no form for NaN"
    );
}

#[tokio::test]
async fn what_cannot_be_stored_does_not_fail_its_neighbours() {
    let _limit = limit();
    let map = PersistentMap::<u64, String, _>::new(Shelf::new(Bincode))
        .await
        .unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..100u64 {
        let map = map.clone();
        let size = if n == 50 { 1000 } else { 10 };
        writes.spawn(async move { (n, map.insert(n, "x".repeat(size)).await) });
    }
    for (n, result) in writes.join_all().await {
        match result {
            Ok(_) => assert_ne!(n, 50),
            Err(PersistentError::TooLarge { limit: 100, .. }) => assert_eq!(n, 50),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(map.len(), 99);
}

#[tokio::test]
async fn keys_without_a_fixed_form_are_refused() {
    type Set = std::collections::BTreeSet<u8>;
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Unordered(std::collections::HashSet<u64>);
    impl Hash for Unordered {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.len().hash(state);
        }
    }
    #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Forgetful {
        id: u64,
        #[serde(skip)]
        forgotten: u64,
    }
    let _limit = limit();
    let map = PersistentMap::<Unordered, u8, _>::new(Shelf::new(Bincode))
        .await
        .unwrap();
    let error = map
        .insert(Unordered((0..50).collect()), 1)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("BTreeSet"), "{error}");

    let map = PersistentMap::<Forgetful, u8, _>::new(Shelf::new(Bincode))
        .await
        .unwrap();
    let error = map
        .insert(
            Forgetful {
                id: 1,
                forgotten: 2,
            },
            1,
        )
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another one"), "{error}");
    map.insert(
        Forgetful {
            id: 1,
            forgotten: 0,
        },
        1,
    )
    .await
    .unwrap();

    let map = PersistentMap::<Set, u8, _>::new(Shelf::new(Bincode))
        .await
        .unwrap();
    map.insert((0..50).collect(), 1).await.unwrap();
}

#[tokio::test]
async fn rows_that_do_not_decode_fail_the_open_or_are_set_aside() {
    let _limit = limit();
    let shelf = Shelf::new(Bincode);
    let rows = Arc::clone(&shelf.rows);
    let map = PersistentMap::<String, u64, _>::new(shelf).await.unwrap();
    map.insert("good".to_string(), 1).await.unwrap();
    map.close().await.unwrap();
    let encode = |text: &str| Bincode.encode(text).unwrap();
    rows.lock().unwrap().push((encode("bad value"), vec![255]));
    rows.lock().unwrap().push((vec![9], encode("bad key")));
    // 251 announces two more bytes: a longer form of the length 1 than the codec writes.
    rows.lock().unwrap().push((vec![251, 1, 0, b'x'], vec![7]));
    let all_rows = rows.lock().unwrap().clone();

    let reopen = |policy| {
        let shelf = Shelf {
            rows: Arc::clone(&rows),
            codec: Bincode,
            limit: 100,
        };
        PersistentMap::<String, u64, _>::builder(shelf)
            .on_corrupt(policy)
            .open_with_report()
    };
    let error = reopen(OnCorrupt::Fail).await.unwrap_err();
    let PersistentError::Corrupt(row) = &error else {
        panic!("{error}");
    };
    assert_eq!((row.row, row.key.as_str()), (2, "\"bad value\""));
    assert!(
        error
            .to_string()
            .contains("row 2 of shelf, key \"bad value\""),
        "{error}"
    );
    assert_eq!(
        *rows.lock().unwrap(),
        all_rows,
        "a failed open changed the store"
    );

    let (map, report) = reopen(OnCorrupt::Quarantine).await.unwrap();
    assert_eq!((map.len(), report.entries), (1, 1));
    let found: Vec<u64> = report.quarantined.iter().map(|row| row.row).collect();
    assert_eq!(found, [2, 3, 4]);
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Foreign {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Other {
    id: u64,
}

#[tokio::test]
async fn a_map_of_other_types_is_not_a_map_of_damaged_rows() {
    let _limit = limit();
    let shelf = Shelf::new(Json);
    let rows = shelf.rows();
    let map = PersistentMap::new(shelf).await.unwrap();
    for n in 0..3 {
        let value = Skipping { note: None, id: n };
        map.insert(n.to_string(), value).await.unwrap();
    }
    map.close().await.unwrap();
    for policy in [OnCorrupt::Fail, OnCorrupt::Quarantine] {
        let shelf = Shelf {
            rows: Arc::clone(&rows),
            codec: Json,
            limit: 100,
        };
        let open = PersistentMap::<String, Foreign, _>::builder(shelf)
            .on_corrupt(policy)
            .open();
        let error = open.await.unwrap_err().to_string();
        for word in [
            "row 1",
            "missing field `name`",
            "the types that it was written for",
        ] {
            assert!(error.contains(word), "`{word}` is missing: {error}");
        }
        assert_eq!(rows.lock().unwrap().len(), 3, "rows were set aside");
    }
    // One misfit among rows that fit is set aside like a damaged one.
    let odd = (Json.encode("odd").unwrap(), Json.encode("text").unwrap());
    rows.lock().unwrap().push(odd);
    let shelf = Shelf {
        rows: Arc::clone(&rows),
        codec: Json,
        limit: 100,
    };
    let (map, report) = PersistentMap::<String, Other, _>::builder(shelf)
        .on_corrupt(OnCorrupt::Quarantine)
        .open_with_report()
        .await
        .unwrap();
    assert_eq!((map.len(), report.quarantined.len()), (3, 1));
    assert!(report.quarantined[0].intact);
}

#[test]
fn every_float_survives_every_codec() {
    let _limit = limit();
    let mut bits = 1u64;
    for _ in 0..10_000 {
        bits = bits
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let float = f64::from_bits(bits);
        if float.is_finite() {
            let back: f64 = Json.decode(&Json.encode(&float).unwrap()).unwrap();
            assert_eq!(back.to_bits(), float.to_bits());
            let back: f64 = MessagePack
                .decode(&MessagePack.encode(&float).unwrap())
                .unwrap();
            assert_eq!(back.to_bits(), float.to_bits());
        }
    }
}
