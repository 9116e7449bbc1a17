//! Duration and memory of a decision. Only the named command measures them, and nothing asserts them.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use analyzer::Run;
use schemas::trial::{Fidelity, Lane, TrialEnding};
use tests::binary;

use super::{Scale, policy};
use crate::report::{Row, Standing};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::{self, Table};

/// Eight deciding metrics, all that outcome tables support.
const EIGHT_METRICS: &str = "policy = 1\n\
    [metric.agreement]\ndecides = true\nrequired = true\n\
    [metric.latency]\ndecides = true\nrequired = true\n\
    [metric.tail_latency]\ndecides = true\n\
    [metric.tokens]\ndecides = true\nrequired = true\n\
    [metric.cost]\ndecides = true\nrequired = true\n";

fn tables(name: &str, count: usize, change: Change) -> (Table, Table) {
    let sessions = Sessions { count, mean: 0.9, concentration: 1.0, trials: (8, 8) };
    draw(&mut SimulationRng::new(name, 0), &sessions, change, Extras::Effort(1.0))
}

/// Gives every case nine properties of three values each, which make some 2,600 conjunctions with enough cases. Some
/// trials diverge from their recording, so that the share of unscorable trials is a metric too.
fn with_slices(run: &mut Run) {
    for (number, record) in run.trials.iter_mut().enumerate() {
        let mut rng = SimulationRng::new(record.trial.case.as_str(), 0);
        let value = |property: u32| (format!("property{property}"), rng.below(3).to_string());
        record.trial.slices = (0..9).map(value).collect();
        record.trial.fidelity = Some(Fidelity { exact: 1, ..Fidelity::default() });
        if number % 499 == 0 {
            record.trial.ending = TrialEnding::Truncated;
        }
    }
}

/// P3: the decision alone, by the library.
fn decision() -> Row {
    let policy = policy(EIGHT_METRICS);
    let (before, after) = tables("P3", 1000, Change::Scaled(0.03));
    let (mut baseline, mut candidate) =
        (table::run(Lane::Baseline, &before), table::run(Lane::Candidate, &after));
    with_slices(&mut baseline);
    with_slices(&mut candidate);
    let (mut best, mut least_cpu) = (Duration::MAX, f64::MAX);
    let (mut metrics, mut slices) = (0, 0);
    for _ in 0..5 {
        let (start, cpu) = (Instant::now(), cpu_seconds("self"));
        let analysis =
            analyzer::analyze_once(&policy, &baseline, &candidate, None, 1).expect("both hold trials");
        best = best.min(start.elapsed());
        least_cpu = least_cpu.min(cpu_seconds("self") - cpu);
        metrics = analysis.verdict.metrics.len();
        slices = analysis.verdict.review.subgroup_search.map_or(0, |found| found.searched);
    }
    let threads = rayon::current_num_threads();
    Row {
        id: "P3",
        figure: format!(
            "decision on 1,000 cases x 8 trials in each lane, {metrics} metrics, {slices} slices"
        ),
        required: "<= 1 s on two cores".to_owned(),
        measured: format!(
            "{:.2} s, {least_cpu:.2} s of processor, best of 5, {threads} threads",
            best.as_secs_f64()
        ),
        standing: Standing::of(best <= Duration::from_secs(1)),
    }
}

/// Processor time of a process so far, all threads, to hundredths of a second; 0 if the process has ended.
fn cpu_seconds(process: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Fields after the name, which can contain anything: state, then numbers; the 12th and 13th are user and system
    // time.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}

/// Resources of a finished command.
struct Spent {
    time: Duration,
    cpu: f64,
    most_bytes: u64,
}

/// Runs the binary and samples its memory.
fn watched(folder: &Path, args: &[&str]) -> Spent {
    let start = Instant::now();
    let mut child = binary::command(folder)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let process = child.id().to_string();
    let status = format!("/proc/{process}/status");
    let (mut most_bytes, mut cpu) = (0, 0.0_f64);
    loop {
        // The kernel keeps the maximum; it is read until the process ends.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        most_bytes = most_bytes.max(peak.unwrap_or(0) * 1024);
        cpu = cpu.max(cpu_seconds(&process));
        if let Some(ended) = child.try_wait().expect("is watched") {
            assert!(matches!(ended.code(), Some(0 | 3 | 4)), "{args:?} ended with {ended}");
            return Spent { time: start.elapsed(), cpu, most_bytes };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Imports both tables and analyzes them with the binary.
fn through_binary(count: usize) -> (Spent, Spent) {
    let folder = tempfile::tempdir().expect("temp");
    let (before, after) = tables("scale", count, Change::None);
    let mut import = Spent { time: Duration::ZERO, cpu: 0.0, most_bytes: 0 };
    for (lane, table) in [("baseline", &before), ("candidate", &after)] {
        let file = format!("{lane}.csv");
        std::fs::write(folder.path().join(&file), table::csv(table)).expect("writes");
        let args = ["import", "--format", "outcomes", &file, "--run", lane, "--build", lane, "--lane", lane];
        let spent = watched(folder.path(), &args);
        import.time += spent.time;
        import.cpu += spent.cpu;
        import.most_bytes = import.most_bytes.max(spent.most_bytes);
    }
    let args = ["analyze", "--baseline", "baseline", "--candidate", "candidate", "--out", "out"];
    (import, watched(folder.path(), &args))
}

fn megabytes(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// Two runs of 500 cases by 8 trials, and a million trials in all.
pub(crate) fn scale(scale: Scale) -> Vec<Row> {
    let (import, analyze) = through_binary(500);
    let all = (import.time + analyze.time).as_secs_f64();
    let mut rows = vec![
        decision(),
        Row {
            id: "7",
            figure: "two tables of 500 cases x 8 trials: import both, then analyze, three processes"
                .to_owned(),
            required: "well under 1 s in all".to_owned(),
            measured: format!("{:.2} s + {:.2} s", import.time.as_secs_f64(), analyze.time.as_secs_f64()),
            standing: Standing::of(all < 1.0),
        },
    ];
    let most = scale.times(62_500, 1) as usize;
    let small = through_binary(most / 4);
    let large = through_binary(most);
    // Processor time: the duration depends on the machine's other load.
    let ratio = large.1.cpu / small.1.cpu.max(0.01);
    rows.push(Row {
        id: "scale",
        figure: format!("{} trials in two runs analyzed, against a quarter of them", 16 * most),
        required: "time linear (4 times, <= 5), memory bounded by the trials".to_owned(),
        measured: format!(
            "{:.1} s against {:.1} s of processor ({ratio:.1} times), {:.1} s on the clock; {} MB against {} MB; \
             import {:.1} s, {} MB",
            large.1.cpu,
            small.1.cpu,
            large.1.time.as_secs_f64(),
            megabytes(large.1.most_bytes),
            megabytes(small.1.most_bytes),
            large.0.time.as_secs_f64(),
            megabytes(large.0.most_bytes)
        ),
        standing: Standing::of(ratio < 5.0),
    });
    rows
}

#[test]
#[ignore = "measures time: tests/calibration/run"]
fn full_scale() {
    scale(Scale::full()).iter().for_each(Row::print);
}
