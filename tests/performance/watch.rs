//! What a running process uses, from Linux's /proc: CPU time by thread, and the most memory it ever had.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks.
const STEP: Duration = Duration::from_millis(50);

/// Clock ticks of a second, in which /proc counts CPU time (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Debug, Default, Clone)]
pub(crate) struct Used {
    /// Seconds of CPU by the names of threads.
    pub(crate) cpu: BTreeMap<String, f64>,
    /// The most memory it had at a time, bytes.
    pub(crate) peak: u64,
}

impl Used {
    /// Takes a later look; of threads that have ended meanwhile, what they had used when they were last seen stays.
    fn keep(&mut self, later: Self) {
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

/// Looks at a process until it ends.
#[derive(Debug)]
pub(crate) struct Watch {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Used>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Self {
        let enough: Arc<AtomicBool> = Arc::default();
        let asked = enough.clone();
        let thread = std::thread::spawn(move || {
            let mut last = Used::default();
            while !asked.load(Ordering::Relaxed) {
                match look(pid) {
                    Some(now) => last.keep(now),
                    None => break,
                }
                std::thread::sleep(STEP);
            }
            last
        });
        Self { enough, thread }
    }

    /// What the process had used when it was last seen.
    pub(crate) fn finish(self) -> Used {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watching thread does not panic")
    }
}

/// What a process has used so far; `None` once it has ended.
pub(crate) fn look(pid: u32) -> Option<Used> {
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

/// Name and ticks of a line of `stat`; the name stands in brackets and may hold anything.
fn thread_time(stat: &str) -> Option<(String, f64)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((name, ticks(11)? + ticks(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_an_odd_name_is_read() {
        let line = "7 (a) (b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 1";
        assert_eq!(thread_time(line), Some(("a) (b".to_owned(), 300.0)));
    }

    #[test]
    fn this_process_uses_something() {
        let used = look(std::process::id()).expect("runs");
        assert!(used.peak > 1 << 20 && !used.cpu.is_empty());
    }
}
