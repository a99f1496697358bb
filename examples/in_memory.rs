//! The same map without a store: for tests, caches, and data that may go when the program does.
//!
//! Eight tasks fill a shared cache of prime factors: `cargo run --example in_memory`.

use persistent_map::{PersistentMap, Result, in_memory::InMemoryBackend};
use tokio::task::JoinSet;

const TASKS: u32 = 8;
const LAST: u32 = 10_000;

#[tokio::main]
async fn main() -> Result<()> {
    let map = PersistentMap::<u32, Vec<u32>, _>::new(InMemoryBackend::new()).await?;

    // A clone is a handle to the same map: give one to each task.
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let map = map.clone();
        tasks.spawn(async move {
            for number in (2..=LAST).filter(|number| number % TASKS == task) {
                map.insert(number, factors(number)).await?;
            }
            Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<()>>()?;
    println!("{TASKS} tasks stored the factors of {} numbers.", map.len());

    // `get` clones a value, `with` looks at it in place. Both answer `None` for a missing key.
    println!("360 = {:?}", map.get(&360));
    println!("9,999 has {:?} factors", map.with(&9_999, Vec::len));
    println!("20,000 = {:?}", map.get(&20_000));

    // An iterator holds no lock: others may write meanwhile.
    let primes = map.iter().filter(|(_, factors)| factors.len() == 1).count();
    println!("{primes} of the numbers are primes.");

    // What a write survives depends on the backend, and each one says so.
    println!("Writes survive: {:?}.", map.capabilities().survives);
    map.close().await?;
    drop(map);

    let next = PersistentMap::<u32, Vec<u32>, _>::new(InMemoryBackend::new()).await?;
    println!("A new map has {} entries: nothing was kept.", next.len());
    Ok(())
}

fn factors(mut number: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for divisor in 2.. {
        while number.is_multiple_of(divisor) {
            found.push(divisor);
            number /= divisor;
        }
        if number == 1 {
            break;
        }
    }
    found
}
