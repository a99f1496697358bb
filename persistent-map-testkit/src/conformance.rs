//! All behaviours on one backend: as tests of their own, or as a list of verdicts.

use std::sync::Arc;

use persistent_map_core::ByteStore;

use crate::fixture::Fixture;

/// What became of one behaviour. From [`check_all`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The name of the behaviour, which is the name of its function.
    pub behaviour: &'static str,
    /// Why it does not hold, or `None` if it does.
    pub failure: Option<String>,
}

/// Makes one test for each behaviour of the contract, in a module of the given name.
///
/// ```
/// use persistent_map_memory::InMemoryBackend;
/// use persistent_map_testkit::{Item, conformance, open_with};
///
/// conformance!(in_memory, open_with::<String, Item, _, _>(|_dir| async {
///     Ok(InMemoryBackend::new())
/// }));
/// # fn main() {}
/// ```
///
/// What a behaviour asks for depends on the [capabilities](persistent_map_core::Capabilities) that the backend
/// declares, so no test is ever skipped: a store without atomic batches, say, must refuse them and write nothing.
#[macro_export]
macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the fixture may need nothing from around it")]
            use super::*;
            $crate::for_each_behaviour! { ($crate::__conformance_test) $fixture }
        }
    };
}

/// Makes one test for each line of the contract that only a [`ByteStore`](persistent_map_core::ByteStore) has: how it keeps
/// formats, what it sets aside, which keys it takes. They come beside those of [`conformance!`](crate::conformance), which go
/// through encoded entries and never see a row that does not decode.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_testkit::*;
/// # struct MyStore;
/// # #[async_trait]
/// # impl ByteStore for MyStore {
/// #     type Codec = Bincode;
/// #     fn codec(&self) -> &Bincode { &Bincode }
/// #     fn location(&self) -> Location { Location::default() }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::one_at_a_time().surviving(Survives::Nothing) }
/// #     async fn load(&self, _: &Format, rows: &mut dyn RowSink) -> Result<()> { rows.finish() }
/// #     async fn apply(&self, _: &[ByteWrite<'_>]) -> Result<()> { Ok(()) }
/// #     async fn clear(&self) -> Result<()> { Ok(()) }
/// #     async fn read_back(&self, _: &mut dyn RowSink) -> Result<()> { Ok(()) }
/// #     async fn flush(&self) -> Result<()> { Ok(()) }
/// #     async fn close(&self) -> Result<()> { Ok(()) }
/// # }
/// use persistent_map_testkit::{Item, byte_conformance, conformance, open_with};
///
/// conformance!(my_store, open_with::<String, Item, _, _>(|_dir| async { Ok(MyStore) }));
/// byte_conformance!(my_store_of_bytes, open_with::<String, Item, _, _>(|_dir| async { Ok(MyStore) }));
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! byte_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the fixture may need nothing from around it")]
            use super::*;
            $crate::for_each_byte_behaviour! { ($crate::__conformance_test) $fixture }
        }
    };
}

/// One test.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ($fixture:expr, $($behaviour:ident)*) => {$(
        #[test]
        fn $behaviour() {
            let runtime = $crate::__private::tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a tokio runtime");
            runtime.block_on($crate::$behaviour(&$fixture));
        }
    )*};
}

macro_rules! verdicts {
    ($fixture:expr, $($behaviour:ident)*) => {{
        let mut verdicts = Vec::new();
        $(
            let fixture = Arc::clone($fixture);
            let run = tokio::spawn(async move { crate::$behaviour(&*fixture).await });
            verdicts.push(Verdict {
                behaviour: stringify!($behaviour),
                failure: run.await.err().map(|error| panic_message(error)),
            });
        )*
        verdicts
    }};
}

/// Runs all behaviours and says which of them hold. For checking the kit itself, and for backends whose set-up does not
/// fit a test for each. Dropping the future leaves the behaviour that runs to itself, and begins no other.
///
/// ```
/// use persistent_map_memory::InMemoryBackend;
/// use persistent_map_testkit::{Item, check_all, open_with};
///
/// # #[tokio::main]
/// # async fn main() {
/// let fixture = open_with::<String, Item, _, _>(|_dir| async { Ok(InMemoryBackend::new()) });
/// for verdict in check_all(fixture).await {
///     if let Some(failure) = verdict.failure {
///         panic!("{}: {failure}", verdict.behaviour);
///     }
/// }
/// # }
/// ```
pub async fn check_all<F: Fixture>(fixture: F) -> Vec<Verdict> {
    let fixture = &Arc::new(fixture);
    crate::for_each_behaviour!((verdicts) fixture)
}

/// The same for [`byte_conformance!`](crate::byte_conformance).
///
/// ```
/// use persistent_map_core::ByteStore;
/// use persistent_map_testkit::{Fixture, Verdict, check_all_bytes};
///
/// async fn failures(fixture: impl Fixture<Backend: ByteStore>) -> Vec<Verdict> {
///     let verdicts = check_all_bytes(fixture).await.into_iter();
///     verdicts.filter(|verdict| verdict.failure.is_some()).collect()
/// }
/// ```
pub async fn check_all_bytes<F: Fixture<Backend: ByteStore>>(fixture: F) -> Vec<Verdict> {
    let fixture = &Arc::new(fixture);
    crate::for_each_byte_behaviour!((verdicts) fixture)
}

fn panic_message(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "a panic without a message".to_string()),
        Err(error) => error.to_string(),
    }
}
