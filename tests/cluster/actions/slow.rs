//! What only a real clock shows: an answer that comes after the client has given up.
//!
//! Invariant: the effect is counted once, though the first attempt had it and never heard so.

use super::kube_cases::kube_case;
use super::*;
use nightshift::model::EffectClass;

#[tokio::test]
async fn a_timeout_after_the_effect_does_not_make_it_happen_twice() {
    let writers = names().into_iter().filter(|name| action(name).spec().effect != EffectClass::Read);
    let late = RequestFault::Delay { millis: u64::try_from(limits::KUBE_TIMEOUT.as_millis()).unwrap() + 2_000 };
    // All at once: each waits for the timeout.
    let late = &late;
    let tried = writers.map(|name| async move {
        let stage = Stage::ready_for(name).await;
        let case = kube_case(&stage, name).unwrap();
        for call in &case.before {
            ok(stage.run(call.clone()).await);
        }
        let mark = stage.mark();
        let mut step = stage.begin(case.call).await;
        let (method, path) = case.write.unwrap();
        stage.trouble(1, method, path, late.clone());
        let value = ok(stage.finish(&mut step).await.0);
        assert_eq!(stage.since(mark), case.changes, "{name}");
        assert_ne!(value["changed"], json!(false), "{name} changed something");
    });
    futures::future::join_all(tried).await;
}
