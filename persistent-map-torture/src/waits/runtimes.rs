//! Maps and the ends of runtimes.

use std::thread;
use std::time::{Duration, Instant};

use super::ANSWER;
use super::cases::{KEYS, MANY, POOL, Play, SMALL, key, one_thread, record, threads};
use super::store::Store;
use crate::failure::Failure;

/// The end of the name of a table that is being written.
const UNFINISHED: &str = ".persistent-map-new";

impl Play<'_> {
    /// Errors are answers here: the map has lost what drives it.
    pub(super) fn dropped_runtime(&self) -> Result<(), Failure> {
        let first = threads(2, POOL)?;
        let map = first.block_on(async {
            let map = self.open().await?;
            self.fill(&map, MANY, SMALL).await?;
            self.insert(&map, 0, 1, SMALL).await?;
            Ok::<_, Failure>(map)
        })?;
        let writer = map.clone();
        first.spawn(async move {
            for version in 1.. {
                let (key, record) = record(version % KEYS, version, SMALL);
                if writer.insert(key, record).await.is_err() {
                    break;
                }
            }
        });
        if self.args.backend == Store::Csv {
            self.wait_for_a_merge()?;
        }
        let moment = fastrand::Rng::with_seed(self.args.seed).u64(..10);
        thread::sleep(Duration::from_millis(moment));
        self.watch.blocking("dropping the runtime", || drop(first));
        threads(2, POOL)?.block_on(async {
            let (written, record) = record(0, 2, SMALL);
            let _ = self
                .watch
                .call("insert, without its runtime", map.insert(written, record))
                .await;
            let _ = self
                .watch
                .call("snapshot, without its runtime", map.snapshot())
                .await;
            let _ = self
                .watch
                .call("verify, without its runtime", map.verify())
                .await;
            let _ = self
                .watch
                .call("flush, without its runtime", map.flush())
                .await;
            let _ = self
                .watch
                .call("close, without its runtime", map.close())
                .await;
            self.watch
                .blocking("a read, without its runtime", || map.get(&key(0)));
            let again = self.open().await?;
            self.close(&again).await
        })
    }

    /// The rows that the map was filled with outgrow its empty table.
    fn wait_for_a_merge(&self) -> Result<(), Failure> {
        let table = self.args.dir.join(format!("app.csv{UNFINISHED}"));
        let begun = Instant::now();
        while !table.exists() {
            if begun.elapsed() > ANSWER {
                let text = format!("no merge writes {}", table.display());
                return Err(Failure::Trouble(text));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn second_runtime(&self) -> Result<(), Failure> {
        let first = threads(1, 1)?;
        let map = first.block_on(self.open())?;
        let second = one_thread()?;
        second.block_on(async {
            self.fill(&map, KEYS, SMALL).await?;
            self.write_for_a_while(&map).await?;
            self.watch.call("verify", map.verify()).await?;
            self.watch.call("snapshot", map.snapshot()).await?;
            self.close(&map).await
        })
    }
}
