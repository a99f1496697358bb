//! What was stored can be opened by any thread: what is nested too deep is refused, where it is written and where it is read.

use std::sync::Mutex;
use std::thread;

use persistent_map_core::codec::depth::MAX_DEPTH;
use persistent_map_core::{
    Bincode, Codec, Json, MessagePack, Outcome, PersistentError, PersistentMap,
};
use serde::{Deserialize, Serialize};

mod support;
use support::{Rows, Shelf};

/// Two levels each: the struct, and the `Some` around the next one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

impl Chain {
    fn of(links: usize) -> Self {
        (1..links).fold(Chain::default(), |chain, _| Chain {
            next: Some(Box::new(chain)),
        })
    }
}

/// Ways to be nested that serde tells codecs in other words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Alone(Box<Tree>),
    Pair(u8, Box<Tree>),
    Named { child: Box<Tree> },
    List(Vec<Tree>),
    Tuple(Box<(Tree, u8)>),
    Wrapped(Wrapper),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapper(Box<Tree>);

impl Tree {
    /// `levels` deep and no deeper.
    fn of(levels: usize) -> Self {
        let mut tree = Tree::Leaf;
        let mut left = levels;
        while left >= 9 {
            tree = Tree::Alone(Box::new(tree));
            tree = Tree::Pair(1, Box::new(tree));
            tree = Tree::Named {
                child: Box::new(tree),
            };
            tree = Tree::List(vec![tree]);
            tree = Tree::Tuple(Box::new((tree, 1)));
            tree = Tree::Wrapped(Wrapper(Box::new(tree)));
            left -= 9;
        }
        (0..left).fold(tree, |tree, _| Tree::Alone(Box::new(tree)))
    }
}

/// In a thread with this much stack, on a runtime of its own.
fn with_stack<T: Send + 'static>(kib: usize, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new()
        .stack_size(kib * 1024)
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work())
        });
    thread.unwrap().join().unwrap()
}

fn store<C: Codec>(codec: C, rows: &Rows) -> Shelf<C> {
    Shelf {
        rows: Rows::clone(rows),
        codec,
        limit: usize::MAX,
    }
}

fn each_codec(check: impl Fn(&dyn Fn(Rows, Option<usize>) -> Option<PersistentError>)) {
    // Writes a chain of so many links, or reads what is there.
    async fn run<C: Codec>(codec: C, rows: Rows, links: Option<usize>) -> Option<PersistentError> {
        let map = match PersistentMap::<u8, Chain, _>::new(store(codec, &rows)).await {
            Ok(map) => map,
            Err(error) => return Some(error),
        };
        let chain = Chain::of(links?);
        let error = map.insert(1, chain.clone()).await.err();
        let kept = error.is_none().then_some(chain);
        assert_eq!(map.get(&1), kept, "memory");
        assert_eq!(
            rows.lock().unwrap().len(),
            usize::from(kept.is_some()),
            "store"
        );
        error
    }
    check(&|rows, links| with_stack(64 * 1024, async move || run(Bincode, rows, links).await));
    check(&|rows, links| with_stack(64 * 1024, async move || run(MessagePack, rows, links).await));
    check(&|rows, links| with_stack(64 * 1024, async move || run(Json, rows, links).await));
}

#[test]
fn a_chain_of_8000_boxes_is_refused_by_insert_with_each_codec() {
    each_codec(
        |run: &dyn Fn(Rows, Option<usize>) -> Option<PersistentError>| {
            for links in [MAX_DEPTH / 2 + 1, 8000] {
                let error = run(Rows::default(), Some(links)).expect("it was stored");
                assert!(
                    matches!(error, PersistentError::Unstorable { .. }),
                    "{error}"
                );
                assert_eq!(error.outcome(), Outcome::NotApplied);
                let text = error.to_string();
                assert!(text.contains("more than 128 levels deep"), "{text}");
                assert!(text.contains("entries of their own"), "{text}");
            }
        },
    );
}

fn write_and_open<C: Codec + Copy>(codec: C, chain: &Chain) {
    let rows = Rows::default();
    let (written, chain) = (Rows::clone(&rows), chain.clone());
    with_stack(512, async move || {
        let map = PersistentMap::new(store(codec, &written)).await.unwrap();
        map.insert(1u8, chain).await.unwrap();
        map.close().await.unwrap();
    });
    let links = with_stack(512, async move || {
        let map = PersistentMap::<u8, Chain, _>::new(store(codec, &rows))
            .await
            .unwrap();
        let mut links = 1;
        let chain = map.get(&1).unwrap();
        let mut link = &chain;
        while let Some(next) = &link.next {
            (link, links) = (next, links + 1);
        }
        links
    });
    assert_eq!(links, MAX_DEPTH / 2);
}

#[test]
fn the_deepest_that_is_taken_is_opened_by_a_thread_with_little_stack() {
    let chain = Chain::of(MAX_DEPTH / 2);
    write_and_open(Bincode, &chain);
    write_and_open(MessagePack, &chain);
    write_and_open(Json, &chain);
}

fn open<C: Codec>(codec: C, value: Vec<u8>) -> PersistentError {
    with_stack(512, async move || {
        let key = codec.encode(&1u8).unwrap();
        let rows = Rows::new(Mutex::new(vec![(key, value)]));
        let map = PersistentMap::<u8, Chain, _>::new(store(codec, &rows)).await;
        map.map(drop).unwrap_err()
    })
}

#[test]
fn rows_that_are_nested_without_end_are_damaged_and_do_not_end_the_process() {
    let bytes = |codec: &str| match codec {
        "json" => br#"{"next":"#.repeat(20_000),
        "messagepack" => b"\x81\xa4next".repeat(20_000),
        _ => vec![1; 100_000],
    };
    for error in [
        open(Bincode, bytes("bincode")),
        open(MessagePack, bytes("messagepack")),
        open(Json, bytes("json")),
    ] {
        assert!(matches!(error, PersistentError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("levels deep"), "{error}");
    }
}

/// A level counts the same when it is written and when it is read, whatever serde calls it.
#[test]
fn what_may_be_written_may_be_read() {
    fn check<C: Codec>(codec: C) {
        with_stack(2048, async move || {
            let map = PersistentMap::new(store(codec, &Rows::default()))
                .await
                .unwrap();
            map.insert(1u8, Tree::of(MAX_DEPTH)).await.unwrap();
            let error = map.insert(2, Tree::of(MAX_DEPTH + 1)).await.unwrap_err();
            assert!(
                error.to_string().contains("entries of their own"),
                "{error}"
            );
        });
    }
    check(Bincode);
    check(MessagePack);
}
