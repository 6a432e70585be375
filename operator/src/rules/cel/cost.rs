//! Cost budget for the expressions of one record, which bounds their time and memory.
//!
//! CEL itself does not bound cost, and 1,024 characters can request more memory than the machine
//! has: `new.a.replace('a', new.a)`, or a list that each of twenty consecutive macros doubles. Each
//! use of a value therefore costs its [`size`], and so does each result that can be larger than its
//! arguments. All expressions of a record share one budget. A record that exceeds it settles as
//! invalid.
//!
//! The budget is thread-local, because CEL's functions are plain function pointers without state.
//! An evaluation never waits, so it stays on one thread.

use std::cell::Cell;

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};

/// The budget of one record. One unit is about 1 ns, or one byte that is read.
const RECORD_BUDGET: usize = 48 << 20;
/// The cost of one node of the tree, such as an operator.
pub(crate) const COST_PER_NODE: usize = 100;
/// The cost of each byte that is created. A byte that is read costs 1. The slowest cases are
/// doubles written as text and text written as JSON.
pub(crate) const COST_PER_CREATED_BYTE: usize = 4;
/// The cost of a value besides its bytes.
pub(crate) const COST_PER_VALUE: usize = 32;
/// The maximum number of elements that a macro visits.
pub(crate) const MAX_MACRO_ELEMENTS: usize = 1_000;
/// Marks errors that [`limit_error`] made. Their text contains no value, so it can be shown.
pub(crate) const LIMIT_ERROR: &str = "@limit";

thread_local! {
    static REMAINING: Cell<usize> = const { Cell::new(0) };
}

/// Restores the whole budget, for the next record.
pub(crate) fn reset() {
    REMAINING.set(RECORD_BUDGET);
}

/// Charges the budget. After the first failure, every charge for the same record fails.
pub(crate) fn charge(cost: usize) -> Result<(), ExecutionError> {
    let remaining = REMAINING.get().checked_sub(cost);
    REMAINING.set(remaining.unwrap_or(0));
    match remaining {
        Some(_) => Ok(()),
        None => Err(limit_error(
            "the expressions of the record exceed their memory or time limit; use smaller values \
             or simpler expressions",
        )),
    }
}

/// An error whose text contains no value of the item, so it can be shown.
pub(crate) fn limit_error(message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: LIMIT_ERROR.to_owned(), message: message.to_owned() }
}

/// The names of the arguments' types, for an error.
pub(crate) fn type_names(arguments: &[CowVal]) -> Vec<String> {
    arguments.iter().map(|argument| argument.get_type().name().to_owned()).collect()
}

/// The cost of using a value: its bytes, and a fixed cost for each value in it.
pub(crate) fn size(value: &dyn Val) -> usize {
    let content = if let Some(text) = value.downcast_ref::<CelString>() {
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
    COST_PER_VALUE + content
}
