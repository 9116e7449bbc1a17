//! Sample size that approval of a build like the candidate would need (DECISION 1.6).
//!
//! A normal approximation gives the first guess. The forecast corrects it: it adds cases from populations that the
//! observed ones allow, and runs the real tests of all metrics together. The observed cases stay as they are.

use crate::decide::Tests;
use crate::metrics::Measured;
use crate::policy::NeedPolicy;
use crate::stats::normal;
use crate::stats::stream::StreamKey;
use crate::stats::variance::float;
use crate::verdict::{Need, NeedAdvice, NeedOption, NeedRow};

mod forecast;
mod null;
mod search;

use forecast::{Forecast, Planned, relevant};
use search::{MOST_CASES, POWER, search};

pub(crate) use null::{NullMetric, Power};

/// Below this probability of approval with any number of cases, none is proposed.
const LEAST_LIMIT: f64 = 0.50;

/// Share of the largest possible probability of approval that is planned where that probability is below [`POWER`].
const PART_OF_LIMIT: f64 = 0.90;

/// Repetitions of the forecast of a verdict.
const REPETITIONS: u32 = 400;

/// Numbers of trials per case offered as alternatives.
const OFFERED_TRIALS: [u32; 4] = [1, 2, 4, 8];

/// Largest number of trials per case proposed.
const MOST_TRIALS: f64 = 16.0;

/// Fractions of the needed cases shown in the table.
const SHOWN_PARTS: [f64; 4] = [0.25, 0.5, 1.0, 1.5];

/// Facts about the runs and the corpus that the planner uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supply {
    /// Mean number of trials per case and lane.
    pub(crate) trials: f64,
    /// Number of cases in the runs.
    pub(crate) have: u64,
    /// Number of cases available in all, if known.
    pub(crate) corpus: Option<u64>,
    /// Mean cost of a trial, US dollars, if known.
    pub(crate) trial_usd: Option<f64>,
    /// Relative costs of sessions and trials.
    pub(crate) costs: NeedPolicy,
}

/// Plans for the required metrics.
pub(crate) fn plan(metrics: &[Measured], tests: &Tests<'_>, supply: &Supply) -> Need {
    let trials = crate::cast::round(supply.trials).max(1);
    let planned: Vec<Planned> =
        relevant(metrics).map(|metric| Planned::new(metric, tests, supply.trials, supply.have)).collect();
    if !planned.iter().any(|metric| metric.required) {
        return Need { detail: "no required metric could be computed".to_owned(), ..Need::default() };
    }
    if relevant(metrics).any(|metric| metric.required && metric.correction.is_some()) {
        let detail = "labels limit this verdict, because a judge's scores decide only as far as labels correct them: label more \
                      cases in both lanes";
        return Need { trials, detail: detail.to_owned(), ..Need::default() };
    }
    let key = StreamKey::new(tests.seed, "need");
    let forecast = Forecast { planned, tests, key, repetitions: REPETITIONS };
    let limit = forecast.limit();
    if limit.approve < LEAST_LIMIT {
        let detail = format!(
            "not reachable: with any number of cases of this kind, approval has a probability of {:.2} and a block of {:.2}, as \
             far as these cases tell",
            limit.approve, limit.block
        );
        return Need { trials, limit_approve: limit.approve, detail, ..Need::default() };
    }
    let guess = first_guess(&forecast, supply);
    let power = POWER.min(PART_OF_LIMIT * limit.approve);
    let chance = |extra| forecast.predicted(extra, None).approve;
    let Some((extra, predicted_approve)) = search(guess, power, chance) else {
        let detail = format!("not reachable: more than {MOST_CASES} cases of this kind would be needed");
        return Need { trials, limit_approve: limit.approve, detail, ..Need::default() };
    };
    let predicted_block = forecast.predicted(extra, None).block;
    let cases = supply.have + extra;
    let advice = advice(&forecast.planned, supply.trials);
    let best_trials = best_trials(&forecast, metrics, supply);
    let reachable = supply.corpus.is_none_or(|corpus| cases <= corpus);
    let need = Need {
        cases,
        trials,
        predicted_approve,
        predicted_block,
        limit_approve: limit.approve,
        reachable,
        options: options(&forecast, cases, supply),
        table: table(&forecast, extra, trials, best_trials, supply),
        best_trials,
        advice,
        detail: String::new(),
    };
    Need { detail: in_words(&need, supply), ..need }
}

