//! Checks a parsed expression, and inserts calls that charge its cost.
//!
//! [`check_and_instrument`] rejects a tree that is too deep, because each level takes stack when it
//! is evaluated. It also rejects a macro inside a macro and an unknown name. In a valid tree it
//! inserts calls of [`super::functions`]: each use of a value is charged, the range of each macro
//! is checked, and some operators are replaced.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::cost::COST_PER_NODE;
use super::functions::{
    CHARGE_ITERATION, CHARGE_RESULT, CHARGE_USE, CHECK_RANGE, FUNCTIONS, replacement,
    result_cost_per_byte,
};
use super::strings::{MATCHES, MATCHES_LITERAL};
use crate::rules::pattern::{Pattern, PatternBudget};

/// The maximum depth of a tree. In a debug build, an evaluation takes about 40 KiB of stack per
/// level.
const MAX_DEPTH: usize = 32;

/// The problem of a deeper tree.
pub(crate) const TOO_DEEP_PROBLEM: &str = "is nested too deep; write at most 32 levels of \
    parentheses, brackets, calls and consecutive operators, or split the expression into several \
    fields";

/// Names of types, as in `type(x) == int`.
#[rustfmt::skip]
const TYPES: [&str; 12] = [
    "bool", "bytes", "decimal", "double", "int", "list", "map", "null_type", "optional_type",
    "string", "type", "uint",
];

/// Operators that are not replaced. cel represents an operator as a call, with a name that a user
/// cannot write.
#[rustfmt::skip]
const KEPT_OPERATORS: [&str; 12] = [
    op::ADD, op::CONDITIONAL, op::DIVIDE, op::IN, op::LOGICAL_AND, op::LOGICAL_NOT, op::LOGICAL_OR,
    op::MODULO, op::MULTIPLY, op::NEGATE, op::NOT_STRICTLY_FALSE, op::SUBSTRACT,
];

/// A variable of expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variable {
    EventName,
    Keys,
    Old,
    New,
    EventId,
    SequenceNumber,
    ApproximateCreationDateTime,
    UserIdentity,
}

impl Variable {
    const ALL: [Self; 8] = [
        Self::EventName,
        Self::Keys,
        Self::Old,
        Self::New,
        Self::EventId,
        Self::SequenceNumber,
        Self::ApproximateCreationDateTime,
        Self::UserIdentity,
    ];

    /// The name that a user writes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EventName => "eventName",
            Self::Keys => "keys",
            Self::Old => "old",
            Self::New => "new",
            Self::EventId => "eventId",
            Self::SequenceNumber => "sequenceNumber",
            Self::ApproximateCreationDateTime => "approximateCreationDateTime",
            Self::UserIdentity => "userIdentity",
        }
    }
}

/// The properties of a checked expression.
pub(crate) struct CheckedExpr {
    /// The variables that it uses.
    pub variables: BTreeSet<Variable>,
    /// Its literal patterns, by the number that replaces them in the tree.
    pub patterns: Vec<Pattern>,
}

/// Checks a parsed expression and rewrites it, or returns the problem.
pub(crate) fn check_and_instrument(
    tree: &mut IdedExpr,
    budget: &mut PatternBudget,
) -> Result<CheckedExpr, String> {
    // Before the recursive visit, and again because the inserted calls add levels.
    check_depth(tree)?;
    let mut instrumenter = Instrumenter {
        variables: BTreeSet::new(),
        patterns: Vec::new(),
        budget,
        element_name: None,
    };
    instrumenter.visit(tree)?;
    check_depth(tree)?;
    let Instrumenter { variables, patterns, .. } = instrumenter;
    Ok(CheckedExpr { variables, patterns })
}

fn check_depth(tree: &IdedExpr) -> Result<(), String> {
    let mut open = vec![(tree, 1)];
    while let Some((node, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(TOO_DEEP_PROBLEM.to_owned());
        }
        open.extend(children(node).into_iter().map(|node| (node, depth + 1)));
    }
    Ok(())
}

/// The fixed cost of an evaluation: a cost for each node, and the length of the literals. Uses of
/// values are charged separately.
fn fixed_cost(tree: &IdedExpr) -> usize {
    let mut cost = 0;
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        cost += COST_PER_NODE;
        if let Expr::Literal(LiteralValue::String(text)) = &node.expr {
            cost += text.inner().len();
        }
        open.extend(children(node));
    }
    cost
}

fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => vec![],
        Expr::Select(select) => vec![&*select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(macro_) => vec![
            &macro_.iter_range,
            &macro_.accu_init,
            &macro_.loop_cond,
            &macro_.loop_step,
            &macro_.result,
        ],
        Expr::Map(map) => {
            map.entries.iter().flat_map(|entry| entry_children(&entry.expr)).collect()
        }
        Expr::Struct(message) => {
            message.entries.iter().flat_map(|entry| entry_children(&entry.expr)).collect()
        }
    }
}

fn entry_children(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Instrumenter<'b> {
    variables: BTreeSet<Variable>,
    patterns: Vec<Pattern>,
    budget: &'b mut PatternBudget,
    /// The name of the element inside a macro; `None` outside.
    element_name: Option<String>,
}

