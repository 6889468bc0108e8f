//! Processes that are killed while they work, and a ledger outside of the store that tells what really happened; and
//! processes that want the same thing at once.

mod flips;
mod killed;
pub(crate) mod kit;
mod rivals;
mod server;
