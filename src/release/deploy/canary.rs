//! Each kind that declares a payload for it runs on each worker of the release, through the real path, before the switch.

use super::lead::{Halt, Lead, Next};
use super::record::Step;

pub(super) async fn run(_: &mut Lead<'_>) -> Result<Next, Halt> {
    todo!("with the evidence")
}
