//! Resource use of a running process from Linux's /proc: CPU time by thread, and peak memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two samples.
const STEP: Duration = Duration::from_millis(50);

/// Clock ticks per second of /proc (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Resources that a process has used.
#[derive(Debug, Default, Clone)]
pub(crate) struct Used {
    /// Seconds of CPU by thread name.
    pub(crate) cpu: BTreeMap<String, f64>,
    /// Peak resident memory, bytes.
    pub(crate) peak: u64,
}

impl Used {
    /// Merges a later sample. A thread that has ended keeps its last value.
    fn merge(&mut self, later: Self) {
        self.peak = self.peak.max(later.peak);
        for (name, spent) in later.cpu {
            let known = self.cpu.entry(name).or_insert(0.0);
            *known = known.max(spent);
        }
    }

    /// Seconds of CPU of all threads.
    pub(crate) fn seconds(&self) -> f64 {
        self.cpu.values().sum()
    }
}

/// Samples a process until it ends.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Used>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut last = Used::default();
            while !stopped.load(Ordering::Relaxed) {
                match sample(pid) {
                    Some(now) => last.merge(now),
                    None => break,
                }
                std::thread::sleep(STEP);
            }
            last
        });
        Self { stop, thread }
    }

    /// The last sample.
    pub(crate) fn finish(self) -> Used {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watching thread does not panic")
    }
}

/// The resources that a process has used so far; `None` after its end.
pub(crate) fn sample(pid: u32) -> Option<Used> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024;
    let mut cpu = BTreeMap::new();
    for thread in std::fs::read_dir(folder.join("task")).ok()?.filter_map(Result::ok) {
        let Ok(text) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        let Some((name, ticks)) = thread_time(&text) else { continue };
        *cpu.entry(name).or_insert(0.0) += ticks / TICKS;
    }
    Some(Used { cpu, peak })
}

/// Name and ticks of a line of `stat`; the name is in parentheses and may contain any character.
fn thread_time(stat: &str) -> Option<(String, f64)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((name, ticks(11)? + ticks(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_name_may_contain_parentheses() {
        let line = "7 (a) (b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 1";
        assert_eq!(thread_time(line), Some(("a) (b".to_owned(), 300.0)));
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let used = sample(std::process::id()).expect("runs");
        assert!(used.peak > 1 << 20 && !used.cpu.is_empty());
    }
}
