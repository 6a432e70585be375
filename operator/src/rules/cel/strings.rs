//! Replacements for functions of CEL's strings extension, with the same results and bounded cost.
//!
//! The result of `replace` or `join` can be as large as the product of two lengths. `split` can
//! create many small values. In the extension, `indexOf` and `lastIndexOf` take time in proportion
//! to the product of two lengths, and `matches` compiles its pattern in every call.

use std::cell::RefCell;
use std::sync::Arc;

use cel::common::functions::Function;
use cel::common::types::{CelBool, CelInt, CelList, CelString, DYN_TYPE};
use cel::common::value::{CowVal, FromVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::cost::{COST_PER_VALUE, charge, limit_error, type_names};
use crate::rules::pattern::Pattern;

/// The arguments of a call. The target of a member call comes first.
pub(super) type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
/// The result of a call.
pub(super) type CallResult<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Whether a string matches a pattern.
pub(crate) const MATCHES: &str = "matches";
/// [`MATCHES`] for a literal pattern. The second argument is the number of the pattern.
pub(crate) const MATCHES_LITERAL: &str = "@matches";

thread_local! {
    /// The literal patterns of the expression that is being evaluated.
    static PATTERNS: RefCell<Arc<[Pattern]>> = RefCell::new(Arc::new([]));
    /// The last computed pattern, because in a macro it is mostly the same for each element.
    static LAST_COMPUTED: RefCell<Option<(String, Pattern)>> = const { RefCell::new(None) };
}

/// Sets the literal patterns for the next evaluation.
pub(crate) fn set_patterns(patterns: &Arc<[Pattern]>) {
    PATTERNS.set(patterns.clone());
    LAST_COMPUTED.take();
}

/// Declares the functions for arguments of any type. Must precede the standard library, because cel
/// uses the first overload that matches.
pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(MATCHES, "any_matches", vec![DYN_TYPE, DYN_TYPE], matches)?;
    let literal = MATCHES_LITERAL;
    env.add_overload(literal, literal, vec![DYN_TYPE, DYN_TYPE], matches_literal)?;
    let members: [(&str, usize, Function); 12] = [
        ("indexOf", 1, index_of),
        ("indexOf", 2, index_of),
        ("join", 0, join),
        ("join", 1, join),
        ("lastIndexOf", 1, last_index_of),
        ("lastIndexOf", 2, last_index_of),
        (MATCHES, 1, matches),
        (MATCHES_LITERAL, 1, matches_literal),
        ("replace", 2, replace),
        ("replace", 3, replace),
        ("split", 1, split),
        ("split", 2, split),
    ];
    for (name, count, function) in members {
        let id = format!("any.{name}({count})");
        let parameters = (0..count).map(|_| DYN_TYPE).collect();
        env.add_member_overload(name, &id, DYN_TYPE, parameters, function)?;
    }
    Ok(())
}

/// The name and arguments of one call. The target comes first.
struct Call<'a, 'b, 'v> {
    name: &'static str,
    arguments: &'a [CowVal<'b, 'v>],
}

impl<'a, 'b, 'v> Call<'a, 'b, 'v> {
    fn new(name: &'static str, arguments: &'a [CowVal<'b, 'v>]) -> Self {
        Self { name, arguments }
    }

    fn argument<T: FromVal<'a, 'v>>(&self, index: usize) -> Result<&'a T, ExecutionError> {
        let argument =
            self.arguments.get(index).and_then(|argument| argument.as_ref().downcast_ref());
        argument.ok_or_else(|| {
            ExecutionError::no_such_member_overload(self.name, type_names(self.arguments))
        })
    }

    fn text(&self, index: usize) -> Result<&'a str, ExecutionError> {
        Ok(self.argument::<CelString<'v>>(index)?.inner())
    }

    /// An optional count. `None` means no bound: the argument is absent or negative.
    fn count(&self, index: usize) -> Result<Option<usize>, ExecutionError> {
        if self.arguments.len() <= index {
            return Ok(None);
        }
        Ok(usize::try_from(*self.argument::<CelInt>(index)?.inner()).ok())
    }

    /// An optional position in a text, in characters. `None` means that the argument is absent.
    fn position(&self, index: usize) -> Result<Option<usize>, ExecutionError> {
        match self.count(index)? {
            None if self.arguments.len() > index => Err(self.out_of_range()),
            position => Ok(position),
        }
    }

    fn out_of_range(&self) -> ExecutionError {
        limit_error(&format!("the index argument of {}() is out of range", self.name))
    }
}

fn text<'b, 'v>(text: String) -> CallResult<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text)))
}

fn replace<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new("replace", &arguments);
    let (this, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let max_count = call.count(3)?.unwrap_or(usize::MAX);
    let count = this.matches(from).take(max_count).count();
    charge(this.len().saturating_add(count.saturating_mul(COST_PER_VALUE + to.len())))?;
    text(this.replacen(from, to, count))
}

