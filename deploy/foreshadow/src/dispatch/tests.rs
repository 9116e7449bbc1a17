//! Commands run in this process, from the parsed command line on.

use clap::Parser as _;
use schemas::trial::Trial;
use store::Store;

use crate::cli::Cli;
use crate::console::{Color, Console};
use crate::dispatch;
use crate::exit::{Failure, Status};

const SESSION: &str = r#"{"task_id":"t","trial":0,"reward":1.0,"traj":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}"#;

/// A folder with a key, a file of one session, and commands run in it.
struct Workspace(tempfile::TempDir);

impl Workspace {
    fn new() -> Self {
        let workspace = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(workspace.path("one.jsonl"), SESSION).expect("a file");
        std::fs::write(workspace.path("two.jsonl"), SESSION.replace("hello", "good day")).expect("a file");
        workspace
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Runs a command line; words that start with `@` are paths in the folder.
    async fn run(&self, line: &str) -> Result<Status, Failure> {
        let key = self.path("key");
        let words = line
            .split(' ')
            .map(|word| word.strip_prefix('@').map_or(word.to_owned(), |name| self.path(name)));
        let fixed = ["foreshadow".to_owned(), "--key-file".to_owned(), key];
        let cli = Cli::try_parse_from(fixed.into_iter().chain(words)).expect("a command line");
        let console = Console::new(false, Color::Never);
        Box::pin(dispatch::run(cli, &console)).await
    }

    async fn refused(&self, line: &str) -> (u8, String) {
        let failure = self.run(line).await.expect_err("it is refused");
        (failure.code(), format!("{:#}", failure.error()))
    }
}

const INTO_RUN: &str = "import --format tau-bench @one.jsonl --run @run --build b --lane baseline";

#[tokio::test]
async fn the_same_file_is_taken_once() {
    let workspace = Workspace::new();
    workspace.run(INTO_RUN).await.expect("the first time");
    let (code, message) = workspace.refused(INTO_RUN).await;
    assert_eq!(code, 2);
    assert!(message.contains("already imported"), "{message}");
    // Another file with the same trial would let the case vote twice.
    let (code, message) = workspace.refused(&INTO_RUN.replace("@one", "@two")).await;
    assert_eq!(code, 2);
    assert!(message.contains("case t trial 0 is already"), "{message}");
    let store = Store::open(&workspace.path("run")).expect("a run");
    let snapshot = store.snapshot().await.expect("commits");
    let trials: Vec<Trial> =
        store.read_table(&snapshot, store::table::Table::Trials, None).await.expect("trials");
    assert_eq!((snapshot.sources().count(), trials.len()), (1, 1));
    assert_eq!(trials[0].answer.as_deref(), Some("hello"));
    workspace.run("sessions verify --strict --store @run").await.expect("whole");
}

#[tokio::test]
async fn a_run_keeps_its_lane_and_build_and_is_no_store() {
    let workspace = Workspace::new();
    workspace.run(INTO_RUN).await.expect("a new run");
    let others = [
        (INTO_RUN.replace("--build b", "--build c"), "build b, not c"),
        (INTO_RUN.replace("baseline", "candidate"), "lane baseline, not candidate"),
        (format!("{INTO_RUN} --outcome-selected"), "selected = false, not true"),
        ("import --format tau-bench @two.jsonl --store @run".to_owned(), "is a run, not a store"),
    ];
    for (line, part) in others {
        let (code, message) = workspace.refused(&line.replace("@one", "@two")).await;
        assert_eq!(code, 2, "{line}");
        assert!(message.contains(part), "{message}");
    }
    workspace.run("import --format tau-bench @one.jsonl --store @store").await.expect("a new store");
    let (code, message) =
        workspace.refused(&INTO_RUN.replace("@run", "@store").replace("@one", "@two")).await;
    assert!(code == 2 && message.contains("holds a store, not a run"), "{message}");
}

#[tokio::test]
async fn nothing_to_import_writes_nothing() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path("one.jsonl"), "{\"task_id\":").expect("a file");
    let (code, message) = workspace.refused(INTO_RUN).await;
    assert!(code == 1 && message.contains("nothing could be imported"), "{message}");
    assert!(!std::path::Path::new(&workspace.path("run")).exists());
    let (code, _) = workspace.refused("sessions list --store @run").await;
    assert_eq!(code, 2);
}
