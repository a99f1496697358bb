//! How to use this crate: pages to read, whose examples are tests.
//!
//! | Page | Read it |
//! |---|---|
//! | [`tutorial`] | first: from one insert to transactions, write-behind, a new version of a type, and a backup |
//! | [`cookbook`] | when you look for how to do one thing |
//! | [`guarantees`] | before you rely on it: what `Ok` survives, who sees what when, and what is not promised |
//! | [`choosing`] | when you choose a backend, a codec or a write mode |

/// From the first insert to a backup.
///
#[doc = include_str!("../docs/guide/tutorial.md")]
pub mod tutorial {}

/// Short recipes.
///
#[doc = include_str!("../docs/guide/cookbook.md")]
pub mod cookbook {}

/// What is promised, and what is not.
///
#[doc = include_str!("../docs/guide/guarantees.md")]
pub mod guarantees {}

/// Which backend, which codec, which write mode.
///
#[doc = include_str!("../docs/guide/choosing.md")]
pub mod choosing {}
