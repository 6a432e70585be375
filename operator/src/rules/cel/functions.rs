//! The functions an expression may call, none of which can exhaust the process.
//!
//! They are CEL's standard library and its strings extension. A function whose cost is not in
//! proportion to its arguments is replaced by one that pays first ([`crate::rules::cel::strings`]): declared
//! before the library, with parameters of any type, an overload of ours is found before the
//! library's. Names that begin with `@` are called by rewritten expressions only
//! ([`crate::rules::cel::instrument`]): a user cannot write them.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::functions::Function;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelString, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::cost::{COST_OF_MAKING, LONGEST_LIST, charge, kinds, limit_error, size};
use super::number::Decimal;
use super::strings;

/// Pays for a value that an expression uses, and hands it on.
pub(crate) const CHARGE_USE: &str = "@use";
/// What a macro goes through: a list that is not too long, or a map's keys in order. Pays for going
/// through it, at so much for each element.
pub(crate) const RANGE: &str = "@range";
/// Whether a macro goes on, as it says itself, unless there is nothing left to pay with.
pub(crate) const CHARGE_ITERATION: &str = "@on";

/// Pays for what a function of the library gives, at so much for each byte, and hands it on.
pub(crate) const RESULT: &str = "@result_of";

/// Those functions, and what a byte costs: what one gives may be handed to the next, and quoting, or
/// writing as hex, doubles a text.
#[rustfmt::skip]
const RESULTS_TO_PAY: [(&str, usize); 9] = [
    ("bytes", COST_OF_MAKING), ("format", 16 * COST_OF_MAKING), ("lowerAscii", COST_OF_MAKING),
    ("quote", COST_OF_MAKING), ("reverse", COST_OF_MAKING), ("string", COST_OF_MAKING),
    ("substring", COST_OF_MAKING), ("trim", COST_OF_MAKING), ("upperAscii", COST_OF_MAKING),
];

/// What each byte costs of what a function gives, if that is to be paid for.
pub(crate) fn cost_of_result(function: &str) -> Option<usize> {
    RESULTS_TO_PAY.iter().find(|(name, _)| *name == function).map(|(_, cost)| *cost)
}

/// Every function by the name a user calls it.
#[rustfmt::skip]
pub(crate) const FUNCTIONS: [&str; 33] = [
    "bool", "bytes", "charAt", "contains", "double", "dyn", "endsWith", "format", "hasValue",
    "indexOf", "int", "join", "lastIndexOf", "lowerAscii", "matches", "optional.none",
    "optional.of", "optional.ofNonZeroValue", "or", "orValue", "replace", "reverse", "size",
    "split", "startsWith", "string", "strings.quote", "substring", "trim", "type", "uint",
    "upperAscii", "value",
];

/// Operators by our own name: comparisons that know a decimal on either side, and an addition
/// that does not take a map, whose keys have no order, for a list.
const OPERATORS: [(&str, Function); 7] = [
    ("@_+_", add),
    ("@_==_", |sides| Ok(boolean(equal(&sides)?))),
    ("@_!=_", |sides| Ok(boolean(!equal(&sides)?))),
    ("@_<_", |sides| Ok(boolean(order("_<_", &sides)?.is_lt()))),
    ("@_<=_", |sides| Ok(boolean(order("_<=_", &sides)?.is_le()))),
    ("@_>_", |sides| Ok(boolean(order("_>_", &sides)?.is_gt()))),
    ("@_>=_", |sides| Ok(boolean(order("_>=_", &sides)?.is_ge()))),
];

/// The name of ours for an operator that we replace.
pub(crate) fn replacement(operator: &str) -> Option<&'static str> {
    OPERATORS.iter().map(|(name, _)| *name).find(|name| name.strip_prefix('@') == Some(operator))
}

/// The environment of every expression, built once. An error would be a mistake in this file.
pub(crate) fn environment() -> Result<Arc<Env>, DeclarationError> {
    static SHARED: LazyLock<Result<Arc<Env>, DeclarationError>> =
        LazyLock::new(|| build().map(Arc::new));
    SHARED.clone()
}

fn build() -> Result<Env, DeclarationError> {
    let mut env = Env::default();
    env.add_overload(CHARGE_USE, CHARGE_USE, vec![DYN_TYPE], charge_use)?;
    env.add_overload(RESULT, RESULT, vec![DYN_TYPE, DYN_TYPE], use_result)?;
    env.add_overload(RANGE, RANGE, vec![DYN_TYPE, DYN_TYPE], range)?;
    env.add_overload(CHARGE_ITERATION, CHARGE_ITERATION, vec![DYN_TYPE], charge_iteration)?;
    for (name, function) in OPERATORS {
        env.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], function)?;
    }
    strings::declare(&mut env)?;
    let mut env = env.with_stdlib();
    env.add_extension(cel::extensions::strings)?;
    let decimal = || <Decimal as Val>::cel_type().to_owned();
    env.add_type(decimal())?;
    env.add_overload("string", "decimal_to_string", vec![decimal()], decimal_to_string)?;
    env.add_overload("double", "decimal_to_double", vec![decimal()], decimal_to_double)?;
    Ok(env)
}

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn charge_use<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()))?;
    Ok(value)
}

