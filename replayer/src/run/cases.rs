//! Prepares the selected sessions as cases: indexes tool calls and compiles input schemas.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jsonschema::Validator;
use schemas::canonical::canonical;
use schemas::equality::ArgumentRules;
use schemas::id::{CaseId, SessionId};
use serde_json::Value;

use crate::corpus::SelectedSession;
use crate::tool_index::ToolIndex;
use crate::world::active_trial::ReplayCase;

/// Prepared cases by id.
pub(super) type Cases = BTreeMap<CaseId, Arc<ReplayCase>>;

/// Prepares sessions, and returns their ids in order with the cases. Equal schemas are compiled once.
pub(super) fn prepare(selected: Vec<SelectedSession>, rules: &ArgumentRules) -> (Vec<SessionId>, Cases) {
    let mut compiled: HashMap<String, Option<Arc<Validator>>> = HashMap::new();
    let mut sessions = Vec::with_capacity(selected.len());
    let mut cases = Cases::new();
    for SelectedSession { session, recording, .. } in selected {
        let mut validators = HashMap::new();
        for (tool, entry) in &recording.tool_list {
            let Some(schema) = entry.get("inputSchema") else { continue };
            let validator =
                compiled.entry(canonical(schema)).or_insert_with(|| compile(tool, schema)).clone();
            validators.extend(validator.map(|validator| (tool.clone(), validator)));
        }
        let tool_index = ToolIndex::new(recording.tool_calls.clone(), &recording.effects, rules.clone());
        cases.insert(recording.case.clone(), Arc::new(ReplayCase { recording, tool_index, validators }));
        sessions.push(session);
    }
    (sessions, cases)
}

fn compile(tool: &str, schema: &Value) -> Option<Arc<Validator>> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => Some(Arc::new(validator)),
        Err(error) => {
            tracing::warn!(tool, %error, "invalid input schema: arguments of the tool are not validated");
            None
        }
    }
}
