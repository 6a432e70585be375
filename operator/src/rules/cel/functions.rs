//! Functions that an expression can call. Their cost is bounded by [`super::cost`].
//!
//! They are CEL's standard library and its strings extension. A function whose cost is not
//! proportional to its arguments is replaced by one that charges the budget first
//! ([`super::strings`]). Replacements are declared before the library with parameters of any type,
//! because cel uses the first overload that matches. A user cannot write a name that begins with
//! `@`. [`super::instrument`] inserts these calls.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::functions::Function;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelString, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::cost::{
    COST_PER_CREATED_BYTE, MAX_MACRO_ELEMENTS, charge, limit_error, size, type_names,
};
use super::number::Decimal;
use super::strings::{self, Arguments, CallResult};

/// Charges the use of a value, and returns the value.
pub(crate) const CHARGE_USE: &str = "@charge_use";
/// Checks and charges the range of a macro: a list of bounded length, or the sorted keys of a map.
/// The second argument is the cost of each element.
pub(crate) const CHECK_RANGE: &str = "@check_range";
/// Charges one iteration of a macro, and returns the macro's own loop condition. It fails once the
/// budget is exhausted.
pub(crate) const CHARGE_ITERATION: &str = "@charge_iteration";
/// Charges the result of a library function, and returns it. The second argument is the cost of
/// each byte.
pub(crate) const CHARGE_RESULT: &str = "@charge_result";

/// Functions whose results are charged, with the cost of each byte. Calls can be nested, and
/// `quote` or `%x` doubles the length of a text each time.
#[rustfmt::skip]
const CHARGED_FUNCTIONS: [(&str, usize); 9] = [
    ("bytes", COST_PER_CREATED_BYTE), ("format", 16 * COST_PER_CREATED_BYTE),
    ("lowerAscii", COST_PER_CREATED_BYTE), ("quote", COST_PER_CREATED_BYTE),
    ("reverse", COST_PER_CREATED_BYTE), ("string", COST_PER_CREATED_BYTE),
    ("substring", COST_PER_CREATED_BYTE), ("trim", COST_PER_CREATED_BYTE),
    ("upperAscii", COST_PER_CREATED_BYTE),
];

/// The cost of each byte of a function's result, if the result is charged.
pub(crate) fn result_cost_per_byte(function: &str) -> Option<usize> {
    CHARGED_FUNCTIONS.iter().find(|(name, _)| *name == function).map(|(_, cost)| *cost)
}

/// Every function, by the name that a user writes.
#[rustfmt::skip]
pub(crate) const FUNCTIONS: [&str; 33] = [
    "bool", "bytes", "charAt", "contains", "double", "dyn", "endsWith", "format", "hasValue",
    "indexOf", "int", "join", "lastIndexOf", "lowerAscii", "matches", "optional.none",
    "optional.of", "optional.ofNonZeroValue", "or", "orValue", "replace", "reverse", "size",
    "split", "startsWith", "string", "strings.quote", "substring", "trim", "type", "uint",
    "upperAscii", "value",
];

/// Replaced operators. The comparisons accept a decimal on either side. The addition rejects a map,
/// which cel would append to a list in random order.
const REPLACED_OPERATORS: [(&str, Function); 7] = [
    ("@_+_", add),
    ("@_==_", |sides| Ok(boolean(equal(&sides)?))),
    ("@_!=_", |sides| Ok(boolean(!equal(&sides)?))),
    ("@_<_", |sides| Ok(boolean(order("_<_", &sides)?.is_lt()))),
    ("@_<=_", |sides| Ok(boolean(order("_<=_", &sides)?.is_le()))),
    ("@_>_", |sides| Ok(boolean(order("_>_", &sides)?.is_gt()))),
    ("@_>=_", |sides| Ok(boolean(order("_>=_", &sides)?.is_ge()))),
];

/// The replacement of an operator, if it has one.
pub(crate) fn replacement(operator: &str) -> Option<&'static str> {
    let mut names = REPLACED_OPERATORS.iter().map(|(name, _)| *name);
    names.find(|name| name.strip_prefix('@') == Some(operator))
}

/// The environment of every expression, built once. An error is a bug in this module.
pub(crate) fn environment() -> Result<Arc<Env>, DeclarationError> {
    static ENVIRONMENT: LazyLock<Result<Arc<Env>, DeclarationError>> =
        LazyLock::new(|| build_environment().map(Arc::new));
    ENVIRONMENT.clone()
}

