//! Reading a store that was written for an older type.

use std::marker::PhantomData;

use async_trait::async_trait;

use crate::backend::{Key, StorageBackend, Value};
use crate::error::Result;
use crate::load::collect;
use crate::panics::{contain, contain_async};

/// A way from what a store holds to what the map wants.
#[async_trait]
pub(crate) trait Migration<K, V, B>: Send {
    /// All entries, if the store is of the older type.
    async fn load(&mut self, backend: &B) -> Result<Vec<(K, V)>>;
}

pub(crate) struct Upgrade<Old, F> {
    upgrade: F,
    old: PhantomData<fn() -> Old>,
}

impl<Old, F> Upgrade<Old, F> {
    pub(crate) fn new(upgrade: F) -> Self {
        Upgrade {
            upgrade,
            old: PhantomData,
        }
    }
}

#[async_trait]
impl<K, V, B, Old, F> Migration<K, V, B> for Upgrade<Old, F>
where
    K: Key,
    V: Value,
    Old: Value,
    B: StorageBackend<K, Old>,
    F: FnMut(Old) -> V + Send,
{
    async fn load(&mut self, backend: &B) -> Result<Vec<(K, V)>> {
        let old = contain_async("loading the store", collect::<K, Old, B>(backend)).await?;
        contain("the upgrade of a value", || {
            let entries = old.into_iter();
            entries
                .map(|(key, value)| (key, (self.upgrade)(value)))
                .collect()
        })
    }
}
