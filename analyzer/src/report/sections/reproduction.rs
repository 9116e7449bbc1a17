//! Policy, seed and command lines that reproduce the verdict.

use serde::Serialize;

use crate::invariants::Hider;
use crate::policy::Policy;
use crate::report::escape;
use crate::report::input::ReportMeta;
use crate::verdict::Verdict;

#[derive(Debug, Serialize)]
pub(in crate::report) struct ReproductionSection {
    commands: Vec<String>,
    /// Digests, seed and names: label and value.
    identity: Vec<[String; 2]>,
    /// The policy as JSON, defaults included.
    policy: String,
}

pub(in crate::report) fn reproduction(
    verdict: &Verdict,
    policy: &Policy,
    meta: &ReportMeta,
) -> ReproductionSection {
    let hider = Hider::new(&policy.invariant);
    let mut policy =
        serde_json::to_string_pretty(policy).expect("a policy holds only finite numbers and text keys");
    // Forbidden literals are the texts that must not be seen.
    hider.iter().for_each(|hider| hider.hide(&mut policy));
    ReproductionSection {
        commands: meta.commands.iter().map(|command| escape::visible(command)).collect(),
        identity: identity(verdict),
        policy: escape::visible_lines(&policy),
    }
}

fn identity(verdict: &Verdict) -> Vec<[String; 2]> {
    let entry = |name: &str, value: &str| [name.to_owned(), escape::name(value)];
    vec![
        entry("Policy digest", &verdict.policy_digest),
        entry("Corpus digest", &verdict.corpus_digest),
        entry("Seed", &verdict.seed.to_string()),
        entry("Significance level (alpha)", &verdict.monitoring.alpha.to_string()),
        entry("Looks", &verdict.looks.to_string()),
        entry("Baseline run", &verdict.baseline.run),
        entry("Baseline build", &verdict.baseline.build),
        entry("Candidate run", &verdict.candidate.run),
        entry("Candidate build", &verdict.candidate.build),
        entry("Version", &format!("foreshadow {}", verdict.tool_version)),
    ]
}
