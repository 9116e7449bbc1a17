//! Share of trials that the model provider or the infrastructure failed.
//!
//! Such trials are missing, and the bounds count them both ways. Beyond a share the rest is no longer a sample of the
//! planned trials: a provider fails more often on long sessions, for instance.

use crate::pairs::{Arm, Pairs};
use crate::policy::Policy;

/// Lanes that lost more trials than the policy allows, in words.
pub(crate) fn judge(policy: &Policy, pairs: &Pairs<'_>) -> Vec<String> {
    let baseline: Vec<&Arm<'_>> = pairs.cases.iter().map(|case| &case.baseline).collect();
    let candidate: Vec<&Arm<'_>> = pairs.cases.iter().map(|case| &case.candidate).collect();
    [judge_lane(policy, "baseline", &baseline), judge_lane(policy, "candidate", &candidate)]
        .into_iter()
        .flatten()
        .collect()
}

fn judge_lane(policy: &Policy, lane: &str, arms: &[&Arm<'_>]) -> Option<String> {
    let count = |of: &dyn Fn(&Arm<'_>) -> usize| arms.iter().map(|arm| of(arm)).sum::<usize>();
    let total = count(&|arm| arm.present());
    let lost = count(&|arm| arm.lost.len());
    let by_provider =
        count(&|arm| arm.lost.iter().filter(|record| record.trial.provider_failures > Some(0)).count());
    let share = crate::stats::variance::float(lost) / crate::stats::variance::float(total.max(1));
    let allowed = policy.fidelity.max_provider_failures;
    (share > allowed).then(|| {
        let provider = match by_provider {
            0 => String::new(),
            number => format!(", {number} of them by the model provider"),
        };
        format!(
            "the infrastructure failed {lost} of {total} trials of the {lane} ({:.1} %{provider}); the policy allows {:.1} % \
             (fidelity.max-provider-failures); run these trials again with --resume",
            100.0 * share,
            100.0 * allowed
        )
    })
}
