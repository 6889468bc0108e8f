//! Which tiers a command is about: the one that was asked for, or all that the store knows.

use serde_json::{Value, json};

use crate::names::Tier;
use crate::store::{Store, StoreError};

/// So many are named in a line.
const NAMED: usize = 5;

/// The tier, or with `all` those that the store knows. A store that knows none is looked at all the same.
pub(super) async fn asked(store: &dyn Store, tier: Tier, all: bool) -> Result<Vec<Tier>, StoreError> {
    let known = if all { store.tiers().await? } else { Vec::new() };
    Ok(if known.is_empty() { vec![tier] } else { known })
}

/// The tiers beside the one that is looked at.
pub(super) async fn others(store: &dyn Store, tier: &Tier) -> Result<Vec<Tier>, StoreError> {
    let mut known = store.tiers().await?;
    known.retain(|other| other != tier);
    Ok(known)
}

/// That there are others; whoever looks at one tier must not take it for the whole.
pub(super) fn hint(others: &[Tier]) -> Option<String> {
    let what = match others.len() {
        0 => return None,
        1 => "1 other tier".to_owned(),
        n => format!("{n} other tiers"),
    };
    let mut names: Vec<&str> = others.iter().take(NAMED).map(Tier::as_str).collect();
    if others.len() > NAMED {
        names.push("…");
    }
    Some(format!("{what}: {}: --all-tiers", names.join(", ")))
}

/// The same for programs: a member `other_tiers`, if there are any.
pub(super) fn noted(mut told: Value, others: &[Tier]) -> Value {
    if let Value::Object(members) = &mut told
        && !others.is_empty()
    {
        members.insert("other_tiers".to_owned(), json!(others));
    }
    told
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn other_tiers_are_named_in_one_line() {
        let tiers = |n| (0..n).map(|n| Tier::new(&format!("t-{n}")).unwrap()).collect::<Vec<_>>();
        assert_eq!(hint(&[]), None);
        assert_eq!(hint(&tiers(1)).unwrap(), "1 other tier: t-0: --all-tiers");
        assert_eq!(hint(&tiers(7)).unwrap(), "7 other tiers: t-0, t-1, t-2, t-3, t-4, …: --all-tiers");
    }
}
