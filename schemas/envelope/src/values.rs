//! The values of a call's arguments that a bound compares.

use schemas::canonical::canonical;
use serde_json::Value;

use crate::call::{Violation, ViolationKind, short, violation};
use crate::decimal::Decimal;
use crate::pointer::Pointer;
use crate::policy::Bound;

/// Adds the values to the sum; negative values count as 0.
pub(crate) fn added(sum: Decimal, values: &[(String, Decimal)]) -> Option<Decimal> {
    let taken = values.iter().map(|(_, number)| *number).filter(|number| !number.is_negative());
    let mut sum = sum;
    for number in taken {
        sum = sum.plus(number)?;
    }
    Some(sum)
}

/// The key that a uniqueness rule compares; `None` if an optional argument is absent.
pub(crate) fn key(bound: &Bound, args: &[Pointer], arguments: &Value) -> Result<Option<String>, Violation> {
    let mut parts = Vec::with_capacity(args.len());
    for arg in args {
        match resolve(bound, arg, arguments, ViolationKind::Sequence) {
            Ok(values) => parts.extend(values.into_iter().map(|(_, value)| canonical(value))),
            Err(Some(missing)) => return Err(missing),
            Err(None) => return Ok(None),
        }
    }
    Ok(Some(parts.join(",")))
}

/// The values at a pointer. `Err(None)` if an optional one is absent, `Err(Some)` if a required one is.
pub(crate) fn resolve<'v>(
    bound: &Bound,
    arg: &Pointer,
    arguments: &'v Value,
    kind: ViolationKind,
) -> Result<Vec<(String, &'v Value)>, Option<Violation>> {
    arg.resolve(arguments).map_err(|absent| {
        let broken = || violation(&bound.id, kind, &absent.pointer, "a value", "absent".to_owned());
        (!bound.optional).then(broken)
    })
}

/// The numbers at a pointer.
pub(crate) fn numbers(
    bound: &Bound,
    arg: &Pointer,
    arguments: &Value,
    kind: ViolationKind,
) -> Result<Vec<(String, Decimal)>, Option<Violation>> {
    let mut numbers = Vec::new();
    for (at, value) in resolve(bound, arg, arguments, kind)? {
        match value.as_number().and_then(Decimal::of) {
            Some(number) => numbers.push((at, number)),
            None => {
                let expected = "a number whose absolute value is below 10^24";
                return Err(Some(violation(&bound.id, kind, &at, expected, short(&canonical(value)))));
            }
        }
    }
    Ok(numbers)
}
