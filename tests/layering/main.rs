//! Checks the rules of the workspace from `cargo metadata` and the sources: dependencies of crates, circles, purity, words.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

mod cycles;
mod words;

/// Lines of implementation past which a source file is named as a candidate for a split. One state machine may stay longer.
const LONG_FILE_LINES: usize = 500;

/// Which of our crates may use which of our crates, beside their tests.
const MAY_USE: [(&str, &[&str]); 17] = [
    ("schemas", &[]),
    ("codec", &["schemas"]),
    ("envelope", &["schemas"]),
    ("store", &["schemas", "codec"]),
    ("wire", &["schemas"]),
    ("seeded", &[]),
    ("recorder", &["schemas", "codec", "store", "wire"]),
    ("replayer", &["schemas", "store", "wire", "seeded"]),
    ("analyzer", &["schemas", "envelope", "seeded"]),
    ("embedding", &[]),
    ("reference", &[]),
    ("scoring", &["schemas", "store", "wire", "replayer", "embedding"]),
    ("decision", &["schemas", "envelope", "store", "analyzer"]),
    ("gating", &["schemas", "store", "replayer", "analyzer", "scoring", "decision"]),
    (
        "demo",
        &["schemas", "store", "wire", "seeded", "recorder", "replayer", "analyzer", "scoring", "decision"],
    ),
    (
        "foreshadow",
        &["schemas", "store", "recorder", "replayer", "analyzer", "scoring", "decision", "gating", "demo"],
    ),
    (
        "tests",
        &[
            "schemas",
            "codec",
            "envelope",
            "store",
            "wire",
            "seeded",
            "recorder",
            "replayer",
            "analyzer",
            "embedding",
        ],
    ),
];

/// What must not be reachable from a crate, by any path.
const MUST_NOT_REACH: [(&str, &[&str]); 16] = [
    ("schemas", &["tokio", "hyper", "rdkafka", "clap", "tracing", "object_store", "anyhow"]),
    (
        "schemas",
        &[
            "arrow-array",
            "arrow-schema",
            "parquet",
            "serde_arrow",
            "rmp-serde",
            "zstd",
            "toml",
            "jsonschema",
            "regex",
        ],
    ),
    (
        "codec",
        &["tokio", "hyper", "rdkafka", "clap", "tracing", "object_store", "anyhow", "arrow-array", "parquet"],
    ),
    (
        "envelope",
        &["tokio", "hyper", "rdkafka", "clap", "tracing", "object_store", "anyhow", "arrow-array", "parquet"],
    ),
    ("analyzer", &["arrow-array", "arrow-schema", "parquet", "serde_arrow", "rmp-serde"]),
    ("wire", &["tokio", "hyper", "rdkafka", "clap", "tracing", "object_store", "anyhow"]),
    ("seeded", &["tokio", "hyper", "rdkafka", "clap", "tracing", "object_store", "anyhow"]),
    ("analyzer", &["tokio", "hyper", "rdkafka", "clap", "object_store", "anyhow", "reqwest"]),
    ("embedding", &["tokio", "hyper", "rdkafka", "clap", "object_store", "anyhow", "reqwest"]),
    ("store", &["rdkafka", "clap", "anyhow"]),
    ("recorder", &["clap", "anyhow"]),
    ("replayer", &["clap", "anyhow"]),
    ("scoring", &["clap", "indicatif", "rdkafka"]),
    ("decision", &["clap", "indicatif", "rdkafka"]),
    ("gating", &["clap", "indicatif"]),
    ("demo", &["clap", "indicatif"]),
];

/// What must not be in the tree at all: a second TLS provider makes `ClientConfig::builder()` panic.
const BANNED: [&str; 3] = ["aws-lc-rs", "aws-lc-sys", "native-tls"];

/// What one crate alone may bring in: librdkafka has a TLS of its own, everybody else speaks it by rustls.
const BROUGHT_BY: [(&str, &str); 2] = [("openssl-sys", "rdkafka-sys"), ("rdkafka-sys", "rdkafka")];

