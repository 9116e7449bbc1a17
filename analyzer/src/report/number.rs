//! Numbers as the report prints them.

/// A share in percent with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A whole number with thousands separators.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size in mebibytes or kibibytes.
pub(super) fn bytes(size: usize) -> String {
    if size >= 1 << 20 {
        format!("{}.{} MiB", size >> 20, ((size & 0xf_ffff) * 10) >> 20)
    } else {
        format!("{} KiB", size.div_ceil(1024))
    }
}

/// "1 case", "2 cases".
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A p value: `0.043`, `<0.001`.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

/// Microseconds in milliseconds or seconds.
pub(super) fn duration(micros: u64) -> String {
    if micros < 1_000_000 {
        format!("{} ms", count(micros.div_ceil(1000)))
    } else {
        format!("{}.{} s", count(micros / 1_000_000), micros % 1_000_000 / 100_000)
    }
}

/// Rounded to four decimals; a chart shows no more.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_separators() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!((bytes(1).as_str(), bytes((3 << 20) + (1 << 19)).as_str()), ("1 KiB", "3.5 MiB"));
        assert_eq!(p_value(0.0001), "<0.001");
        assert_eq!(counted(1, "case", "cases"), "1 case");
        assert_eq!(duration(1_250_000), "1.2 s");
    }
}
