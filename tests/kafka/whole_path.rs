//! Without faults, Parquet has every journaled exchange once, in order and byte for byte.

use serde_json::Value;
use tests::binary;
use tests::kafka::Cluster;
use tests::pipeline::Pipeline;
use tests::traffic::Traffic;

use crate::counts;

#[tokio::test(flavor = "multi_thread")]
async fn every_journaled_exchange_is_stored_once() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(cluster, folder.path(), "whole", 4, "").await;
    let (recorder, url) = pipeline.record();
    let archiver = pipeline.archive();
    let traffic = Traffic::start(&url, "s", 6, 40);
    traffic.wait_for(300).await;
    let calls = traffic.stop().await;
    let output = recorder.terminate();
    let counts = counts(&output);
    assert_eq!(counts["started"], calls.len(), "{output}");
    assert_eq!(counts["journaled"], calls.len(), "{output}");
    archiver.terminate();
    let settled = pipeline.settle().await;
    assert_eq!(settled, 0, "a recorder that stops in order leaves nothing in the journal");
    let compared = pipeline.compare(&calls).await.expect("every exchange is stored once");
    assert_eq!(compared.bodies, calls.len());
    assert_eq!(compared.absent, 0);
    assert!(pipeline.check_order(cluster).expect("sessions are in order") >= calls.len());

    let verified =
        binary::run(folder.path(), &["--json", "sessions", "verify", "--store", "store", "--strict"]);
    assert!(verified.status.success(), "{}", binary::printed(&verified));
    let verified: Value = serde_json::from_slice(&verified.stdout).expect("prints JSON");
    assert_eq!(verified["exchanges"], calls.len());
}
