//! The configuration files of the demo, as a user would write them: written out, then read by the same parsers.

use serde_json::json;

use crate::output_folder::OutputFolder;

/// What the world makes slow in a replay, the same way for every build.
pub(crate) const FAULTS: &str = r#"# Faults of a replay. They are drawn from the seed, the case and the trial, so every build meets the same ones.
faults = 1

# One refund in ten is made, and its answer is lost on the way: the agent gets 504 and cannot know.
[[fault]]
tool = "issue_refund"
kind = "timeout"
after = "0s"
probability = 0.1
calls = [0]
"#;

/// The policy of the decision: the defaults, spelled out.
pub(crate) const POLICY: &str = r#"# What a candidate must show. Everything here is the default; leave a line out and it stays as it is.
policy = 1
alpha = 0.05

[metric.success]          # share of trials that did what the recorded session did
margin = 0.05

[metric.pass_k]           # share of sessions that go right several times in a row
margin = 0.10
"#;

/// The recorder's configuration: one route for each edge that the agent has.
pub(crate) fn recorder(folder: &OutputFolder, build: &str, agent: &str, model: &str, tools: &str) -> String {
    let store = quoted(&folder.location("store"));
    let state = quoted(&folder.location("state"));
    let declared = [("find_order", "read"), ("refund_policy", "read"), ("refund_status", "read")]
        .into_iter()
        .chain([("issue_refund", "write"), ("open_ticket", "write")])
        .map(|(tool, effect)| format!("\n[[tool]]\nname = \"{tool}\"\neffect = \"{effect}\"\n"))
        .collect::<String>();
    format!(
        r#"# Configuration of `foreshadow record`: three routes, one for each edge that the agent has.
# Listener 0 takes a free port; at your gateway, write the address that callers use.
agent = "refund-support"
build = {build}
store = {store}
state-dir = {state}

[session]
header = "x-session-id"

# Customers talk to the agent through this one.
[[route]]
name = "turn"
edge = "turn"
listen = "127.0.0.1:0"
upstream = {agent}
protocol = "generic-json"
input = "/message"
output = "/reply"

# The agent talks to its model through this one.
[[route]]
name = "model"
edge = "model"
listen = "127.0.0.1:0"
upstream = {model}
protocol = "openai-chat"

# The agent talks to its tools through this one.
[[route]]
name = "tool"
edge = "tool"
listen = "127.0.0.1:0"
upstream = {tools}
protocol = "mcp"

# What each tool does outside is the owner's to say.
{declared}"#,
        build = quoted(build),
        agent = quoted(agent),
        model = quoted(model),
        tools = quoted(tools),
    )
}

/// A candidate file for a build of the agent that runs at `agent`.
pub(crate) fn candidate(build: &str, agent: &str, model: &str) -> String {
    format!(
        r#"# A running service as candidate of `foreshadow replay`.
candidate = 1
kind = "http"
build = {build}

[http]
url = {url}
body = {{ session = "{{{{session}}}}", message = "{{{{input}}}}" }}
answer = "/reply"
timeout = "60s"

# Model calls go through to this one; `identify` tells it case, trial and call, which a seeded model server wants.
[model]
upstream = {model}
identify = true
"#,
        build = quoted(build),
        url = quoted(&format!("{agent}/chat")),
        model = quoted(model),
    )
}

/// What lies where in the output folder.
pub(crate) fn readme(folder: &OutputFolder) -> String {
    let at = |name: &str| folder.location(name);
    format!(
        r"# A demo of foreshadow

| here | what it is |
|---|---|
| `foreshadow.toml` | the recorder's configuration: three routes before agent, model and tools |
| `tools.json` | the agent's tools, and which of them write |
| `agents/` | three builds of one agent: current, harmless change, regressed change |
| `candidates/` | what `foreshadow replay` was told about each build |
| `faults.toml` | the faults that every build met |
| `policy.toml` | what a candidate must show |
| `store/` | the recorded sessions, plain Parquet |
| `runs/` | the trials of each build |
| `reports/` | a verdict for each change: `report.html`, `summary.md`, `verdict.json`, `junit.xml` |

Look around:

    foreshadow sessions list --store {store} --limit 10
    foreshadow sessions show chat-0000 --store {store}
    foreshadow analyze --baseline {baseline} --candidate {regressed} --policy {policy} --out again

The servers of the demo have stopped: the addresses in these files are those of its one run.
",
        store = at("store"),
        baseline = at("runs/baseline"),
        regressed = at("runs/regressed"),
        policy = at("policy.toml"),
    )
}

/// A text as a TOML basic string; JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_users_parsers() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder =
            OutputFolder::claim(&Path::new(scratch.path()).join("a \"quoted\" folder")).expect("claimed");
        let (agent, model, tools) = ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3");
        recorder::config::Config::parse(&recorder(&folder, "b1", agent, model, tools))
            .expect("a configuration");
        let text = candidate("b1", agent, &format!("{model}/v1"));
        replayer::Candidate::parse(&text, &|_| None).expect("a candidate");
        replayer::FaultRules::parse(FAULTS).expect("fault rules");
        analyzer::Policy::parse(POLICY).expect("a policy");
        schemas::tools::ToolCatalog::parse_json(crate::tool_server::CATALOG).expect("a tool list");
    }
}