/// Need of a verdict that another reason than the sample size keeps from approval.
pub(crate) fn without_forecast() -> Need {
    let detail = "more sessions of this kind do not help as long as the other reasons of this verdict stand";
    Need { detail: detail.to_owned(), ..Need::default() }
}

fn in_words(need: &Need, supply: &Supply) -> String {
    let Need { cases, trials, predicted_approve, predicted_block, .. } = need;
    let what = match need.advice {
        Some(NeedAdvice::AddSessions) => {
            "; add sessions, not trials: most of the variance is between sessions"
        }
        Some(NeedAdvice::AddSessionsOrTrials) => "; more trials of each case help too",
        None => "",
    };
    let way = match supply.corpus {
        Some(corpus) if *cases > corpus => format!("not reachable with the corpus of {corpus} sessions: "),
        Some(_) | None => String::new(),
    };
    format!(
        "{way}about {cases} cases with {trials} trial(s) each per lane (now {}) approve with probability \
         {predicted_approve:.2} and block with {predicted_block:.2}, over all effects that the cases so far allow{what}",
        supply.have
    )
}

/// Cases to add by the normal approximation.
fn first_guess(forecast: &Forecast<'_>, supply: &Supply) -> u64 {
    let z = z(forecast);
    let of = |metric: &Planned| metric.guess(z, metric.variance) / metric.share.max(1e-9);
    let cases = crate::cast::round(forecast.required().map(of).fold(1.0, f64::max));
    cases.saturating_sub(supply.have).clamp(1, MOST_CASES)
}

/// Metric that needs most cases.
fn hardest(planned: &[Planned]) -> Option<&Planned> {
    let cases = |metric: &Planned| metric.guess(1.0, metric.variance);
    let known = planned.iter().filter(|metric| metric.required && metric.components.is_some());
    known.max_by(|a, b| cases(a).total_cmp(&cases(b)))
}

fn advice(planned: &[Planned], trials: f64) -> Option<NeedAdvice> {
    let parts = hardest(planned)?.components?;
    let most_between = parts.between > 0.5 * parts.at(trials);
    Some(if most_between { NeedAdvice::AddSessions } else { NeedAdvice::AddSessionsOrTrials })
}

/// Cost-optimal trials per case, K = sqrt(c(session) (w(c) + w(b)) / (2 c(trial) tau2)), at most the number that
/// reduces the cases to the floor.
fn best_trials(forecast: &Forecast<'_>, metrics: &[Measured], supply: &Supply) -> Option<u64> {
    let metric = hardest(&forecast.planned)?;
    let parts = metric.components?;
    let NeedPolicy { session_cost, trial_cost } = supply.costs;
    let free = (session_cost * parts.within / (2.0 * trial_cost * parts.between.max(1e-9))).sqrt();
    let z = z(forecast);
    let floor = crate::cast::to_f64(metric.floor);
    let enough =
        (1..=16_u32).map(f64::from).find(|trials| metric.guess(z, metric.variance_at(*trials)) <= floor);
    let least =
        relevant(metrics).filter(|metric| metric.required).map(|metric| metric.least).max().unwrap_or(1);
    let best = free.min(enough.unwrap_or(MOST_TRIALS)).clamp(1.0, MOST_TRIALS);
    Some(crate::cast::round(best).max(crate::cast::to_u64(least)))
}

