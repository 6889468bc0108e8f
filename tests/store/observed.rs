//! What the wrapper counts, and that it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::store::observed::Observed;
use sluicegate::store::*;

use super::bench::*;

async fn observed() -> (Rig, Arc<Observed>) {
    let mut rig = Rig::active::<Sqlite>().await;
    let observed = Arc::new(Observed::new(Arc::clone(&rig.store)));
    rig.store = Arc::<Observed>::clone(&observed);
    (rig, observed)
}

#[tokio::test]
async fn calls_errors_and_times_are_counted_per_operation() {
    let (rig, observed) = observed().await;
    assert!(observed.snapshot().iter().all(|seat| seat.calls == 0));
    rig.add(job(1)).await;
    rig.add(job(2)).await;
    let too_many = (0..=MAX_BATCH as u64).map(job).collect();
    rig.store.insert(&rig.tier, too_many).await.unwrap_err();
    rig.now().await;
    let seat = observed.of("insert").expect("an operation");
    assert_eq!((seat.calls, seat.answers, seat.errors, seat.abandoned, seat.pending()), (3, 2, 1, 0, 0));
    assert!(seat.slowest <= seat.total && seat.mean() <= seat.slowest && !seat.slowest.is_zero());
    assert_eq!(observed.of("probe").map(|seat| (seat.calls, seat.errors)), Some((1, 0)));
    assert_eq!(observed.of("claim").map(|seat| (seat.calls, seat.mean())), Some((0, Duration::ZERO)));
    assert!(observed.of("nonsense").is_none());
    let times = observed.times();
    let names: Vec<_> = times.iter().map(|(op, _)| *op).collect();
    assert_eq!(names, observed.snapshot().iter().map(|seat| seat.op).collect::<Vec<_>>());
    for (op, times) in times {
        let seat = observed.of(op).expect("an operation");
        assert_eq!(times.count(), seat.answers + seat.errors, "{op}");
        assert!(seat.total.saturating_sub(times.total) < Duration::from_micros(seat.calls.max(1)), "{op}");
    }
    assert_eq!(observed.snapshot().len(), 26, "one for every operation of the seam");
}

#[tokio::test]
async fn a_call_that_its_caller_gave_up_is_counted_as_that() {
    let (rig, observed) = observed().await;
    let call = rig.store.insert(&rig.tier, vec![job(1)]);
    let mut call = Box::pin(call);
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    if first {
        assert_eq!(observed.of("insert").map(|seat| seat.pending()), Some(1));
    }
    drop(call);
    let seat = observed.of("insert").expect("an operation");
    assert_eq!((seat.calls, seat.pending(), seat.errors), (1, 0, 0));
    assert_eq!(seat.abandoned, u64::from(first));
    let counted = observed.times().into_iter().find(|(op, _)| *op == "insert").expect("an operation").1;
    assert_eq!(counted.count(), u64::from(first), "a store that hangs must not look idle");
}

#[tokio::test]
async fn it_says_what_it_wraps() {
    let (_rig, observed) = observed().await;
    assert_eq!(observed.about().engine, "sqlite");
    assert_eq!(observed.about().location, observed.inner().about().location);
    let text = serde_json::to_value(observed.snapshot()).unwrap();
    assert_eq!((&text[0]["op"], &text[0]["calls"]), (&"insert".into(), &0.into()));
}
