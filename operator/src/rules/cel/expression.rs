//! A checked CEL expression, which gives a value or an error for each record.
//!
//! An expression never panics, overflows the stack or exhausts memory, for any spec and any item.
//! cel 0.15 does not guarantee this by itself:
//!
//! - Its default parser takes 100 KiB of stack for each parenthesis in a debug build. The operator
//!   uses cel's Pratt parser, which takes almost none.
//! - [`super::instrument`] bounds the depth of the tree.
//! - [`super::cost`] bounds the time and memory of an evaluation.

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
use super::value::{TooDeep, variable_to_cel};
use super::{cost, strings, value};
use crate::model::Record;
use crate::rules::error::{InvalidRecord, InvalidSpec};
use crate::rules::pattern::{Pattern, PatternBudget};

/// The maximum length of an expression, in characters. The schema has the same bound.
const MAX_EXPRESSION_CHARS: usize = 1_024;
/// The parser's own bound on nesting. The depth of the parsed tree is checked again.
const MAX_PARSER_DEPTH: u16 = 64;

/// A checked expression.
#[derive(Debug)]
pub(crate) struct Expression {
    field: String,
    source: String,
    tree: IdedExpr,
    variables: BTreeSet<Variable>,
    /// The literal patterns, by the number that replaces them in the tree.
    patterns: Arc<[Pattern]>,
}

impl Expression {
    /// Parses and checks the expression of a field.
    pub(crate) fn compile(
        field: impl Into<String>,
        source: &str,
        budget: &mut PatternBudget,
    ) -> Result<Self, InvalidSpec> {
        let field = field.into();
        // The parser is a large third-party crate. If it panics, only this spec must be invalid.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(source, budget)))
            .unwrap_or_else(|_| Err("cannot be parsed; rewrite the expression".to_owned()));
        match parsed {
            Ok((tree, CheckedExpr { variables, patterns })) => {
                let (source, patterns) = (source.to_owned(), patterns.into());
                Ok(Self { field, source, tree, variables, patterns })
            }
            Err(problem) => Err(InvalidSpec::new(field, &problem)),
        }
    }

    /// The field of the spec.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    /// The variables that the expression uses.
    pub(crate) fn variables(&self) -> &BTreeSet<Variable> {
        &self.variables
    }

    /// Evaluates the expression on one record.
    pub(crate) fn evaluate<'e, 'v>(
        &'e self,
        context: &'e Context<'_, 'v>,
    ) -> Result<CowVal<'e, 'v>, InvalidRecord> {
        strings::set_patterns(&self.patterns);
        match catch_unwind(AssertUnwindSafe(|| Value::resolve_val(&self.tree, context))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.evaluation_error(&error)),
            Err(_) => Err(self.invalid_record("cannot be evaluated")),
        }
    }

    /// Evaluates the expression on one record. Any value except `true` and `false` is an error.
    pub(crate) fn evaluate_bool(&self, context: &Context<'_, '_>) -> Result<bool, InvalidRecord> {
        let value = self.evaluate(context)?;
        match value.as_ref().downcast_ref::<CelBool>() {
            Some(bool) => Ok(*bool.inner()),
            None => {
                let kind = value.as_ref().get_type().name();
                Err(self.invalid_record(&format!("gives {kind}, but must give true or false")))
            }
        }
    }

    /// The error of a record on which the evaluation failed.
    pub(crate) fn evaluation_error(&self, error: &ExecutionError) -> InvalidRecord {
        self.invalid_record(&describe_error(error, &self.source))
    }

    /// The error of a record for which the expression has no usable value.
    pub(crate) fn invalid_record(&self, problem: &str) -> InvalidRecord {
        InvalidRecord::new(self.field.clone(), problem)
    }
}

