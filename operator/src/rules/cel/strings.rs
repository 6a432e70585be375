//! String functions whose cost the budget bounds, in place of the strings extension's own.
//!
//! `replace` and `join` can give the product of two lengths, `split` many small values; `indexOf`
//! and `lastIndexOf` take the product of two lengths of time there; `matches` compiles its pattern
//! at every call. What they give is the same.

use std::cell::RefCell;
use std::sync::Arc;

use cel::common::functions::Function;
use cel::common::types::{CelBool, CelInt, CelList, CelString, DYN_TYPE};
use cel::common::value::{CowVal, FromVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::cost::{VALUE, charge, kinds, limit_error};
use crate::rules::pattern::Pattern;

/// Finds a pattern in a text.
pub(crate) const MATCHES: &str = "matches";
/// The same, for a pattern that stands in the expression.
pub(crate) const MATCHES_LITERAL: &str = "@matches";

thread_local! {
    /// The patterns of the expression that is evaluated.
    static PATTERNS: RefCell<Arc<[Pattern]>> = RefCell::new(Arc::new([]));
    /// The last pattern that a record gave: in a macro it is mostly the same for each element.
    static LAST: RefCell<Option<(String, Pattern)>> = const { RefCell::new(None) };
}

/// Begins an evaluation of an expression with these patterns.
pub(crate) fn begin(patterns: &Arc<[Pattern]>) {
    PATTERNS.set(patterns.clone());
    LAST.take();
}

/// Declares them, for arguments of any type, on an environment that has no others yet.
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

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The arguments of one call, the target first.
struct Call<'a, 'b, 'v> {
    name: &'static str,
    arguments: &'a [CowVal<'b, 'v>],
}

impl<'a, 'b, 'v> Call<'a, 'b, 'v> {
    fn new(name: &'static str, arguments: &'a [CowVal<'b, 'v>]) -> Self {
        Self { name, arguments }
    }

    fn argument<T: FromVal<'a, 'v>>(&self, at: usize) -> Result<&'a T, ExecutionError> {
        let argument = self.arguments.get(at).and_then(|argument| argument.as_ref().downcast_ref());
        argument.ok_or_else(|| {
            ExecutionError::no_such_member_overload(self.name, kinds(self.arguments))
        })
    }

    fn text(&self, at: usize) -> Result<&'a str, ExecutionError> {
        Ok(self.argument::<CelString<'v>>(at)?.inner())
    }

    /// A count, where `None` is no bound: absent, or negative.
    fn count(&self, at: usize) -> Result<Option<usize>, ExecutionError> {
        if self.arguments.len() <= at {
            return Ok(None);
        }
        Ok(usize::try_from(*self.argument::<CelInt>(at)?.inner()).ok())
    }

    /// A place in a text, in characters; `None` if it is absent.
    fn place(&self, at: usize) -> Result<Option<usize>, ExecutionError> {
        match self.count(at)? {
            None if self.arguments.len() > at => Err(self.out_of_range()),
            place => Ok(place),
        }
    }

    fn out_of_range(&self) -> ExecutionError {
        limit_error(&format!("the index given to {} is out of range", self.name))
    }
}

fn text<'b, 'v>(text: String) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text)))
}

fn replace<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new("replace", &arguments);
    let (this, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let most = call.count(3)?.unwrap_or(usize::MAX);
    let times = this.matches(from).take(most).count();
    charge(this.len().saturating_add(times.saturating_mul(VALUE + to.len())))?;
    text(this.replacen(from, to, times))
}

fn join<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new("join", &arguments);
    let list = call.argument::<CelList>(0)?;
    let separator = if arguments.len() > 1 { call.text(1)? } else { "" };
    let mut parts = Vec::with_capacity(list.len());
    for element in list.iter() {
        let Some(part) = element.downcast_ref::<CelString>() else {
            let kind = element.get_type().name();
            return Err(limit_error(&format!("join takes a list of strings, but it has a {kind}")));
        };
        charge(separator.len().saturating_add(part.len()))?;
        parts.push(part.inner());
    }
    text(parts.join(separator))
}

fn split<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new("split", &arguments);
    let (this, separator) = (call.text(0)?, call.text(1)?);
    let most = call.count(2)?.unwrap_or(usize::MAX);
    let mut list: Vec<Box<dyn Val + 'v>> = Vec::new();
    let mut push = |part: &str| -> Result<(), ExecutionError> {
        charge(3 * VALUE + part.len())?;
        list.push(Box::new(CelString::from(part.to_owned())));
        Ok(())
    };
    if separator.is_empty() {
        // Between characters, and the last part is the rest; the standard library's splitn would
        // also give an empty part at either end.
        let mut rest = this;
        for taken in 1..=most {
            let Some(first) = rest.chars().next() else {
                break;
            };
            let end = if taken == most { rest.len() } else { first.len_utf8() };
            let (part, tail) = rest.split_at(end);
            push(part)?;
            rest = tail;
        }
    } else {
        this.splitn(most, separator).try_for_each(push)?;
    }
    Ok(CowVal::owned(CelList::from(list)))
}

fn index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new("indexOf", &arguments);
    let (this, needle) = (call.text(0)?, call.text(1)?);
    let start = call.place(2)?.unwrap_or(0);
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

fn last_index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new("lastIndexOf", &arguments);
    let (this, needle) = (call.text(0)?, call.text(1)?);
    charge(this.len().saturating_mul(2))?;
    let length = this.chars().count();
    let start = call.place(2)?;
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

fn index<'b, 'v>(place: Option<usize>) -> Outcome<'b, 'v> {
    let place = place.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(place)))
}

/// With the number of a literal pattern, which [`crate::rules::cel::instrument`] has compiled.
fn matches_literal<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new(MATCHES, &arguments);
    let (this, number) = (call.text(0)?, call.count(1)?);
    PATTERNS.with_borrow(|patterns| {
        let pattern = number.and_then(|number| patterns.get(number));
        find(pattern.ok_or_else(|| call.out_of_range())?, this)
    })
}

fn matches<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let call = Call::new(MATCHES, &arguments);
    let (this, pattern) = (call.text(0)?, call.text(1)?);
    LAST.with_borrow_mut(|last| {
        let known = last.take().filter(|(known, _)| known == pattern);
        let (_, compiled) = match known {
            Some(known) => last.insert(known),
            None => {
                charge(Pattern::cost_of_compiling(pattern))?;
                let compiled = Pattern::compile_once(pattern)
                    .map_err(|_| limit_error("the pattern given to matches is not valid"))?;
                last.insert((pattern.to_owned(), compiled))
            }
        };
        find(compiled, this)
    })
}

fn find<'b, 'v>(pattern: &Pattern, text: &str) -> Outcome<'b, 'v> {
    charge(pattern.cost(text))?;
    Ok(CowVal::owned(CelBool::from(pattern.is_match(text))))
}
