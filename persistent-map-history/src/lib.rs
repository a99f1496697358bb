//! Records what many tasks ask of a map and are answered, and checks whether one order of the calls explains all answers.
//!
//! [`make_random_calls`] makes the calls, a [`History`] records them, and [`History::check`] looks for the order.

mod anomaly;
mod bits;
mod calls;
mod drive;
mod history;
mod model;
mod search;
mod values;

pub use anomaly::Anomaly;
pub use drive::make_random_calls;
pub use history::{Call, Figures, History};
pub use model::{Answer, Op, Rule};