impl Instrumenter<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => Err("is incomplete".to_owned()),
            Expr::Struct(message) => Err(format!(
                "unknown message type `{}`; write a map, as in {{'name': value}}",
                message.type_name
            )),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|node| self.visit(node)),
            Expr::Map(map) => {
                map.entries.iter_mut().try_for_each(|entry| self.visit_entry(&mut entry.expr))
            }
            Expr::Comprehension(macro_) => self.visit_comprehension(macro_),
            Expr::Call(call) if !is_index(call) => {
                self.visit_call(call)?;
                if let Some(cost) = result_cost_per_byte(&call.func_name) {
                    wrap_with_cost(CHARGE_RESULT, node, cost);
                }
                Ok(())
            }
            Expr::Ident(_) | Expr::Select(_) | Expr::Call(_) => {
                let is_test = matches!(&node.expr, Expr::Select(select) if select.test);
                if self.visit_path(node)? && !is_test {
                    wrap(CHARGE_USE, node);
                }
                Ok(())
            }
        }
    }

    /// Visits a path such as `new.a[0].b`. Returns whether it begins with a variable, so that its
    /// use must be charged.
    fn visit_path(&mut self, node: &mut IdedExpr) -> Result<bool, String> {
        match &mut node.expr {
            Expr::Ident(name) => self.visit_name(name),
            Expr::Select(select) => self.visit_path(&mut select.operand),
            Expr::Call(call) if is_index(call) => {
                let [operand, index] = call.args.as_mut_slice() else {
                    return Err("is incomplete".to_owned());
                };
                let is_variable = self.visit_path(operand)?;
                self.visit(index)?;
                Ok(is_variable)
            }
            _ => self.visit(node).map(|()| false),
        }
    }

    /// Visits a name. Returns `true` for a variable and `false` for a type. Any other name is an error.
    fn visit_name(&mut self, name: &str) -> Result<bool, String> {
        if self.element_name.as_deref() == Some(name) {
            return Ok(true);
        }
        if let Some(variable) = Variable::ALL.into_iter().find(|known| known.name() == name) {
            self.variables.insert(variable);
            return Ok(true);
        }
        // The accumulator of a macro begins with an `@`, which a user cannot write.
        if name.starts_with('@') || TYPES.contains(&name) {
            return Ok(false);
        }
        let known = Variable::ALL.map(Variable::name).join(", ");
        Err(format!("unknown variable `{name}`; use one of {known}"))
    }

    fn visit_entry(&mut self, entry: &mut EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&mut field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key)?;
                self.visit(&mut entry.value)
            }
        }
    }

    fn visit_call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        if let Some(replacement) = replacement(&call.func_name) {
            // cel recognizes a macro's own `@result + […]` by its form, and appends in place.
            if !call.args.first().is_some_and(is_accumulator) {
                call.func_name = replacement.to_owned();
            }
        } else if !KEPT_OPERATORS.contains(&&*call.func_name) {
            let qualified = call.target.as_ref().and_then(|target| match &target.expr {
                Expr::Ident(namespace) => Some(format!("{namespace}.{}", call.func_name)),
                _ => None,
            });
            if qualified.is_some_and(|name| FUNCTIONS.contains(&name.as_str())) {
                return call.args.iter_mut().try_for_each(|node| self.visit(node));
            }
            if !FUNCTIONS.contains(&call.func_name.as_str()) {
                return Err(format!(
                    "unknown function `{}` with {} argument(s); use a function of CEL's standard \
                     library or strings extension",
                    call.func_name,
                    call.args.len()
                ));
            }
        }
        if call.func_name == MATCHES {
            self.compile_literal_pattern(call)?;
        }
        if let Some(target) = &mut call.target {
            self.visit(target)?;
        }
        call.args.iter_mut().try_for_each(|node| self.visit(node))
    }

    /// Compiles a literal pattern, and replaces it with its number.
    fn compile_literal_pattern(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let Some(node) = call.args.last_mut() else {
            return Ok(());
        };
        let Expr::Literal(LiteralValue::String(pattern)) = &node.expr else {
            return Ok(());
        };
        let compiled = Pattern::compile(pattern.inner(), self.budget);
        self.patterns
            .push(compiled.map_err(|problem| format!("the pattern of matches {problem}"))?);
        node.expr = int(self.patterns.len() - 1);
        call.func_name = MATCHES_LITERAL.to_owned();
        Ok(())
    }

    fn visit_comprehension(&mut self, macro_: &mut ComprehensionExpr) -> Result<(), String> {
        if self.element_name.is_some() {
            return Err("has a macro (all, exists, exists_one, map, filter) inside another one; \
                chain them, as in list.filter(x, …).map(x, …)"
                .to_owned());
        }
        self.visit(&mut macro_.iter_range)?;
        self.element_name = Some(macro_.iter_var.clone());
        let visited = self.visit(&mut macro_.loop_step);
        self.element_name = None;
        visited?;
        let cost = fixed_cost(&macro_.loop_step);
        wrap_with_cost(CHECK_RANGE, &mut macro_.iter_range, cost);
        // `all` and `exists` continue after an error, so an exhausted budget must end their loop.
        // The loops of the other macros have a literal condition, and end at the first error.
        if !matches!(macro_.loop_cond.expr, Expr::Literal(_)) {
            wrap(CHARGE_ITERATION, &mut macro_.loop_cond);
        }
        Ok(())
    }
}

fn is_index(call: &CallExpr) -> bool {
    call.target.is_none() && [op::INDEX, op::OPT_INDEX, op::OPT_SELECT].contains(&&*call.func_name)
}

/// Whether the node is the accumulator of a macro.
fn is_accumulator(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name.starts_with('@'))
}

/// Wraps a node in a call whose second argument is a cost.
fn wrap_with_cost(function: &str, node: &mut IdedExpr, cost: usize) {
    wrap(function, node);
    if let Expr::Call(call) = &mut node.expr {
        call.args.push(IdedExpr { id: node.id, expr: int(cost) });
    }
}

fn int(number: usize) -> Expr {
    Expr::Literal(LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into()))
}

/// Wraps a node in a call.
fn wrap(function: &str, node: &mut IdedExpr) {
    let inner = std::mem::take(node);
    node.id = inner.id;
    node.expr =
        Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] });
}
