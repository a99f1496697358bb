#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// Vocabulary: what everything else speaks.
mod capabilities;
pub mod codec;
mod error;
mod message;
mod owner;
mod panics;
mod row;
mod sync;
mod write;
mod write_mode;

// Contract: what map and store promise each other.
mod adapter;
mod backend;
mod byte_store;

// Engine: from an accepted write to a committed and published one.
mod backlog;
mod cache;
mod cycle;
mod engine;
mod events;
mod flight;
mod gate;
mod load;
mod local;
mod migrate;
mod pace;
mod pending;
mod reentry;
mod saver;
mod shared;
mod status;
mod transaction;
mod verify;
mod writer;

// Surface: what applications call.
mod atomic;
mod blocking;
mod copy;
mod iter;
mod many;
mod map;

// Wiring: from a backend to an open map.
mod builder;

pub use backend::{DynBackend, Key, LoadSink, StorageBackend, Value};
pub use blocking::Blocking;
pub use builder::Builder;
pub use byte_store::{ByteStore, ByteWrite, Format, RowSink, RowVerdict};
pub use capabilities::{Capabilities, Survives};
#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "message_pack")]
pub use codec::MessagePack;
pub use codec::{Bincode, Codec};
pub use copy::{Copied, Copying, copy};
pub use error::{Cause, Outcome, PersistentError, Result};
pub use events::{Change, Event, Subscription, Watch};
pub use iter::{Iter, Keys, Values};
pub use load::{OnCorrupt, OpenReport, Progress, collect};
pub use map::PersistentMap;
pub use owner::Owner;
pub use row::{CorruptRow, Location};
pub use status::{Phase, Stats};
pub use transaction::Transaction;
pub use write::{Encoded, Write};
pub use write_mode::{Behind, WriteMode};

/// Re-exported, so that a backend needs no dependency of its own for `#[async_trait]`.
pub use async_trait::async_trait;