fn z(forecast: &Forecast<'_>) -> f64 {
    // Each approve test runs at alpha, so power is planned at beta / J.
    normal::quantile(1.0 - forecast.tests.alpha)
        + normal::quantile(1.0 - (1.0 - POWER) / float(forecast.required().count().max(1)))
}

/// Cases in all for other numbers of trials, if the runs show how much variance trials remove.
fn options(forecast: &Forecast<'_>, cases: u64, supply: &Supply) -> Vec<NeedOption> {
    let planned: Vec<&Planned> = forecast.required().collect();
    if planned.iter().all(|metric| metric.components.is_none()) {
        return Vec::new();
    }
    let z = z(forecast);
    let guess = |trials: f64| {
        planned.iter().map(|metric| metric.guess(z, metric.variance_at(trials))).fold(1.0, f64::max)
    };
    let floor = planned.iter().map(|metric| metric.floor).max().unwrap_or(1);
    let correction = crate::cast::to_f64(cases) / guess(supply.trials);
    let of = |trials: u32| {
        let cases = crate::cast::round(guess(f64::from(trials)) * correction).max(floor);
        NeedOption { trials: trials.into(), cases, trials_total: 2 * cases * u64::from(trials) }
    };
    OFFERED_TRIALS.into_iter().map(of).collect()
}

fn table(
    forecast: &Forecast<'_>,
    extra: u64,
    trials: u64,
    best: Option<u64>,
    supply: &Supply,
) -> Vec<NeedRow> {
    let known = forecast.planned.iter().any(|metric| metric.components.is_some());
    let mut offered = vec![trials];
    if known {
        offered.extend([2 * trials, best.unwrap_or(trials)]);
    }
    offered.sort_unstable();
    offered.dedup();
    let mut rows = Vec::new();
    for trials_each in offered {
        for part in SHOWN_PARTS {
            let extra_cases = crate::cast::round((part * crate::cast::to_f64(extra)).ceil()).max(1);
            let at = (trials_each != trials).then(|| crate::cast::to_f64(trials_each));
            let trials_added = 2 * extra_cases * trials_each;
            let chances = forecast.predicted(extra_cases, at);
            rows.push(NeedRow {
                extra_cases,
                cases: supply.have + extra_cases,
                trials: trials_each,
                predicted_approve: chances.approve,
                predicted_block: chances.block,
                trials_added,
                cost_usd: supply.trial_usd.map(|usd| usd * crate::cast::to_f64(trials_added)),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::variance::Components;

    #[test]
    fn the_search_finds_the_least_number() {
        let chance = |cases: u64| if cases >= 500 { 0.9 } else { 0.1 };
        let (cases, reached) = search(700, POWER, chance).expect("reachable");
        assert!((500..=515).contains(&cases), "{cases}");
        assert!(reached > 0.8);
        assert!((500..=515).contains(&search(100, POWER, chance).expect("reachable").0));
        assert_eq!(search(100, POWER, |_| 0.0), None);
        assert_eq!(search(1, POWER, |_| 1.0), Some((1, 1.0)));
    }

    #[test]
    fn the_guess_is_the_formula_of_the_design() {
        // alpha .05, power .80, margin .05, variance .005 between and .045 within in both arms: K = 1 needs 235, K = 4
        // 69.
        let parts = Components { between: 0.005, within: 0.09 };
        let z = normal::quantile(0.95) + normal::quantile(0.80);
        let metric = Planned::made_up(vec![0.0; 100], 0.05, parts, 4.0);
        assert_eq!(crate::cast::round(metric.guess(z, parts.at(1.0)).ceil()), 235);
        assert_eq!(crate::cast::round(metric.guess(z, parts.at(4.0)).ceil()), 69);
        assert!(
            (metric.variance_at(1.0) / metric.variance_at(4.0) - parts.at(1.0) / parts.at(4.0)).abs() < 1e-9
        );
    }
}
