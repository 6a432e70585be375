//! What an expression may contain, and what is put around its parts so that its cost is bounded.
//!
//! [`check_and_instrument`] refuses a tree that is too deep (each level takes stack when it is evaluated), a
//! macro inside a macro, and a name that does not exist. In what it lets through, each use of a
//! value pays for it, each macro goes through a checked list, and some operators are replaced: by
//! calls of what is in [`crate::rules::cel::functions`].

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::cost::STEP;
use super::functions::{
    CHARGE_ITERATION, CHARGE_USE, FUNCTIONS, RANGE, RESULT, cost_of_result, replacement,
};
use super::strings::{MATCHES, MATCHES_LITERAL};
use crate::rules::pattern::{Pattern, PatternBudget};

/// How deep a tree may be. In a debug build an evaluation takes about 40 KiB of stack a level.
const MAX_DEPTH: usize = 32;

/// What is said of a tree that is deeper.
pub(crate) const TOO_DEEP_PROBLEM: &str = "nests too deep; at most 32 levels of parentheses, brackets, \
    calls and operators in a row fit: split it over several fields";

/// A type's name stands for the type, as in `type(x) == int`.
#[rustfmt::skip]
const TYPES: [&str; 12] = [
    "bool", "bytes", "decimal", "double", "int", "list", "map", "null_type", "optional_type",
    "string", "type", "uint",
];

/// Operators are calls of names that no user can write. Those not here are replaced by ours.
#[rustfmt::skip]
const OPERATORS: [&str; 12] = [
    op::ADD, op::CONDITIONAL, op::DIVIDE, op::IN, op::LOGICAL_AND, op::LOGICAL_NOT, op::LOGICAL_OR,
    op::MODULO, op::MULTIPLY, op::NEGATE, op::NOT_STRICTLY_FALSE, op::SUBSTRACT,
];

/// What an expression sees.
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

    /// The name as a user writes it.
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

/// What is known of a checked expression.
pub(crate) struct CheckedExpr {
    /// The variables it uses.
    pub uses: BTreeSet<Variable>,
    /// The patterns it has as literals, by the number that stands in their place.
    pub patterns: Vec<Pattern>,
}

/// Checks a parsed expression and rewrites it, or says what is wrong.
pub(crate) fn check_and_instrument(
    tree: &mut IdedExpr,
    left: &mut PatternBudget,
) -> Result<CheckedExpr, String> {
    // Before anything goes through the tree by recursion, and again for what was put in.
    check_depth(tree)?;
    let mut walk =
        Instrumenter { used: BTreeSet::new(), patterns: Vec::new(), left, element: None };
    walk.visit(tree)?;
    check_depth(tree)?;
    Ok(CheckedExpr { uses: walk.used, patterns: walk.patterns })
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

/// What an evaluation of this tree costs besides what it uses: a step for each node, and its
/// literals.
fn steps(tree: &IdedExpr) -> usize {
    let mut cost = 0;
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        cost += STEP;
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
        Expr::Map(map) => map.entries.iter().flat_map(|entry| parts(&entry.expr)).collect(),
        Expr::Struct(message) => {
            message.entries.iter().flat_map(|entry| parts(&entry.expr)).collect()
        }
    }
}

fn parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Instrumenter<'l> {
    used: BTreeSet<Variable>,
    patterns: Vec<Pattern>,
    left: &'l mut PatternBudget,
    /// Inside a macro, the name of its element.
    element: Option<String>,
}

