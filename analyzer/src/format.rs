//! Formats numbers and verdicts, the same in the terminal, the summary and the report.

use crate::verdict::{MetricResult, MetricState, Unit};

/// Formats an effect: points for shares, a factor for times, tokens and money.
pub(crate) fn effect(unit: Unit, effect: f64) -> String {
    match unit {
        Unit::Share => format!("{} points", signed(format!("{:+.1}", 100.0 * effect))),
        Unit::Distance => signed(format!("{effect:+.3}")),
        Unit::Seconds | Unit::Tokens | Unit::Usd => format!("x{:.2}", (-effect * 4.0_f64.ln()).exp()),
        Unit::UsdMean => format!("x{:.2}", (1.0 - effect).max(0.0)),
    }
}

/// Drops the sign of a zero.
fn signed(number: String) -> String {
    if number.chars().any(|c| matches!(c, '1'..='9')) { number } else { number[1..].to_owned() }
}

/// Formats a margin.
pub(crate) fn size(unit: Unit, margin: f64) -> String {
    match unit {
        Unit::Share => format!("{:.1} points", 100.0 * margin),
        Unit::Distance => format!("{margin:.3}"),
        Unit::Seconds | Unit::Tokens | Unit::Usd => format!("x{:.2}", (margin * 4.0_f64.ln()).exp()),
        Unit::UsdMean => format!("x{:.2}", 1.0 + margin),
    }
}

/// Formats a lane's value in its unit.
pub(crate) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Share => format!("{:.1} %", 100.0 * value),
        Unit::Distance => format!("{value:.3}"),
        Unit::Seconds if value < 1.0 => format!("{:.0} ms", 1000.0 * value),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Tokens => format!("{value:.0} tokens"),
        Unit::Usd | Unit::UsdMean => format!("${value:.4}"),
    }
}

/// Formats both bounds of an effect; the unit stands once.
pub(crate) fn bounds(unit: Unit, interval: [f64; 2]) -> String {
    let [low, high] = interval.map(|bound| effect(unit, bound));
    format!("{} to {high}", low.strip_suffix(" points").unwrap_or(&low))
}

/// Formats a p-value, as `0.043` or `2.5e-4`. Digits of smaller values mean nothing to a reader: `< 1e-6`.
pub(crate) fn p_value(p: f64) -> String {
    if p < 1e-6 {
        "< 1e-6".to_owned()
    } else if p < 0.001 {
        format!("{p:.1e}")
    } else {
        format!("{p:.3}")
    }
}

/// Formats the effect of a metric: `-4.0 points`, `x1.07`.
#[must_use]
pub fn format_effect(metric: &MetricResult) -> String {
    effect(metric.unit, metric.effect)
}

/// Formats a metric as table cells: baseline, candidate, effect, bounds, margin, state.
#[must_use]
pub fn metric_cells(metric: &MetricResult) -> [String; 6] {
    let of = |number| effect(metric.unit, number);
    let state = match metric.state {
        MetricState::NonInferior => "not worse than tolerated",
        MetricState::Deteriorated => "worse",
        MetricState::DeterioratedWithinMargin => "worse, within the margin",
        MetricState::Undecided => "undecided",
    };
    [
        value(metric.unit, metric.baseline),
        value(metric.unit, metric.candidate),
        of(metric.effect),
        bounds(metric.unit, metric.interval),
        of(-metric.margin),
        state.to_owned(),
    ]
}

/// Escapes the control characters of a text from a session, so that it is safe on a terminal.
#[must_use]
pub fn escape_control(text: &str) -> String {
    let unsafe_char =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if unsafe_char(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_said_in_their_unit() {
        assert_eq!(effect(Unit::Share, -0.04), "-4.0 points");
        assert_eq!(effect(Unit::Share, -0.000_01), "0.0 points");
        // A slowdown by a tenth is worse, so the effect is below zero.
        assert_eq!(effect(Unit::Seconds, -(1.1_f64.ln() / 4.0_f64.ln())), "x1.10");
        assert_eq!(value(Unit::Seconds, 0.25), "250 ms");
    }

    #[test]
    fn small_p_values_claim_no_digits() {
        assert_eq!(
            [0.0, 5.6e-49, 2.54e-4, 0.0427, 1.0].map(p_value),
            ["< 1e-6", "< 1e-6", "2.5e-4", "0.043", "1.000"]
        );
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        assert_eq!(escape_control("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\\u{a}b\\u{202e}");
    }
}
