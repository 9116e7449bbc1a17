//! One round: traffic, one blow at its moment, more traffic, and an end in order.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tests::kafka::Cluster;
use tests::pipeline::Pipeline;
use tests::process::Running;
use tests::traffic::{Call, Traffic};

use super::plan::{Blow, Moment, Plan, Victim};

/// Conversations under way at a time.
const CLIENTS: u64 = 6;

/// Words that a request grows by a turn.
const FILLER: usize = 40;

/// A moment that has not come by then does not come: the blow falls now.
const LATEST: Duration = Duration::from_secs(20);

/// How often it is looked whether the moment has come.
const LOOK: Duration = Duration::from_millis(1);

/// The processes of a round.
struct Processes {
    recorder: Option<Running>,
    archivers: Vec<Running>,
}

/// Runs a round; returns every call of its clients.
pub(super) async fn run(
    cluster: &Cluster,
    pipeline: &Pipeline,
    plan: &Plan,
    number: u64,
    draw: u64,
) -> Result<Vec<Call>, String> {
    let (recorder, url) = pipeline.record();
    let mut processes =
        Processes { recorder: Some(recorder), archivers: vec![pipeline.archive(), pipeline.archive()] };
    let started = Instant::now();
    let traffic = Traffic::start(&url, &format!("round-{number}"), CLIENTS, FILLER);
    if plan.poison {
        let partition = i32::try_from(draw % 4).unwrap_or(0);
        let _ = cluster.send(pipeline.topic(), partition, b"poison", &draw.to_le_bytes());
    }
    wait(plan.moment, pipeline, &traffic, started).await;
    strike(cluster, pipeline, plan, &mut processes, &traffic).await;
    go_on(&traffic, plan.after).await?;
    let calls = traffic.stop().await;
    let Processes { recorder, archivers } = processes;
    if let Some(recorder) = recorder {
        let _ = recorder.terminate();
    }
    for archiver in archivers {
        let _ = archiver.terminate();
    }
    if !matches!(plan.victim, Victim::Recorder) {
        let failed = calls.iter().filter(|call| call.response.is_none()).count();
        if failed > 0 {
            return Err(format!("{failed} calls failed, but their recorder was not touched"));
        }
    }
    Ok(calls)
}

async fn go_on(traffic: &Traffic, answers: u64) -> Result<(), String> {
    let more = traffic.wait_for(answers);
    let more = tokio::time::timeout(Duration::from_secs(60), more).await;
    more.map_err(|_| format!("no {answers} answers within a minute after the fault"))
}

async fn wait(moment: Moment, pipeline: &Pipeline, traffic: &Traffic, started: Instant) {
    let (store, state) = (pipeline.store(), pipeline.folder().join("state"));
    let before = (count(&store, is_data), count(&store, is_commit));
    let (mut seen, mut acknowledged) = (modified(&state), 0);
    loop {
        let now = modified(&state);
        if now != seen {
            (seen, acknowledged) = (now, acknowledged + 1);
        }
        let has_come = match moment {
            Moment::Answers(wanted) => traffic.answered() >= wanted,
            Moment::Started(time) => started.elapsed() >= time,
            Moment::Acknowledged(wanted) => acknowledged >= wanted,
            Moment::Files(wanted) => count(&store, is_data) >= before.0 + wanted,
            Moment::Commits(wanted) => count(&store, is_commit) >= before.1 + wanted,
        };
        if has_come || started.elapsed() >= LATEST {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn strike(
    cluster: &Cluster,
    pipeline: &Pipeline,
    plan: &Plan,
    processes: &mut Processes,
    traffic: &Traffic,
) {
    match (plan.victim, plan.blow) {
        (Victim::Recorder, Blow::Kill(time)) => {
            processes.recorder.take().into_iter().for_each(Running::kill);
            tokio::time::sleep(time).await;
            let (recorder, url) = pipeline.record();
            traffic.redirect(&url);
            processes.recorder = Some(recorder);
        }
        (Victim::Archiver, Blow::Kill(time)) => {
            processes.archivers.swap_remove(0).kill();
            tokio::time::sleep(time).await;
            processes.archivers.push(pipeline.archive());
        }
        (Victim::Broker(broker), Blow::Kill(time)) => {
            cluster.kill(broker);
            tokio::time::sleep(time).await;
            cluster.start_again(broker);
        }
        (Victim::Recorder, Blow::Pause(time)) => pause(processes.recorder.as_ref(), time).await,
        (Victim::Archiver, Blow::Pause(time)) => pause(processes.archivers.first(), time).await,
        (Victim::Broker(broker), Blow::Pause(time)) => {
            cluster.pause(broker);
            tokio::time::sleep(time).await;
            cluster.resume(broker);
        }
    }
}

async fn pause(process: Option<&Running>, time: Duration) {
    let Some(process) = process else { return };
    process.signal("STOP");
    tokio::time::sleep(time).await;
    process.signal("CONT");
}

/// When the publisher last noted how far its messages are acknowledged.
fn modified(state: &Path) -> Option<SystemTime> {
    state.join("published").metadata().ok()?.modified().ok()
}

fn is_data(path: &Path) -> bool {
    !is_commit(path)
}

fn is_commit(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Counts files below a folder that changes meanwhile.
fn count(folder: &Path, wanted: impl Fn(&Path) -> bool) -> u64 {
    let (mut found, mut open) = (0, vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found += u64::from(wanted(&path));
            }
        }
    }
    found
}
