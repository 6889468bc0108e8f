//! What a job is. Pure: nothing here stores, sends or waits.
//!
//! - [`state`]: the states and the table of moves between them
//! - [`args`]: JSON arguments, checked once at the door
//! - [`new`]: a job that is to be inserted, with its limits; [`body`]: the same as JSON, from outside
//! - [`record`]: a job as a store remembers it
//! - [`bypass`]: whether its caller runs it, before the queue has its turn
//! - [`define`]: the `Job` trait, what an app writes for each kind
//! - [`handler`] (feature `worker`): the `Handler` trait, the context, and outcomes; [`registry`]: the kinds a process can run

pub mod args;
pub mod body;
pub mod bypass;
pub mod define;
#[cfg(feature = "worker")]
pub mod handler;
pub mod new;
pub mod record;
#[cfg(feature = "worker")]
pub mod registry;
pub mod state;

pub use args::Args;
pub use body::EnqueueBody;
pub use bypass::Bypass;
pub use define::Job;
#[cfg(feature = "worker")]
pub use handler::{Context, Handler, JobResult, Outcome};
pub use new::{Expiry, InvalidJob, NewJob, Unique, When};
pub use record::{Attempt, JobRecord, Parked};
pub use state::State;