fn use_result<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let cost = cost(&mut arguments);
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()).saturating_mul(cost))?;
    Ok(value)
}

/// The last argument, where [`crate::rules::cel::instrument`] has put a cost.
fn cost(arguments: &mut Arguments) -> usize {
    let cost = arguments.pop().and_then(|cost| {
        let cost = cost.downcast_ref::<CelInt>()?;
        usize::try_from(*cost.inner()).ok()
    });
    cost.unwrap_or(usize::MAX)
}

fn charge_iteration<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    charge(1)?;
    arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

fn range<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let steps = cost(&mut arguments);
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()))?;
    let length = if let Some(list) = value.downcast_ref::<CelList>() {
        list.len()
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.len()
    } else {
        let kind = value.get_type().name();
        return Err(limit_error(&format!(
            "a macro goes through a list or a map, not through a {kind}"
        )));
    };
    if length > LONGEST_LIST {
        return Err(limit_error(&format!("a macro goes through at most {LONGEST_LIST} elements")));
    }
    charge(length.saturating_mul(steps))?;
    let Some(map) = value.downcast_ref::<CelMap>() else {
        return Ok(value);
    };
    let mut keys: Vec<_> = map.keys().cloned().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'v>> =
        keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn add<'b, 'v>(sides: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let [left, right] = sides.as_slice() else {
        return Err(ExecutionError::invalid_argument_count(2, sides.len()));
    };
    let is_map = right.downcast_ref::<CelMap>().is_some();
    let sum = match left.as_adder() {
        Some(left) if !is_map => left.add(right.as_ref()),
        _ => Err(ExecutionError::no_such_overload("_+_", kinds(&sides))),
    };
    match sum {
        Ok(sum) => Ok(CowVal::Owned(sum.into_owned())),
        Err(ExecutionError::UnsupportedBinaryOperator(..)) => {
            Err(ExecutionError::no_such_overload("_+_", kinds(&sides)))
        }
        Err(error) => Err(error),
    }
}

fn boolean<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(value))
}

fn equal(sides: &[CowVal]) -> Result<bool, ExecutionError> {
    let [left, right] = sides else {
        return Err(ExecutionError::invalid_argument_count(2, sides.len()));
    };
    match right.downcast_ref::<Decimal>() {
        Some(decimal) => Ok(decimal.equals(left.as_ref())),
        None => Ok(left.equals(right.as_ref())),
    }
}

fn order(operator: &str, sides: &[CowVal]) -> Result<Ordering, ExecutionError> {
    let [left, right] = sides else {
        return Err(ExecutionError::invalid_argument_count(2, sides.len()));
    };
    let order = match right.downcast_ref::<Decimal>() {
        Some(decimal) => decimal.order(left.as_ref()).map(Ordering::reverse),
        None => left.as_comparer().and_then(|left| left.compare(right.as_ref()).ok()),
    };
    order.ok_or_else(|| ExecutionError::no_such_overload(operator, kinds(sides)))
}

fn decimal_to_string<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelString::from(decimal("string", &arguments)?.text().to_owned())))
}

fn decimal_to_double<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelDouble::from(decimal("double", &arguments)?.to_double())))
}

fn decimal<'a>(name: &str, arguments: &'a [CowVal]) -> Result<&'a Decimal, ExecutionError> {
    let decimal = arguments.first().and_then(|argument| argument.downcast_ref::<Decimal>());
    decimal.ok_or_else(|| ExecutionError::no_such_overload(name, kinds(arguments)))
}

#[cfg(test)]
mod tests {
    use cel::parser::PrattParser;
    use cel::{Context, Value};

    use super::*;

    #[test]
    fn every_function_named_here_exists() {
        let context = Context::with_env(environment().unwrap());
        for name in FUNCTIONS {
            let called = |source: String| {
                let tree = PrattParser::new().parse(&source).unwrap();
                !matches!(
                    Value::resolve_val(&tree, &context),
                    Err(ExecutionError::UndeclaredReference(_))
                )
            };
            assert!(
                called(format!("{name}(1, 2, 3, 4)")) || called(format!("(1).{name}(2, 3, 4)")),
                "{name}"
            );
        }
    }
}
