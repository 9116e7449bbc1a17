//! Commands run in this process, from the parsed command line on.

use clap::Parser as _;
use schemas::trial::Trial;
use store::Store;

use crate::cli::Cli;
use crate::console::{Color, Console};
use crate::dispatch;
use crate::exit::{Failure, Status};

const SESSION: &str = r#"{"task_id":"t","trial":0,"reward":1.0,"traj":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}"#;

/// A folder with a key and files of one session each.
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

    /// Runs a command line; `@NAME` is a path in the folder.
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

    async fn error_of(&self, line: &str) -> (u8, String) {
        let failure = self.run(line).await.expect_err("an error");
        (failure.code(), format!("{:#}", failure.error()))
    }
}

const INTO_RUN: &str = "import --format tau-bench @one.jsonl --run @run --build b --lane baseline";

#[tokio::test]
async fn a_repeated_file_and_a_repeated_trial_are_refused() {
    let workspace = Workspace::new();
    workspace.run(INTO_RUN).await.expect("the first time");
    let (code, message) = workspace.error_of(INTO_RUN).await;
    assert_eq!(code, 2);
    assert!(message.contains("already imported"), "{message}");
    // A second trial with the same number would count the case twice.
    let (code, message) = workspace.error_of(&INTO_RUN.replace("@one", "@two")).await;
    assert_eq!(code, 2);
    assert!(message.contains("already has case t trial 0 with another transcript"), "{message}");
    let store = Store::open(&workspace.path("run")).expect("a run");
    let snapshot = store.snapshot().await.expect("commits");
    let trials: Vec<Trial> =
        store.read_table(&snapshot, store::table::Table::Trials, None).await.expect("trials");
    assert_eq!((snapshot.sources().count(), trials.len()), (1, 1));
    assert_eq!(trials[0].answer.as_deref(), Some("hello"));
    workspace.run("sessions verify --strict --store @run").await.expect("complete");
}

#[tokio::test]
async fn an_import_must_agree_with_the_lane_and_build_of_the_run() {
    let workspace = Workspace::new();
    workspace.run(INTO_RUN).await.expect("a new run");
    let others = [
        (INTO_RUN.replace("--build b", "--build c"), "build b, not c"),
        (INTO_RUN.replace("baseline", "candidate"), "lane baseline, not candidate"),
        (format!("{INTO_RUN} --outcome-selected"), "selected = false, not true"),
        ("import --format tau-bench @two.jsonl --store @run".to_owned(), "is a run, not a store"),
    ];
    for (line, part) in others {
        let (code, message) = workspace.error_of(&line.replace("@one", "@two")).await;
        assert_eq!(code, 2, "{line}");
        assert!(message.contains(part), "{message}");
    }
    workspace.run("import --format tau-bench @one.jsonl --store @store").await.expect("a new store");
    let (code, message) =
        workspace.error_of(&INTO_RUN.replace("@run", "@store").replace("@one", "@two")).await;
    assert!(code == 2 && message.contains("is a store, not a run"), "{message}");
}

#[tokio::test]
async fn a_refused_import_writes_nothing() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path("one.jsonl"), "{\"task_id\":").expect("a file");
    let (code, message) = workspace.error_of(INTO_RUN).await;
    assert!(code == 1 && message.contains("nothing imported"), "{message}");
    assert!(!std::path::Path::new(&workspace.path("run")).exists());
    let (code, _) = workspace.error_of("sessions list --store @run").await;
    assert_eq!(code, 2);
}
