//! A cluster with TLS and a password.

use std::path::Path;

use tests::kafka::{Cluster, Secured};
use tests::pipeline::Pipeline;
use tests::process::Running;
use tests::traffic::Traffic;

use crate::shed;

/// Configures TLS and SASL as the documentation describes.
fn secure(folder: &Path, cluster: &Cluster, secured: &Secured) {
    let path = folder.join("foreshadow.toml");
    let text = std::fs::read_to_string(&path).expect("is there");
    let properties = format!(
        "[kafka.properties]\n\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
         \"sasl.username\" = \"{}\"\n\"sasl.password\" = \"${{KAFKA_PASSWORD}}\"\n\"ssl.ca.location\" = \"{}\"",
        secured.name,
        secured.certificate.display()
    );
    let text = text.replace(cluster.servers(), &secured.servers).replace("[kafka.properties]", &properties);
    std::fs::write(path, text).expect("is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorder_and_archiver_work_over_tls_with_a_password() {
    let Some((cluster, secured)) = Cluster::start_secured() else { return };
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(&cluster, folder.path(), "secured", 2, "").await;
    secure(folder.path(), &cluster, &secured);
    let start = |args: &[&str], password: &str| {
        Running::start_with(folder.path(), args, &[("KAFKA_PASSWORD", password)])
    };
    // With a wrong password the tap answers, the journal keeps the exchanges, and the log has the reason.
    let mut recorder = start(&["--json", "record"], "open barley");
    let traffic = Traffic::start(&recorder.url(), "s", 2, 20);
    traffic.wait_for(40).await;
    recorder.wait_for("the refusal", |log| log.contains("uthentication").then_some(()));
    let mut calls = traffic.stop().await;
    let first = recorder.terminate();
    assert!(!first.contains("open barley"), "the password is in the log: {first}");
    assert_eq!(cluster.messages("secured").len(), 0, "no message is in the topic");
    // With the right one every exchange arrives.
    let mut recorder = start(&["--json", "record"], secured.password);
    let traffic = Traffic::start(&recorder.url(), "t", 2, 20);
    let archiver = start(&["-v", "archive"], secured.password);
    traffic.wait_for(40).await;
    calls.extend(traffic.stop().await);
    let second = recorder.terminate();
    archiver.terminate();
    let (status, log) = start(&["archive", "--exit-when-idle", "1s"], secured.password).wait();
    assert!(status.success(), "{log}");
    let compared = pipeline.compare(&calls).await.expect("every exchange is stored once");
    assert_eq!(compared.bodies + shed(&first) + shed(&second), calls.len());
    assert!(compared.bodies >= 80, "too little was compared: {compared:?}");
}