fn build_environment() -> Result<Env, DeclarationError> {
    let mut env = Env::default();
    env.add_overload(CHARGE_USE, CHARGE_USE, vec![DYN_TYPE], charge_use)?;
    env.add_overload(CHARGE_RESULT, CHARGE_RESULT, vec![DYN_TYPE, DYN_TYPE], charge_result)?;
    env.add_overload(CHECK_RANGE, CHECK_RANGE, vec![DYN_TYPE, DYN_TYPE], check_range)?;
    env.add_overload(CHARGE_ITERATION, CHARGE_ITERATION, vec![DYN_TYPE], charge_iteration)?;
    for (name, function) in REPLACED_OPERATORS {
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

fn charge_use<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()))?;
    Ok(value)
}

fn charge_result<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let cost_per_byte = pop_cost(&mut arguments);
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()).saturating_mul(cost_per_byte))?;
    Ok(value)
}

/// Removes the last argument, which is the cost that [`super::instrument`] inserted.
fn pop_cost(arguments: &mut Arguments) -> usize {
    let cost = arguments.pop().and_then(|cost| {
        let cost = cost.downcast_ref::<CelInt>()?;
        usize::try_from(*cost.inner()).ok()
    });
    cost.unwrap_or(usize::MAX)
}

fn charge_iteration<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    charge(1)?;
    arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

fn check_range<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let cost_per_element = pop_cost(&mut arguments);
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    charge(size(value.as_ref()))?;
    let length = if let Some(list) = value.downcast_ref::<CelList>() {
        list.len()
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.len()
    } else {
        let kind = value.get_type().name();
        return Err(limit_error(&format!(
            "a macro requires a list or a map, but its range is a {kind}"
        )));
    };
    if length > MAX_MACRO_ELEMENTS {
        return Err(limit_error(&format!(
            "a macro visits at most {MAX_MACRO_ELEMENTS} elements, but its range has more"
        )));
    }
    charge(length.saturating_mul(cost_per_element))?;
    let Some(map) = value.downcast_ref::<CelMap>() else {
        return Ok(value);
    };
    let mut keys: Vec<_> = map.keys().cloned().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'v>> =
        keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn add<'b, 'v>(sides: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let [left, right] = sides.as_slice() else {
        return Err(ExecutionError::invalid_argument_count(2, sides.len()));
    };
    let is_map = right.downcast_ref::<CelMap>().is_some();
    let sum = match left.as_adder() {
        Some(left) if !is_map => left.add(right.as_ref()),
        _ => Err(ExecutionError::no_such_overload("_+_", type_names(&sides))),
    };
    match sum {
        Ok(sum) => Ok(CowVal::Owned(sum.into_owned())),
        Err(ExecutionError::UnsupportedBinaryOperator(..)) => {
            Err(ExecutionError::no_such_overload("_+_", type_names(&sides)))
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
        Some(decimal) => decimal.numeric_cmp(left.as_ref()).map(Ordering::reverse),
        None => left.as_comparer().and_then(|left| left.compare(right.as_ref()).ok()),
    };
    order.ok_or_else(|| ExecutionError::no_such_overload(operator, type_names(sides)))
}

fn decimal_to_string<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    Ok(CowVal::owned(CelString::from(decimal("string", &arguments)?.text().to_owned())))
}

fn decimal_to_double<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    Ok(CowVal::owned(CelDouble::from(decimal("double", &arguments)?.to_double())))
}

fn decimal<'a>(name: &str, arguments: &'a [CowVal]) -> Result<&'a Decimal, ExecutionError> {
    let decimal = arguments.first().and_then(|argument| argument.downcast_ref::<Decimal>());
    decimal.ok_or_else(|| ExecutionError::no_such_overload(name, type_names(arguments)))
}

#[cfg(test)]
mod tests {
    use cel::parser::PrattParser;
    use cel::{Context, Value};

    use super::*;

    #[test]
    fn defines_every_listed_function() {
        let context = Context::with_env(environment().unwrap());
        for name in FUNCTIONS {
            let exists = |source: String| {
                let tree = PrattParser::new().parse(&source).unwrap();
                !matches!(
                    Value::resolve_val(&tree, &context),
                    Err(ExecutionError::UndeclaredReference(_))
                )
            };
            assert!(
                exists(format!("{name}(1, 2, 3, 4)")) || exists(format!("(1).{name}(2, 3, 4)")),
                "{name}"
            );
        }
    }
}