fn join<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new("join", &arguments);
    let list = call.argument::<CelList>(0)?;
    let separator = if arguments.len() > 1 { call.text(1)? } else { "" };
    let mut parts = Vec::with_capacity(list.len());
    for element in list.iter() {
        let Some(part) = element.downcast_ref::<CelString>() else {
            let kind = element.get_type().name();
            return Err(limit_error(&format!(
                "join() requires strings, but the list has a {kind}"
            )));
        };
        charge(separator.len().saturating_add(part.len()))?;
        parts.push(part.inner());
    }
    text(parts.join(separator))
}

fn split<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new("split", &arguments);
    let (this, separator) = (call.text(0)?, call.text(1)?);
    let max_parts = call.count(2)?.unwrap_or(usize::MAX);
    let mut list: Vec<Box<dyn Val + 'v>> = Vec::new();
    let mut push = |part: &str| -> Result<(), ExecutionError> {
        charge(3 * COST_PER_VALUE + part.len())?;
        list.push(Box::new(CelString::from(part.to_owned())));
        Ok(())
    };
    if separator.is_empty() {
        // One part for each character, except that the last part is the rest. Rust's splitn would
        // also give an empty part at either end.
        let mut rest = this;
        for count in 1..=max_parts {
            let Some(first) = rest.chars().next() else {
                break;
            };
            let end = if count == max_parts { rest.len() } else { first.len_utf8() };
            let (part, tail) = rest.split_at(end);
            push(part)?;
            rest = tail;
        }
    } else {
        this.splitn(max_parts, separator).try_for_each(push)?;
    }
    Ok(CowVal::owned(CelList::from(list)))
}

fn index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new("indexOf", &arguments);
    let (this, needle) = (call.text(0)?, call.text(1)?);
    let start = call.position(2)?.unwrap_or(0);
    charge(this.len().saturating_mul(2))?;
    if needle.is_empty() {
        return index(Some(start.min(this.chars().count())));
    }
    match this.char_indices().nth(start) {
        Some((byte, _)) => {
            let found = this.get(byte..).and_then(|rest| rest.find(needle));
            index(found.and_then(|found| this.get(..byte + found)).map(|head| head.chars().count()))
        }
        None if arguments.len() > 2 => Err(call.out_of_range()),
        None => index(None),
    }
}

fn last_index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new("lastIndexOf", &arguments);
    let (this, needle) = (call.text(0)?, call.text(1)?);
    charge(this.len().saturating_mul(2))?;
    let length = this.chars().count();
    let start = call.position(2)?;
    if needle.is_empty() {
        return index(Some(start.unwrap_or(length).min(length)));
    }
    let end = match start.map(|start| this.char_indices().nth(start)) {
        None => this.len(),
        Some(Some((byte, _))) => byte.saturating_add(needle.len()).min(this.len()),
        Some(None) => return Err(call.out_of_range()),
    };
    let searched = this.get(..this.floor_char_boundary(end)).unwrap_or(this);
    let found = searched.rfind(needle).and_then(|found| this.get(..found));
    index(found.map(|head| head.chars().count()))
}

fn index<'b, 'v>(position: Option<usize>) -> CallResult<'b, 'v> {
    let index = position.and_then(|position| i64::try_from(position).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(index)))
}

/// `matches` with the number of a literal pattern, which [`super::instrument`] compiled.
fn matches_literal<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new(MATCHES, &arguments);
    let (this, number) = (call.text(0)?, call.count(1)?);
    PATTERNS.with_borrow(|patterns| {
        let pattern = number.and_then(|number| patterns.get(number));
        search(pattern.ok_or_else(|| call.out_of_range())?, this)
    })
}

fn matches<'b, 'v>(arguments: Arguments<'b, 'v>) -> CallResult<'b, 'v> {
    let call = Call::new(MATCHES, &arguments);
    let (this, pattern) = (call.text(0)?, call.text(1)?);
    LAST_COMPUTED.with_borrow_mut(|last| {
        let (_, compiled) = match last.take().filter(|(source, _)| source == pattern) {
            Some(same) => last.insert(same),
            None => {
                charge(Pattern::compile_cost(pattern))?;
                let compiled = Pattern::compile_once(pattern)
                    .map_err(|_| limit_error("the pattern of matches() is invalid"))?;
                last.insert((pattern.to_owned(), compiled))
            }
        };
        search(compiled, this)
    })
}

fn search<'b, 'v>(pattern: &Pattern, text: &str) -> CallResult<'b, 'v> {
    charge(pattern.search_cost(text))?;
    Ok(CowVal::owned(CelBool::from(pattern.is_match(text))))
}
