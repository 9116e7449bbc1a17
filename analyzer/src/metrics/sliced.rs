//! Metrics restricted to the slices that the policy declares: the same contrasts, of fewer cases.

use crate::metrics::{Bounds, CaseTable, Measured, Setting, SliceOf};

/// Metrics of every declared slice, by slice and then in the policy's order.
pub(crate) fn measure(setting: Setting<'_>, metrics: &[Measured]) -> Vec<Measured> {
    let mut sliced = Vec::new();
    for (name, slice) in &setting.policy.slice {
        let is_inside: Vec<bool> = setting
            .pairs
            .cases
            .iter()
            .map(|case| {
                slice
                    .criteria
                    .iter()
                    .all(|(key, value)| case.slices.get(key.as_str()) == Some(&value.as_str()))
            })
            .collect();
        for wanted in &slice.metrics {
            let Some(metric) = metrics.iter().find(|metric| metric.name == *wanted) else { continue };
            let mut restricted = restrict(metric, &is_inside);
            restricted.name = format!("slice.{name}.{wanted}");
            (restricted.decides, restricted.required) = (slice.critical, slice.required);
            restricted.slice = Some(SliceOf { name: name.clone(), metric: wanted.clone() });
            sliced.push(restricted);
        }
    }
    sliced
}

fn restrict(metric: &Measured, is_inside: &[bool]) -> Measured {
    // The slice of a planned case without trials is unknown; these cases have the last index and are outside.
    let inside = |table: &&CaseTable| is_inside.get(table.place).copied().unwrap_or(false);
    let of = |tables: &[CaseTable]| tables.iter().filter(inside).cloned().collect::<Vec<_>>();
    let arms = metric.arms.as_ref().map(|arms| {
        let all = arms.iter().zip(&metric.observed);
        all.filter(|(_, table)| inside(table)).map(|(arms, _)| arms.clone()).collect()
    });
    Measured {
        observed: of(&metric.observed),
        bounds: metric
            .bounds
            .as_ref()
            .map(|bounds| Bounds { worst: of(&bounds.worst), best: of(&bounds.best) }),
        arms,
        clipped: 0,
        left_out: 0,
        ..metric.clone()
    }
}
