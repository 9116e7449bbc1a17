//! The configuration files of the demo. The demo writes them out and reads them with the parsers of a user's files.

use serde_json::json;

use crate::output_folder::OutputFolder;

/// Fault rules of the replays, equal for every build.
pub(crate) const FAULTS: &str = r#"# Faults of a replay. Seed, case and trial decide, so every build gets the same faults.
faults = 1

# One refund in ten is executed, and its response is lost: the agent gets 504 and cannot know the result.
[[fault]]
tool = "issue_refund"
kind = "timeout"
after = "0s"
probability = 0.1
calls = [0]
"#;

/// The policy of the decision, with the default values.
pub(crate) const POLICY: &str = r#"# Requirements for a candidate. Every value here is the default; a key that is left out keeps its default.
policy = 1
alpha = 0.05

[metric.success]          # share of trials with the writes of the recorded session
margin = 0.05

[metric.pass_k]           # share of sessions whose trials all succeed
margin = 0.10
"#;

/// The recorder's configuration: one route per edge of the agent.
pub(crate) fn recorder(folder: &OutputFolder, build: &str, agent: &str, model: &str, tools: &str) -> String {
    let store = quoted(&folder.location("store"));
    let state = quoted(&folder.location("state"));
    let declared = [("find_order", "read"), ("refund_policy", "read"), ("refund_status", "read")]
        .into_iter()
        .chain([("issue_refund", "write"), ("open_ticket", "write")])
        .map(|(tool, effect)| format!("\n[[tool]]\nname = \"{tool}\"\neffect = \"{effect}\"\n"))
        .collect::<String>();
    format!(
        r#"# Configuration of `foreshadow record`: three routes, one per edge of the agent.
# Port 0 binds a free port; at your gateway, write the address that clients use.
agent = "refund-support"
build = {build}
store = {store}
state-dir = {state}

[session]
header = "x-session-id"

# Customers call the agent through this route.
[[route]]
name = "turn"
edge = "turn"
listen = "127.0.0.1:0"
upstream = {agent}
protocol = "generic-json"
input = "/message"
output = "/reply"

# The agent calls its model through this route.
[[route]]
name = "model"
edge = "model"
listen = "127.0.0.1:0"
upstream = {model}
protocol = "openai-chat"

# The agent calls its tools through this route.
[[route]]
name = "tool"
edge = "tool"
listen = "127.0.0.1:0"
upstream = {tools}
protocol = "mcp"

# The owner of a tool declares its effect.
{declared}"#,
        build = quoted(build),
        agent = quoted(agent),
        model = quoted(model),
        tools = quoted(tools),
    )
}

/// The candidate file of a build that runs at `agent`.
pub(crate) fn candidate(build: &str, agent: &str, model: &str) -> String {
    format!(
        r#"# Candidate of `foreshadow replay`: a running service.
candidate = 1
kind = "http"
build = {build}

[http]
url = {url}
body = {{ session = "{{{{session}}}}", message = "{{{{input}}}}" }}
answer = "/reply"
timeout = "60s"

# The world forwards model calls to this server; `identify` adds headers with case, trial and call for a seeded model.
[model]
upstream = {model}
identify = true
"#,
        build = quoted(build),
        url = quoted(&format!("{agent}/chat")),
        model = quoted(model),
    )
}

/// README of the output folder.
pub(crate) fn readme(folder: &OutputFolder) -> String {
    let at = |name: &str| folder.location(name);
    format!(
        r"# A demo of foreshadow

| path | contents |
|---|---|
| `foreshadow.toml` | configuration of the recorder: three routes, for agent, model and tools |
| `tools.json` | tools of the agent with their declared effects |
| `agents/` | three builds of one agent: current, harmless change, regressed change |
| `candidates/` | candidate file of each build for `foreshadow replay` |
| `faults.toml` | fault rules of the replays |
| `policy.toml` | policy of the decisions |
| `store/` | recorded sessions (Parquet) |
| `runs/` | trials of each build |
| `reports/` | a verdict for each change: `report.html`, `summary.md`, `verdict.json`, `junit.xml` |

Try:

    foreshadow sessions list --store {store} --limit 10
    foreshadow sessions show chat-0000 --store {store}
    foreshadow analyze --baseline {baseline} --candidate {regressed} --policy {policy} --out again

The servers of the demo have stopped, so the addresses in these files do not respond any more.
",
        store = at("store"),
        baseline = at("runs/baseline"),
        regressed = at("runs/regressed"),
        policy = at("policy.toml"),
    )
}

/// A text as a TOML basic string; TOML has the escapes of JSON.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_parsers_of_user_files_read_every_file() {
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
