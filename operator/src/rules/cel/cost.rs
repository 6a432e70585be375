//! What one record's expressions may cost, whatever they are and whatever the record holds.
//!
//! CEL has no variables of its own, yet 1,024 characters can ask for more memory than there is:
//! `new.a.replace('a', new.a)`, or a list that each of twenty macros in a row doubles. So each use
//! of a value costs its size ([`size`]), and so does each result that can be larger than what it
//! was made of. One budget serves all expressions of a record; what is over it settles the record
//! as invalid. The budget belongs to the thread: an evaluation never waits, and CEL's functions
//! are plain function pointers that can carry nothing.

use std::cell::Cell;

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};

/// What the expressions of one record may cost: nanoseconds, roughly, and bytes that they touch.
const BUDGET: usize = 48 << 20;
/// What a step of an evaluation costs, such as an operator.
pub(crate) const STEP: usize = 100;
/// What a byte that is made costs, where one that is looked at costs one: writing doubles as text, or
/// text as JSON, is the slowest.
pub(crate) const COST_OF_MAKING: usize = 4;
/// What a value costs besides its bytes.
pub(crate) const VALUE: usize = 32;
/// The longest list, or largest map, that a macro goes through.
pub(crate) const LONGEST_LIST: usize = 1_000;
/// Marks errors of ours: what they say holds no value and can be told.
pub(crate) const LIMIT_ERROR: &str = "@limit";

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins another record.
pub(crate) fn reset() {
    LEFT.set(BUDGET);
}

/// Pays, or fails; once it failed it fails for the rest of the record.
pub(crate) fn charge(cost: usize) -> Result<(), ExecutionError> {
    let left = LEFT.get().checked_sub(cost);
    LEFT.set(left.unwrap_or(0));
    match left {
        Some(_) => Ok(()),
        None => Err(limit_error("the expressions of this message take too much memory or time")),
    }
}

/// An error whose text is ours.
pub(crate) fn limit_error(message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: LIMIT_ERROR.to_owned(), message: message.to_owned() }
}

/// The types of arguments, for an error.
pub(crate) fn kinds(arguments: &[CowVal]) -> Vec<String> {
    arguments.iter().map(|argument| argument.get_type().name().to_owned()).collect()
}

/// What a use of the value costs: all that it holds.
pub(crate) fn size(value: &dyn Val) -> usize {
    let held = if let Some(text) = value.downcast_ref::<CelString>() {
        text.len()
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        bytes.inner().len()
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        list.iter().map(|element| size(element.as_ref())).sum()
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.iter().map(|(key, value)| size(key.inner()) + size(value.as_ref())).sum()
    } else if let Some(optional) = value.downcast_ref::<CelOptional>() {
        optional.option().map_or(0, size)
    } else {
        0
    };
    VALUE + held
}