impl Instrumenter<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => Err("is not complete".to_owned()),
            Expr::Struct(message) => Err(format!(
                "there is no message type `{}`; write a map, as in {{'name': value}}",
                message.type_name
            )),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|node| self.visit(node)),
            Expr::Map(map) => {
                map.entries.iter_mut().try_for_each(|entry| self.entry(&mut entry.expr))
            }
            Expr::Comprehension(macro_) => self.comprehension(macro_),
            Expr::Call(call) if !is_index(call) => {
                self.call(call)?;
                if let Some(cost) = cost_of_result(&call.func_name) {
                    wrap_at(RESULT, node, cost);
                }
                Ok(())
            }
            Expr::Ident(_) | Expr::Select(_) | Expr::Call(_) => {
                let is_test = matches!(&node.expr, Expr::Select(select) if select.test);
                if self.path(node)? && !is_test {
                    wrap(CHARGE_USE, node);
                }
                Ok(())
            }
        }
    }

    /// A path such as `new.a[0].b`; whether it begins with a variable, so that its use is paid for.
    fn path(&mut self, node: &mut IdedExpr) -> Result<bool, String> {
        match &mut node.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.path(&mut select.operand),
            Expr::Call(call) if is_index(call) => {
                let [operand, index] = call.args.as_mut_slice() else {
                    return Err("is not complete".to_owned());
                };
                let variable = self.path(operand)?;
                self.visit(index)?;
                Ok(variable)
            }
            _ => self.visit(node).map(|()| false),
        }
    }

    /// Whether a name is a variable's; else it is a type's, or an error.
    fn name(&mut self, name: &str) -> Result<bool, String> {
        if self.element.as_deref() == Some(name) {
            return Ok(true);
        }
        if let Some(variable) = Variable::ALL.into_iter().find(|known| known.name() == name) {
            self.used.insert(variable);
            return Ok(true);
        }
        // What a macro puts into its loop begins with an `@`, which no user can write.
        if name.starts_with('@') || TYPES.contains(&name) {
            return Ok(false);
        }
        let known = Variable::ALL.map(Variable::name).join(", ");
        Err(format!("there is no variable `{name}`; there are {known}"))
    }

    fn entry(&mut self, entry: &mut EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&mut field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key)?;
                self.visit(&mut entry.value)
            }
        }
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        if let Some(ours) = replacement(&call.func_name) {
            // cel knows a macro's own `@result + […]` by its form, and appends in place.
            if !call.args.first().is_some_and(is_result) {
                call.func_name = ours.to_owned();
            }
        } else if !OPERATORS.contains(&&*call.func_name) {
            let qualified = call.target.as_ref().and_then(|target| match &target.expr {
                Expr::Ident(namespace) => Some(format!("{namespace}.{}", call.func_name)),
                _ => None,
            });
            if qualified.is_some_and(|name| FUNCTIONS.contains(&name.as_str())) {
                return call.args.iter_mut().try_for_each(|node| self.visit(node));
            }
            if !FUNCTIONS.contains(&call.func_name.as_str()) {
                return Err(format!(
                    "there is no function `{}` with {} argument(s)",
                    call.func_name,
                    call.args.len()
                ));
            }
        }
        if call.func_name == MATCHES {
            self.pattern(call)?;
        }
        if let Some(target) = &mut call.target {
            self.visit(target)?;
        }
        call.args.iter_mut().try_for_each(|node| self.visit(node))
    }

    /// Compiles a pattern that is there as a literal; its number takes its place.
    fn pattern(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let Some(node) = call.args.last_mut() else {
            return Ok(());
        };
        let Expr::Literal(LiteralValue::String(pattern)) = &node.expr else {
            return Ok(());
        };
        let compiled = Pattern::compile(pattern.inner(), self.left);
        self.patterns
            .push(compiled.map_err(|problem| format!("the pattern of matches {problem}"))?);
        node.expr = int(self.patterns.len() - 1);
        call.func_name = MATCHES_LITERAL.to_owned();
        Ok(())
    }

    fn comprehension(&mut self, macro_: &mut ComprehensionExpr) -> Result<(), String> {
        if self.element.is_some() {
            return Err("has a macro (all, exists, exists_one, map, filter) inside another; \
                write them one after the other, as in list.filter(x, …).map(x, …)"
                .to_owned());
        }
        self.visit(&mut macro_.iter_range)?;
        self.element = Some(macro_.iter_var.clone());
        let step = self.visit(&mut macro_.loop_step);
        self.element = None;
        step?;
        let cost = steps(&macro_.loop_step);
        wrap_at(RANGE, &mut macro_.iter_range, cost);
        // all and exists go on after an error. A literal never ends the loop: there it does.
        if !matches!(macro_.loop_cond.expr, Expr::Literal(_)) {
            wrap(CHARGE_ITERATION, &mut macro_.loop_cond);
        }
        Ok(())
    }
}

fn is_index(call: &CallExpr) -> bool {
    call.target.is_none() && [op::INDEX, op::OPT_INDEX, op::OPT_SELECT].contains(&&*call.func_name)
}

/// What a macro has gathered so far.
fn is_result(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name.starts_with('@'))
}

/// The same, with a cost as one more argument.
fn wrap_at(function: &str, node: &mut IdedExpr, cost: usize) {
    wrap(function, node);
    if let Expr::Call(call) = &mut node.expr {
        call.args.push(IdedExpr { id: node.id, expr: int(cost) });
    }
}

fn int(number: usize) -> Expr {
    Expr::Literal(LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into()))
}

fn wrap(function: &str, node: &mut IdedExpr) {
    let inner = std::mem::take(node);
    node.id = inner.id;
    node.expr =
        Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] });
}
