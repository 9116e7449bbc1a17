//! Runs one round: traffic, one fault when its trigger fires, more traffic, and an orderly stop.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tests::kafka::{Cluster, TopicEnd};
use tests::pipeline::Pipeline;
use tests::process::Running;
use tests::traffic::{Call, Traffic};

use super::plan::{Fault, Plan, Target, Trigger};

/// Conversations at the same time.
const CLIENTS: u64 = 6;

/// Words that a request grows by in each turn.
const WORDS_PER_TURN: usize = 40;

/// A trigger that did not fire by then fails the round.
const TRIGGER_DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at what a trigger watches.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The processes of a round.
struct Processes {
    recorder: Option<Running>,
    archivers: Vec<Running>,
}

/// Runs a round and returns every call of its clients.
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
    let traffic = Traffic::start(&url, &format!("round-{number}"), CLIENTS, WORDS_PER_TURN);
    if plan.sends_undecodable {
        let partition = i32::try_from(draw % 4).unwrap_or(0);
        let _ = cluster.send(pipeline.topic(), partition, b"undecodable", &draw.to_le_bytes());
    }
    let published_twice = if plan.must_publish_twice() { pipeline.published_twice(cluster) } else { 0 };
    let progress = Progress::new(cluster, pipeline);
    wait(plan, progress, &traffic, started, processes.recorder.as_ref()).await?;
    inject(cluster, pipeline, plan, &mut processes, &traffic).await;
    wait_for_answers(&traffic, plan.answers_after).await?;
    let calls = traffic.stop().await;
    let Processes { recorder, archivers } = processes;
    if let Some(recorder) = recorder {
        let _ = recorder.terminate();
    }
    for archiver in archivers {
        let _ = archiver.terminate();
    }
    if plan.must_publish_twice() && pipeline.published_twice(cluster) == published_twice {
        return Err("the recorder published nothing twice, so the fault missed its window".to_owned());
    }
    if !matches!(plan.target, Target::Recorder) {
        let failed = calls.iter().filter(|call| call.response.is_none()).count();
        if failed > 0 {
            return Err(format!("{failed} calls failed, but the fault did not hit their recorder"));
        }
    }
    Ok(calls)
}

async fn wait_for_answers(traffic: &Traffic, answers: u64) -> Result<(), String> {
    let more = traffic.wait_for(answers);
    let more = tokio::time::timeout(Duration::from_secs(60), more).await;
    more.map_err(|_| format!("no {answers} answers within a minute after the fault"))
}

/// The progress of a round, as files and topic show it.
struct Progress {
    checkpoint: PathBuf,
    store: PathBuf,
    topic: TopicEnd,
    files_before: u64,
    commits_before: u64,
    checkpoint_seen: Option<SystemTime>,
    checkpoints: u64,
    /// Messages in the topic when the latest checkpoint was written.
    messages_at_checkpoint: i64,
}

impl Progress {
    fn new(cluster: &Cluster, pipeline: &Pipeline) -> Self {
        let (checkpoint, store) = (pipeline.checkpoint(), pipeline.store());
        let topic = cluster.topic_end(pipeline.topic());
        let messages_at_checkpoint = topic.messages();
        Self {
            files_before: count(&store, is_data),
            commits_before: count(&store, is_commit),
            checkpoint_seen: modified(&checkpoint),
            checkpoints: 0,
            messages_at_checkpoint,
            checkpoint,
            store,
            topic,
        }
    }

    fn has_fired(&mut self, trigger: Trigger, traffic: &Traffic, started: Instant) -> bool {
        match trigger {
            Trigger::Answers(answers) => traffic.answered() >= answers,
            Trigger::Started(time) => started.elapsed() >= time,
            Trigger::Checkpoints(checkpoints) => {
                let now = modified(&self.checkpoint);
                if now != self.checkpoint_seen {
                    (self.checkpoint_seen, self.checkpoints) = (now, self.checkpoints + 1);
                }
                self.checkpoints >= checkpoints
            }
            Trigger::PastCheckpoint(messages) => {
                // The topic first: a checkpoint that is written in between only covers more messages.
                let in_topic = self.topic.messages();
                let now = modified(&self.checkpoint);
                if now != self.checkpoint_seen {
                    (self.checkpoint_seen, self.messages_at_checkpoint) = (now, self.topic.messages());
                }
                in_topic >= self.messages_at_checkpoint.saturating_add_unsigned(messages)
            }
            Trigger::Files(files) => count(&self.store, is_data) >= self.files_before + files,
            Trigger::Commits(commits) => count(&self.store, is_commit) >= self.commits_before + commits,
        }
    }
}

async fn wait(
    plan: &Plan,
    mut progress: Progress,
    traffic: &Traffic,
    started: Instant,
    recorder: Option<&Running>,
) -> Result<(), String> {
    let trigger = plan.trigger;
    loop {
        if progress.has_fired(trigger, traffic, started) {
            let Some(recorder) = recorder.filter(|_| plan.must_publish_twice()) else { return Ok(()) };
            // A checkpoint may be written between look and kill. A stopped recorder writes none.
            recorder.signal("STOP");
            if progress.has_fired(trigger, traffic, started) {
                return Ok(());
            }
            recorder.signal("CONT");
        }
        if started.elapsed() >= TRIGGER_DEADLINE {
            return Err(format!("trigger {trigger:?} did not fire within {} s", TRIGGER_DEADLINE.as_secs()));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn inject(
    cluster: &Cluster,
    pipeline: &Pipeline,
    plan: &Plan,
    processes: &mut Processes,
    traffic: &Traffic,
) {
    match (plan.target, plan.fault) {
        (Target::Recorder, Fault::Kill(time)) => {
            processes.recorder.take().into_iter().for_each(Running::kill);
            tokio::time::sleep(time).await;
            let (recorder, url) = pipeline.record();
            traffic.redirect(&url);
            processes.recorder = Some(recorder);
        }
        (Target::Archiver, Fault::Kill(time)) => {
            processes.archivers.swap_remove(0).kill();
            tokio::time::sleep(time).await;
            processes.archivers.push(pipeline.archive());
        }
        (Target::Broker(broker), Fault::Kill(time)) => {
            cluster.kill(broker);
            tokio::time::sleep(time).await;
            cluster.start_again(broker);
        }
        (Target::Recorder, Fault::Pause(time)) => pause(processes.recorder.as_ref(), time).await,
        (Target::Archiver, Fault::Pause(time)) => pause(processes.archivers.first(), time).await,
        (Target::Broker(broker), Fault::Pause(time)) => {
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

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().ok()?.modified().ok()
}

fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

fn is_commit(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Counts files below a folder that changes meanwhile.
fn count(folder: &Path, is_counted: impl Fn(&Path) -> bool) -> u64 {
    let (mut found, mut open) = (0, vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found += u64::from(is_counted(&path));
            }
        }
    }
    found
}