/// Builds the context of one record with these variables. The size of each one is charged.
pub(crate) fn build_context<'v>(
    variables: &BTreeSet<Variable>,
    record: &'v Record,
) -> Result<Context<'v, 'v>, InvalidRecord> {
    let environment = environment()
        .map_err(|error| InvalidRecord::new("message", &format!("cannot be evaluated: {error}")))?;
    let mut context = Context::with_env(environment);
    for variable in variables {
        let value = variable_to_cel(*variable, record).map_err(|TooDeep| {
            let problem = format!("is nested deeper than {} levels", value::MAX_NESTING);
            InvalidRecord::new(variable.name(), &problem)
        })?;
        cost::charge(cost::size(value.as_ref()))
            .map_err(|error| InvalidRecord::new(variable.name(), &describe_error(&error, "")))?;
        context.add_variable_as_val(variable.name(), value);
    }
    Ok(context)
}

fn parse(source: &str, budget: &mut PatternBudget) -> Result<(IdedExpr, CheckedExpr), String> {
    if source.trim().is_empty() {
        return Err("is empty; write a CEL expression, such as keys.PK".to_owned());
    }
    if source.chars().count() > MAX_EXPRESSION_CHARS {
        return Err(format!(
            "has more than {MAX_EXPRESSION_CHARS} characters; write a shorter expression"
        ));
    }
    let parser =
        PrattParser::new().max_recursion_depth(MAX_PARSER_DEPTH).enable_optional_syntax(true);
    let mut tree = parser.parse(source).map_err(|errors| describe_syntax_error(&errors))?;
    let checked = check_and_instrument(&mut tree, budget)?;
    Ok((tree, checked))
}

fn describe_syntax_error(errors: &ParseErrors) -> String {
    if errors.errors.iter().any(|error| error.msg.contains("recursion limit")) {
        return TOO_DEEP_PROBLEM.to_owned();
    }
    // Later errors, and errors without a position, mostly follow from the first one.
    match errors.errors.iter().find(|error| error.pos.0 > 0).or(errors.errors.first()) {
        Some(error) => {
            format!("is not a CEL expression: column {}: {}", error.pos.1, error.msg)
        }
        None => "is not a CEL expression".to_owned(),
    }
}

/// Describes an error without values of the item, which cel's own texts contain.
fn describe_error(error: &ExecutionError, source: &str) -> String {
    match error {
        ExecutionError::FunctionError { function, message } if function == LIMIT_ERROR => {
            message.clone()
        }
        ExecutionError::FunctionError { function, .. } => {
            format!("{function}() does not accept this value")
        }
        // A key that the expression contains is not a value of the item.
        ExecutionError::NoSuchKey(key) if mentions_key(source, key) => {
            format!("no such key: {key}")
        }
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::NoSuchOverload(overload) => {
            let (name, types) = (overload.function(), overload.argument_types().join(" and "));
            format!("{} does not accept {types}", name.replace('_', " ").trim())
        }
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            format!("{name} does not accept {} and {}", type_name(left), type_name(right))
        }
        ExecutionError::UndeclaredReference(_) => {
            "a function is called with the wrong arguments".to_owned()
        }
        ExecutionError::UnexpectedType { got, want } => format!("{got} instead of {want}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number does not fit into 64 bits".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has a duplicate key".to_owned(),
        ExecutionError::UnsupportedKeyType(_) => {
            "a map has a key of an unsupported type".to_owned()
        }
        _ => "cannot be evaluated".to_owned(),
    }
}

/// Whether the expression contains the key as a field name or at the start of a quoted text.
fn mentions_key(source: &str, key: &str) -> bool {
    source.match_indices(key).any(|(at, _)| {
        source.get(..at).is_some_and(|before| before.ends_with(['.', '?', '\'', '"']))
    })
}

/// The name of a value's type. cel converts a decimal to null here, because it does not know it.
fn type_name(value: &Value) -> String {
    match value {
        Value::Null => "null or decimal".to_owned(),
        value => value.type_of().to_string(),
    }
}