/// Which of our crates may name Kafka's client.
const MAY_NAME_KAFKA: [&str; 2] = ["recorder", "tests"];

/// What a crate that does no I/O must not say.
const PURE: [(&str, &[&str]); 7] = [
    ("codec", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("envelope", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("wire", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("seeded", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("schemas", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("analyzer", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
    ("embedding", &["std::fs", "std::net", "std::env", "std::process", "Instant::now", "std::thread::sleep"]),
];

/// Calls that only the binary may make.
const BINARY_ONLY: [&str; 3] = ["std::process::exit", "std::env::var", "std::env::args"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().expect("cargo metadata answers")
}

fn folder_of(metadata: &Metadata, name: &str) -> PathBuf {
    let package = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name);
    package.expect("the crate is in the workspace").manifest_path.parent().expect("has a folder").into()
}

/// Everything reachable from a crate through normal dependencies.
fn reachable(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let start = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name);
    let mut open = vec![&start.expect("the crate is in the workspace").id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal = nodes[id].deps.iter().filter(|dep| {
            dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal && kind.target.is_none())
        });
        open.extend(normal.map(|dep| &dep.pkg));
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("folder reads") {
        let path = entry.expect("entry reads").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn source_files(metadata: &Metadata, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folder = folder_of(metadata, name);
    let source = folder.join("src");
    if source.exists() {
        sources(&source, &mut found);
    } else {
        sources(&folder, &mut found);
    }
    assert!(!found.is_empty(), "no source found in {}", folder.display());
    found
}

/// The lines before the tests of a file.
fn implementation(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("source reads");
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").map(str::to_owned).collect()
}

#[test]
fn stages_never_import_one_another() {
    let metadata = metadata();
    let mut checked = 0;
    for (name, allowed) in MAY_USE {
        let package = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name);
        let ours: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
        for dependency in &package.expect("the crate is in the workspace").dependencies {
            let dependency_name = dependency.name.as_str();
            if dependency.kind == DependencyKind::Normal && ours.contains(dependency_name) {
                checked += 1;
                assert!(allowed.contains(&dependency_name), "{name} must not use {dependency_name}");
            }
        }
    }
    assert!(checked >= 8, "only {checked} edges were looked at");
    assert_eq!(metadata.workspace_packages().len(), MAY_USE.len(), "a crate is missing from the rules");
}

#[test]
fn forbidden_dependencies_are_out_of_reach() {
    let metadata = metadata();
    for (name, forbidden) in MUST_NOT_REACH {
        let reached = reachable(&metadata, name);
        assert!(reached.len() > 5, "{name} reaches too little: {reached:?}");
        for bad in forbidden {
            assert!(!reached.contains(*bad), "{name} reaches {bad}");
        }
    }
    for package in &metadata.packages {
        assert!(!BANNED.contains(&package.name.as_str()), "{} is in the tree", package.name);
    }
}

#[test]
fn a_build_without_features_has_no_kafka_client_and_no_embedding_model() {
    let tree = |features: &[&str]| {
        let fixed = ["tree", "--package", "foreshadow", "--edges", "normal", "--prefix", "none"];
        let output =
            std::process::Command::new(env!("CARGO")).current_dir(root()).args(fixed).args(features).output();
        let output = output.expect("cargo tree starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect::<BTreeSet<String>>()
    };
    let (all, none) = (tree(&[]), tree(&["--no-default-features"]));
    for name in ["rdkafka", "rdkafka-sys", "openssl-sys", "embedding", "demo", "rmcp"] {
        assert!(all.contains(name), "{name} is missing with the default features");
        assert!(!none.contains(name), "{name} is in the tree without the default features");
    }
    for name in ["recorder", "replayer", "scoring", "decision", "gating", "analyzer"] {
        assert!(none.contains(name), "{name} is missing without the default features");
    }
}

#[test]
fn kafka_and_its_tls_come_by_one_way() {
    let metadata = metadata();
    for (brought, by) in BROUGHT_BY {
        let named = |package: &&cargo_metadata::Package| {
            package.dependencies.iter().any(|dependency| dependency.name.as_str() == brought)
        };
        // A package may name it under a feature that nobody has asked for; what is resolved counts.
        let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
        let uses = |id: &PackageId| {
            let node = resolve.nodes.iter().find(|node| node.id == *id);
            node.is_some_and(|node| {
                node.dependencies.iter().any(|used| metadata[used].name.as_str() == brought)
            })
        };
        let users: Vec<&str> = metadata
            .packages
            .iter()
            .filter(named)
            .filter(|package| uses(&package.id))
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(users, [by], "who uses {brought}");
    }
    let mut named = 0;
    for package in metadata.workspace_packages() {
        if package.dependencies.iter().any(|dependency| dependency.name.as_str() == "rdkafka") {
            named += 1;
            assert!(MAY_NAME_KAFKA.contains(&package.name.as_str()), "{} names rdkafka", package.name);
        }
    }
    assert!(named >= 2, "recorder and tests name rdkafka");
}

#[test]
fn modules_stand_beside_their_folder_and_long_files_are_named() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for path in source_files(&metadata, package.name.as_str()) {
            let lines = implementation(&path).len();
            if lines > LONG_FILE_LINES {
                let line = format!("warning: {}: {lines} lines; is it one state machine?", path.display());
                // Not through the captured output, which a passing test hides.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            assert!(
                path.file_name().is_none_or(|file| file != "mod.rs"),
                "{}: foo.rs beside foo/",
                path.display()
            );
        }
    }
}

#[test]
fn no_two_files_use_one_another() {
    let metadata = metadata();
    let (mut files, mut circles) = (0, Vec::new());
    for package in metadata.workspace_packages() {
        for target in &package.targets {
            let is_build_script = target.kind.contains(&cargo_metadata::TargetKind::CustomBuild);
            if is_build_script {
                continue;
            }
            let edges = cycles::edges(target.src_path.as_std_path());
            files += edges.len();
            circles.extend(cycles::circles(&edges));
        }
    }
    assert!(files > 200, "only {files} files have a dependency");
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

#[test]
fn what_must_be_pure_is_pure() {
    let metadata = metadata();
    for (name, words) in PURE {
        for path in source_files(&metadata, name) {
            for (number, line) in (1..).zip(implementation(&path)) {
                let code = line.split("//").next().unwrap_or_default();
                for word in words {
                    assert!(!code.contains(word), "{}:{number} says {word}", path.display());
                }
            }
        }
    }
    for name in ["store", "recorder", "replayer", "scoring", "decision", "gating", "demo"] {
        for path in source_files(&metadata, name) {
            for (number, line) in (1..).zip(implementation(&path)) {
                let code = line.split("//").next().unwrap_or_default();
                for word in BINARY_ONLY {
                    assert!(
                        !code.contains(word),
                        "{}:{number} says {word}; only the binary may",
                        path.display()
                    );
                }
            }
        }
    }
}

/// The names at the top level that belong to the project; what a user leaves there (a demo's folder) does not count.
fn top_level() -> BTreeSet<String> {
    let listed = std::process::Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let listed = listed.ok().filter(|output| output.status.success() && !output.stdout.is_empty());
    let paths = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    paths.unwrap_or_default().lines().map(first).collect()
}

#[test]
fn the_top_level_is_the_agreed_one() {
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "recorder",
        "replayer",
        "analyzer",
        "schemas",
        "tests",
        "deploy",
    ];
    for name in top_level() {
        let belongs = name.starts_with('.') || agreed.contains(&name.as_str());
        assert!(belongs, "{name} does not belong at the top level");
    }
    for name in agreed {
        assert!(root().join(name).exists(), "{name} is missing");
    }
}
