//! `echo`.

use serde_json::json;
use sluicegate::handlers::{Echo, check_settings};
use sluicegate::job::Outcome;

use super::peer::Bench;

#[tokio::test]
async fn any_object_completes_and_a_text_fails() {
    let bench = Bench::new(json!({}));
    for args in [json!({}), json!({ "any": ["thing", 1, null] }), json!({ "sleep": 0 })] {
        assert_eq!(bench.run::<Echo>(&args).await.expect("done"), Outcome::Done);
    }
    let error = bench.run::<Echo>(&json!({ "fail": "as told" })).await.expect_err("failed");
    assert_eq!(error.to_string(), "as told");
}

#[tokio::test]
async fn a_sleep_ends_when_it_is_cancelled_and_one_out_of_range_is_dead() {
    let bench = Bench::new(json!({}));
    bench.cancel.cancel();
    let error = bench.run::<Echo>(&json!({ "sleep": 86_400 })).await.expect_err("cancelled");
    assert!(error.to_string().contains("cancelled"), "{error}");
    for bad in [-1.0, 1e18] {
        assert!(matches!(bench.run::<Echo>(&json!({ "sleep": bad })).await, Ok(Outcome::Dead(_))), "{bad}");
    }
}

#[test]
fn it_has_no_settings() {
    assert_eq!(check_settings("echo", &json!({})), Ok(()));
    assert!(check_settings("echo", &json!({ "x": 1 })).is_err());
}
