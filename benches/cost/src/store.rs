//! A store that does nothing but answer.

use persistent_map::{
    Bincode, ByteStore, ByteWrite, Capabilities, Codec as _, Format, Location, Result, RowSink,
    RowVerdict, async_trait,
};

/// Says that all is stored. At open it has the entries that it was made with.
#[derive(Default)]
pub struct Nothing(Vec<(Vec<u8>, Vec<u8>)>);

impl Nothing {
    /// A store that has these entries when it is opened.
    ///
    /// # Panics
    /// If a text cannot be encoded.
    pub fn but(entries: &[(String, String)]) -> Self {
        let encode = |text| {
            Bincode
                .encode::<String>(text)
                .expect("a text can be encoded")
        };
        let entries = entries.iter();
        Nothing(
            entries
                .map(|(key, value)| (encode(key), encode(value)))
                .collect(),
        )
    }
}

#[async_trait]
impl ByteStore for Nothing {
    type Codec = Bincode;

    fn codec(&self) -> &Bincode {
        &Bincode
    }

    fn location(&self) -> Location {
        Location::default()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    async fn load(&self, _: &Format, rows: &mut dyn RowSink) -> Result<()> {
        rows.expect(self.0.len() as u64);
        for ((key, value), number) in self.0.iter().zip(1..) {
            let _: RowVerdict = rows.row(number, key, value)?;
        }
        rows.finish()
    }

    async fn apply(&self, _: &[ByteWrite<'_>]) -> Result<()> {
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    async fn read_back(&self, _: &mut dyn RowSink) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
