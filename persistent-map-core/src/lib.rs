#![doc = include_str!("../README.md")]

// Vocabulary: what everything else speaks.
mod error;
mod panics;

// Contract: what map and store promise each other.
mod adapter;
mod backend;
mod byte_store;
pub mod codec;

// Engine: from an accepted write to a committed and published one.
mod cache;
mod load;
mod status;
mod writer;

// Surface: what applications call.
mod builder;
mod iter;
mod map;

pub use backend::{
    Capabilities, CorruptRow, Encoded, Key, LoadSink, Location, StorageBackend, Survives, Value,
    Write,
};
pub use builder::Builder;
pub use byte_store::{ByteStore, ByteWrite, Format, RowSink, RowVerdict};
#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "message_pack")]
pub use codec::MessagePack;
pub use codec::{Bincode, Codec};
pub use error::{Cause, Outcome, PersistentError, Result};
pub use iter::{Iter, Keys, Values};
pub use load::{OnCorrupt, OpenReport, Progress};
pub use map::PersistentMap;
pub use status::{Phase, Stats};

/// Re-exported, so that a backend needs no dependency of its own for `#[async_trait]`.
pub use async_trait::async_trait;
