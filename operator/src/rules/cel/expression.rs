//! An expression is refused when the spec is read, or gives a value or an error for each record:
//! it cannot panic, overflow the stack or exhaust memory, whatever a user or an item holds.
//!
//! cel 0.15 checks nothing of that by itself. Its default parser takes 100 KiB of stack for a
//! parenthesis in a debug build, so its Pratt parser is used, which takes next to none; the tree
//! is then bounded by [`crate::rules::cel::instrument`], what it touches by [`crate::rules::cel::cost`].

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::common::value::CowVal;
use cel::parser::{ParseErrors, PrattParser};
use cel::{Context, ExecutionError, Value};

use super::cost::LIMIT_ERROR;
use super::functions::environment;
use super::instrument::{CheckedExpr, TOO_DEEP_PROBLEM, Variable, check_and_instrument};
use super::value::TooDeep;
use super::{cost, strings, value};
use crate::model::Record;
use crate::rules::error::{InvalidRecord, InvalidSpec};
use crate::rules::pattern::{Pattern, PatternBudget};

/// The longest expression, in characters; the schema has the same bound.
const MAX_EXPRESSION_CHARS: usize = 1_024;
/// The parser's own bound on nesting; a tree that passes is bounded again.
const PARSER_DEPTH: u16 = 64;

/// A checked expression.
#[derive(Debug)]
pub(crate) struct Expression {
    field: String,
    source: String,
    tree: IdedExpr,
    uses: BTreeSet<Variable>,
    /// Those that the user wrote, by their place in the tree.
    patterns: Arc<[Pattern]>,
}

impl Expression {
    /// Checks the expression of a field.
    pub(crate) fn compile(
        field: impl Into<String>,
        source: &str,
        left: &mut PatternBudget,
    ) -> Result<Self, InvalidSpec> {
        let field = field.into();
        // The parser is a large third party: should it panic, the manifest is at fault, not we.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(source, left)))
            .unwrap_or_else(|_| Err("cannot be parsed; write it in another way".to_owned()));
        match parsed {
            Ok((tree, CheckedExpr { uses, patterns })) => {
                let (source, patterns) = (source.to_owned(), patterns.into());
                Ok(Self { field, source, tree, uses, patterns })
            }
            Err(problem) => Err(InvalidSpec::new(field, &problem)),
        }
    }

    /// The field it belongs to.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    /// The variables it sees.
    pub(crate) fn uses(&self) -> &BTreeSet<Variable> {
        &self.uses
    }

    /// Its value for one record.
    pub(crate) fn evaluate<'e, 'v>(
        &'e self,
        context: &'e Context<'_, 'v>,
    ) -> Result<CowVal<'e, 'v>, InvalidRecord> {
        strings::begin(&self.patterns);
        match catch_unwind(AssertUnwindSafe(|| Value::resolve_val(&self.tree, context))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.invalid("cannot be evaluated")),
        }
    }

    /// Whether it is true of one record.
    pub(crate) fn holds(&self, context: &Context<'_, '_>) -> Result<bool, InvalidRecord> {
        let value = self.evaluate(context)?;
        match value.as_ref().downcast_ref::<CelBool>() {
            Some(holds) => Ok(*holds.inner()),
            None => {
                let kind = value.as_ref().get_type().name();
                Err(self.invalid(&format!("gives {kind}, but must give true or false")))
            }
        }
    }

    /// This expression failed on a record.
    pub(crate) fn failed(&self, error: &ExecutionError) -> InvalidRecord {
        self.invalid(&explain(error, &self.source))
    }

    /// This expression has no usable value for a record.
    pub(crate) fn invalid(&self, problem: &str) -> InvalidRecord {
        InvalidRecord::new(self.field.clone(), problem)
    }
}

/// What expressions see of one record: the variables that any of them uses.
pub(crate) fn context<'v>(
    uses: &BTreeSet<Variable>,
    change: &'v Record,
) -> Result<Context<'v, 'v>, InvalidRecord> {
    let environment = environment()
        .map_err(|error| InvalidRecord::new("message", &format!("cannot be evaluated: {error}")))?;
    let mut context = Context::with_env(environment);
    for variable in uses {
        let value = value::variable(*variable, change).map_err(|TooDeep| {
            let problem = format!("nests deeper than {} levels", value::MAX_NESTING);
            InvalidRecord::new(variable.name(), &problem)
        })?;
        cost::charge(cost::size(value.as_ref()))
            .map_err(|error| InvalidRecord::new(variable.name(), &explain(&error, "")))?;
        context.add_variable_as_val(variable.name(), value);
    }
    Ok(context)
}

fn parse(source: &str, left: &mut PatternBudget) -> Result<(IdedExpr, CheckedExpr), String> {
    if source.trim().is_empty() {
        return Err("is empty; write a CEL expression, such as keys.PK".to_owned());
    }
    if source.chars().count() > MAX_EXPRESSION_CHARS {
        return Err(format!(
            "is longer than {MAX_EXPRESSION_CHARS} characters; write a shorter expression"
        ));
    }
    let parser = PrattParser::new().max_recursion_depth(PARSER_DEPTH).enable_optional_syntax(true);
    let mut tree = parser.parse(source).map_err(|errors| syntax_error(&errors))?;
    let admitted = check_and_instrument(&mut tree, left)?;
    Ok((tree, admitted))
}

fn syntax_error(errors: &ParseErrors) -> String {
    if errors.errors.iter().any(|error| error.msg.contains("recursion limit")) {
        return TOO_DEEP_PROBLEM.to_owned();
    }
    // Later errors, and those without a place, mostly follow from the first.
    match errors.errors.iter().find(|error| error.pos.0 > 0).or(errors.errors.first()) {
        Some(error) => {
            format!("is not a CEL expression: column {}: {}", error.pos.1, error.msg)
        }
        None => "is not a CEL expression".to_owned(),
    }
}

/// What went wrong, by kind: cel's own texts hold the values.
fn explain(error: &ExecutionError, source: &str) -> String {
    match error {
        ExecutionError::FunctionError { function, message } if function == LIMIT_ERROR => {
            message.clone()
        }
        ExecutionError::FunctionError { function, .. } => {
            format!("{function}() cannot take this value")
        }
        // A name that the user wrote is no value of an item.
        ExecutionError::NoSuchKey(key) if names(source, key) => {
            format!("no such key: {key}")
        }
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::NoSuchOverload(overload) => {
            let (name, types) = (overload.function(), overload.argument_types().join(" and "));
            format!("{} does not take {types}", name.replace('_', " ").trim())
        }
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            format!("{name} does not take {} and {}", kind(left), kind(right))
        }
        ExecutionError::UndeclaredReference(_) => {
            "a function is called with the wrong arguments".to_owned()
        }
        ExecutionError::UnexpectedType { got, want } => format!("{got} instead of {want}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number does not fit 64 bits".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has a key twice".to_owned(),
        ExecutionError::UnsupportedKeyType(_) => "a map has a key of a wrong type".to_owned(),
        _ => "cannot be evaluated".to_owned(),
    }
}

/// Whether the user wrote this name as a field or between quotes.
fn names(source: &str, key: &str) -> bool {
    source.match_indices(key).any(|(at, _)| {
        source.get(..at).is_some_and(|before| before.ends_with(['.', '?', '\'', '"']))
    })
}

/// A value's type. cel has no name for a decimal here, and calls it null.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null or decimal".to_owned(),
        value => value.type_of().to_string(),
    }
}
