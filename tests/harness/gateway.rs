//! Turns tau2-bench sessions into the gateway traffic that their agent would have caused.
//!
//! Each model call is an OpenAI chat request with the whole history, the policy of the domain and the tool list. Its response
//! is the recorded message, streamed in every other session. Tool calls are MCP over HTTP. Turns are small JSON objects. The
//! same files and seed give the same bytes. Sessions past those of the files repeat them with other ids and permuted digits.
//! [`play`] sends the traffic.

use std::collections::BTreeMap;
use std::path::Path;

use seeded::Key;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub mod play;
mod session;
mod variation;
mod write;

pub use session::{Call, Session};
use session::{Message, Scene, Setting};
use variation::digit_permutation;
use write::MessageWriter;

/// The sessions of all files.
#[derive(Debug)]
pub struct Traffic {
    scenes: Vec<Scene>,
}

#[derive(Debug, Deserialize)]
struct Head {
    info: Info,
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Info {
    agent_info: AgentInfo,
    environment_info: EnvironmentInfo,
}

#[derive(Debug, Deserialize)]
struct AgentInfo {
    llm: String,
}

#[derive(Debug, Deserialize)]
struct EnvironmentInfo {
    domain_name: String,
    policy: String,
}

#[derive(Debug, Deserialize)]
struct Task {
    id: Value,
    ticket: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Simulation {
    task_id: Value,
    messages: Vec<Message>,
}

impl Traffic {
    /// Reads every `*.jsonl.zst` of a folder, in the order of their names.
    ///
    /// # Panics
    /// The folder holds none, or one is not a tau2-bench file.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).expect("the folder of tau2-bench files reads");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry reads").path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(".jsonl.zst"));
        paths.sort();
        let scenes: Vec<Scene> = paths.iter().flat_map(|path| scenes(path)).collect();
        assert!(!scenes.is_empty(), "{} holds no tau2-bench sessions", folder.display());
        Self { scenes }
    }

    /// The tau2-bench files of the project.
    #[must_use]
    pub fn bundled() -> Self {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau2-bench"))
    }

    /// Number of sessions before they repeat.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.scenes.len()
    }

    /// The session with this number, from 0. Numbers from [`Self::sessions`] on repeat sessions with other ids and digits.
    #[must_use]
    pub fn session(&self, place: usize, seed: u64) -> Session {
        let (round, scene) = (place / self.scenes.len(), &self.scenes[place % self.scenes.len()]);
        let mut rng =
            Key::derive_with_seed("foreshadow 2026 gateway traffic v1", seed, &[]).stream(place as u64);
        let id = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
        let digits = if round == 0 { None } else { Some(digit_permutation(&mut rng)) };
        let pen = MessageWriter::new(scene, id, place % 2 == 1, digits, rng);
        pen.write()
    }
}

fn scenes(path: &Path) -> Vec<Scene> {
    let packed = std::fs::File::open(path).expect("file opens");
    let text = zstd::decode_all(packed).expect("file unpacks");
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head: Head = serde_json::from_slice(lines.next().expect("a first line")).expect("line 1 is the head");
    let simulations: Vec<Simulation> =
        lines.map(|line| serde_json::from_slice(line).expect("a simulation a line")).collect();
    let setting = std::sync::Arc::new(Setting {
        model: head.info.agent_info.llm,
        policy: head.info.environment_info.policy,
        tools: tools(&head.info.environment_info.domain_name, &simulations),
    });
    let tickets: BTreeMap<String, String> =
        head.tasks.into_iter().filter_map(|task| Some((task.id.to_string(), task.ticket?))).collect();
    let scene = |(place, simulation): (u64, Simulation)| Scene {
        setting: setting.clone(),
        ticket: tickets.get(&simulation.task_id.to_string()).cloned(),
        messages: simulation.messages,
        started: 1_760_000_000 + place * 600,
    };
    (0..).zip(simulations).map(scene).collect()
}

/// The tool list as function definitions. Names and parameters come from the calls in the file; descriptions are made up.
fn tools(domain: &str, simulations: &[Simulation]) -> Vec<Value> {
    let mut found: BTreeMap<&str, BTreeMap<&str, &'static str>> = BTreeMap::new();
    let calls = simulations.iter().flat_map(|simulation| &simulation.messages);
    for call in calls.flat_map(|message| message.tool_calls.iter().flatten()) {
        if call.requestor.as_deref() != Some("user") {
            let parameters = found.entry(&call.name).or_default();
            for (name, value) in &call.arguments {
                parameters.insert(name, kind(value));
            }
        }
    }
    found.into_iter().map(|(name, parameters)| function(domain, name, &parameters)).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn function(domain: &str, name: &str, parameters: &BTreeMap<&str, &'static str>) -> Value {
    let words = name.replace('_', " ");
    let property = |(name, kind): (&&str, &&'static str)| {
        let words = name.replace('_', " ");
        let text = format!(
            "The {words} of the {domain} customer's request, exactly as the customer or an earlier result gave it."
        );
        ((*name).to_owned(), json!({"type": kind, "title": words, "description": text}))
    };
    let properties: Map<String, Value> = parameters.iter().map(property).collect();
    let required: Vec<&&str> = parameters.keys().collect();
    json!({"type": "function", "function": {
        "name": name,
        "description": format!("Use it to {words} in the {domain} system. Check the policy before calling it; raises an error if something is not found."),
        "parameters": {"type": "object", "properties": properties, "required": required, "additionalProperties": false},
        "strict": false,
    }})
}
