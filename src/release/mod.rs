//! Releases and how they take over. It meets workers in the store only, so it can judge and switch one that is older,
//! newer or wedged.

pub mod activate;
pub mod evidence;
