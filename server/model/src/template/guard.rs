//! A template with its costs made countable.
//!
//! minijinja's fuel counts instructions, whatever each of them does: `{% set x = x ~ x %}` forty
//! times over needs little fuel and a terabyte. So a template is parsed, and written out again with
//! a filter of [`super::meter`] around whatever makes or scans text or containers. Filters, unlike
//! functions, cannot be shadowed by what a template sets. Tags that chat templates do not use
//! (inheritance, includes, recursive loops) are refused.

use std::fmt::Write;

use minijinja::Value;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CompareOpKind, Expr, ForLoop, IfCond, Macro, Stmt, UnaryOpKind,
};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;

use super::TemplateError;

/// Operands of one kind of concatenation before their sum is counted.
const MAX_CHAIN: usize = 8;
/// Macros capture what is set before them, each other included: bounds how deep.
const MAX_MACROS: usize = 64;

/// `source` with every cost guarded.
pub(super) fn guarded(source: &str, syntax: SyntaxConfig) -> Result<String, TemplateError> {
    let tree =
        parse(source, "chat", syntax).map_err(|error| TemplateError::Syntax(error.to_string()))?;
    let mut guard = Guard { out: String::with_capacity(2 * source.len()), macros: 0, loops: 0 };
    guard.statement(&tree)?;
    Ok(guard.out)
}

fn unsupported<T>(what: &str) -> Result<T, TemplateError> {
    Err(TemplateError::Syntax(format!("{what} is not supported")))
}

/// Writes the template out again.
struct Guard {
    out: String,
    macros: usize,
    /// Loops and macros around the statement being written.
    loops: usize,
}

type Written = Result<(), TemplateError>;

impl Guard {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn body(&mut self, statements: &[Stmt<'_>]) -> Written {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Written {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitRaw(raw) => {
                self.put("{{ ");
                self.text(raw.raw);
                self.put(" }}");
            }
            Stmt::EmitExpr(emit) => {
                self.put("{{ ");
                self.expression(&emit.expr)?;
                self.put(" }}");
            }
            Stmt::ForLoop(for_loop) => self.for_loop(for_loop)?,
            Stmt::IfCond(condition) => {
                self.put("{% if ");
                self.condition(condition)?;
                self.put("{% endif %}");
            }
            Stmt::WithBlock(with) => {
                self.put("{% with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    self.put(if index == 0 { "" } else { ", " });
                    self.put("(");
                    self.target(target)?;
                    self.put(") = ");
                    self.expression(value)?;
                }
                self.put(" %}");
                self.body(&with.body)?;
                self.put("{% endwith %}");
            }
            Stmt::Set(set) => {
                self.put("{% set ");
                self.target(&set.target)?;
                self.put(" = (");
                self.expression(&set.expr)?;
                // A namespace in a namespace could go round in circles.
                self.put(if matches!(set.target, Expr::GetAttr(_)) {
                    "|_held) %}"
                } else {
                    ") %}"
                });
            }
            Stmt::SetBlock(set) if set.filter.is_none() => {
                self.put("{% set ");
                self.target(&set.target)?;
                self.put(" %}");
                self.body(&set.body)?;
                self.put("{% endset %}");
            }
            Stmt::Macro(declaration) => self.declare(declaration)?,
            Stmt::Continue(_) => self.put("{% continue %}"),
            Stmt::Break(_) => self.put("{% break %}"),
            Stmt::SetBlock(_) | Stmt::FilterBlock(_) => return unsupported("a filtered block"),
            Stmt::AutoEscape(_) => return unsupported("autoescape"),
            Stmt::CallBlock(_) => return unsupported("a call block"),
            Stmt::Do(_) => return unsupported("do"),
            _ => return unsupported("inheritance and inclusion"),
        }
        Ok(())
    }

    fn for_loop(&mut self, for_loop: &ForLoop<'_>) -> Written {
        if for_loop.recursive {
            return unsupported("a recursive loop");
        }
        self.loops += 1;
        self.put("{% for ");
        self.target(&for_loop.target)?;
        self.put(" in ");
        self.scanned(&for_loop.iter)?;
        if let Some(filter) = &for_loop.filter_expr {
            self.put(" if ");
            self.expression(filter)?;
        }
        self.put(" %}");
        self.body(&for_loop.body)?;
        self.loops -= 1;
        if !for_loop.else_body.is_empty() {
            self.put("{% else %}");
            self.body(&for_loop.else_body)?;
        }
        self.put("{% endfor %}");
        Ok(())
    }

    /// What follows `{% if `, up to `{% endif %}`.
    fn condition(&mut self, condition: &IfCond<'_>) -> Written {
        self.expression(&condition.expr)?;
        self.put(" %}");
        self.body(&condition.true_body)?;
        match condition.false_body.as_slice() {
            [] => Ok(()),
            // As deep as it was written: the parser bounds depth.
            [Stmt::IfCond(other)] => {
                self.put("{% elif ");
                self.condition(other)
            }
            body => {
                self.put("{% else %}");
                self.body(body)
            }
        }
    }

    fn declare(&mut self, declaration: &Macro<'_>) -> Written {
        self.macros += 1;
        if self.macros > MAX_MACROS || self.loops > 0 {
            return unsupported("a macro in a loop, or one of very many,");
        }
        self.loops += 1;
        self.put("{% macro ");
        self.put(declaration.name);
        self.put("(");
        let plain = declaration.args.len().saturating_sub(declaration.defaults.len());
        for (index, argument) in declaration.args.iter().enumerate() {
            self.put(if index == 0 { "" } else { ", " });
            self.target(argument)?;
            if let Some(default) =
                index.checked_sub(plain).and_then(|at| declaration.defaults.get(at))
            {
                self.put("=");
                self.expression(default)?;
            }
        }
        self.put(") %}");
        self.body(&declaration.body)?;
        self.put("{% endmacro %}");
        self.loops -= 1;
        Ok(())
    }

    /// What is assigned to.
    fn target(&mut self, target: &Expr<'_>) -> Written {
        match target {
            Expr::Var(variable) => self.put(variable.id),
            Expr::GetAttr(attribute) => {
                self.target(&attribute.expr)?;
                self.put(".");
                self.put(attribute.name);
            }
            Expr::List(list) => {
                for item in &list.items {
                    let nested = matches!(item, Expr::List(_));
                    self.put(if nested { "(" } else { "" });
                    self.target(item)?;
                    self.put(if nested { ")," } else { "," });
                }
            }
            other => return unsupported(other.description()),
        }
        Ok(())
    }

    /// An expression that can be followed by a filter or an operator: a name, a literal, or in
    /// parentheses.
    fn expression(&mut self, expression: &Expr<'_>) -> Written {
        match expression {
            Expr::Var(variable) => self.put(variable.id),
            Expr::Const(constant) => self.constant(&constant.value)?,
            Expr::Slice(slice) => {
                self.put("(");
                self.scanned(&slice.expr)?;
                self.put("[");
                self.optional(slice.start.as_ref())?;
                self.put(":");
                self.optional(slice.stop.as_ref())?;
                if slice.step.is_some() {
                    self.put(":");
                    self.optional(slice.step.as_ref())?;
                }
                self.put("]|_made)");
            }
            Expr::UnaryOp(unary) => {
                self.put(match unary.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expression(&unary.expr)?;
                self.put(")");
            }
            Expr::BinOp(binary) => self.binary(binary)?,
            Expr::Compare(compare) => {
                self.put("(");
                self.scanned(&compare.expr)?;
                for operand in &compare.ops {
                    self.put(comparison(operand.op));
                    self.scanned(&operand.expr)?;
                }
                self.put(")");
            }
            Expr::IfExpr(choice) => {
                self.put("(");
                self.expression(&choice.true_expr)?;
                self.put(" if ");
                self.expression(&choice.test_expr)?;
                if let Some(other) = &choice.false_expr {
                    self.put(" else ");
                    self.expression(other)?;
                }
                self.put(")");
            }
            Expr::Filter(filter) => {
                let Some(input) = &filter.expr else { return unsupported("a filtered block") };
                self.put("(");
                self.scanned(input)?;
                self.put("|");
                self.put(filter.name);
                self.arguments(&filter.args, false)?;
                self.put("|_made)");
            }
            Expr::Test(test) => {
                self.put("(");
                // Nothing is scanned to see whether something is there.
                if matches!(test.name, "defined" | "undefined" | "none") {
                    self.expression(&test.expr)?;
                } else {
                    self.scanned(&test.expr)?;
                }
                self.put(" is ");
                self.put(test.name);
                if !test.args.is_empty() {
                    self.arguments(&test.args, false)?;
                }
                self.put(")");
            }
            Expr::GetAttr(attribute) => {
                self.expression(&attribute.expr)?;
                self.put(".");
                self.put(attribute.name);
            }
            Expr::GetItem(item) => {
                self.scanned(&item.expr)?;
                self.put("[");
                self.expression(&item.subscript_expr)?;
                self.put("]");
            }
            Expr::Call(call) => self.call(call)?,
            Expr::List(list) => self.items(&list.items)?,
            // A tuple prints as a list here, and nothing that chat templates do tells them apart.
            Expr::Tuple(tuple) => self.items(&tuple.items)?,
            Expr::Map(map) => {
                self.put("({");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.expression(key)?;
                    self.put(": ");
                    self.expression(value)?;
                    self.put(", ");
                }
                self.put("}|_held)");
            }
        }
        Ok(())
    }

    fn items(&mut self, items: &[Expr<'_>]) -> Written {
        self.put("([");
        for item in items {
            self.expression(item)?;
            self.put(", ");
        }
        self.put("]|_held)");
        Ok(())
    }

    fn optional(&mut self, expression: Option<&Expr<'_>>) -> Written {
        expression.map_or(Ok(()), |expression| self.expression(expression))
    }

    /// An expression whose value is about to be gone through.
    fn scanned(&mut self, expression: &Expr<'_>) -> Written {
        if matches!(expression, Expr::Const(_)) {
            return self.expression(expression);
        }
        self.put("(");
        self.expression(expression)?;
        self.put("|_scanned)");
        Ok(())
    }

    /// An expression that is about to be joined with another.
    fn joined(&mut self, expression: &Expr<'_>) -> Written {
        if matches!(expression, Expr::Const(_)) {
            return self.expression(expression);
        }
        self.put("(");
        self.expression(expression)?;
        self.put("|_joined)");
        Ok(())
    }

    fn binary(&mut self, binary: &BinOp<'_>) -> Written {
        let operator = match binary.op {
            BinOpKind::Add => return self.chain(binary, " + "),
            BinOpKind::Concat => return self.chain(binary, " ~ "),
            // Text times a number is not worth its danger.
            BinOpKind::Mul => {
                self.put("(");
                self.expression(&binary.left)?;
                self.put("|_number * ");
                self.expression(&binary.right)?;
                self.put("|_number)");
                return Ok(());
            }
            BinOpKind::Eq => " == ",
            BinOpKind::Ne => " != ",
            BinOpKind::Lt => " < ",
            BinOpKind::Lte => " <= ",
            BinOpKind::Gt => " > ",
            BinOpKind::Gte => " >= ",
            BinOpKind::In => " in ",
            BinOpKind::ScAnd => " and ",
            BinOpKind::ScOr => " or ",
            BinOpKind::Sub => " - ",
            BinOpKind::Div => " / ",
            BinOpKind::FloorDiv => " // ",
            BinOpKind::Rem => " % ",
            BinOpKind::Pow => " ** ",
        };
        let logical = matches!(binary.op, BinOpKind::ScAnd | BinOpKind::ScOr);
        self.put("(");
        for (index, side) in [&binary.left, &binary.right].into_iter().enumerate() {
            self.put(if index == 0 { "" } else { operator });
            if logical { self.expression(side)? } else { self.scanned(side)? }
        }
        self.put(")");
        Ok(())
    }

    /// `a + b + c`, counted once: written as nested pairs, long sums would be too deep to parse.
    fn chain(&mut self, binary: &BinOp<'_>, operator: &str) -> Written {
        let same =
            |op: BinOpKind| std::mem::discriminant(&op) == std::mem::discriminant(&binary.op);
        let mut right = vec![&binary.right];
        let mut left = &binary.left;
        while let Expr::BinOp(inner) = left
            && same(inner.op)
            && right.len() + 1 < MAX_CHAIN
        {
            right.push(&inner.right);
            left = &inner.left;
        }
        self.put("((");
        self.joined(left)?;
        for operand in right.into_iter().rev() {
            self.put(operator);
            self.joined(operand)?;
        }
        self.put(")|_made)");
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Written {
        self.put("(");
        let held = match &call.expr {
            Expr::Var(variable) => {
                self.put(variable.id);
                matches!(variable.id, "namespace" | "dict")
            }
            Expr::GetAttr(attribute) => {
                self.scanned(&attribute.expr)?;
                self.put(".");
                self.put(attribute.name);
                false
            }
            other => return unsupported(&format!("a call of a {}", other.description())),
        };
        if call.args.is_empty() {
            self.put("()");
        } else {
            self.arguments(&call.args, held)?;
        }
        self.put("|_made)");
        Ok(())
    }

    /// Arguments in parentheses, if any; `held` ones are kept in a container.
    fn arguments(&mut self, arguments: &[CallArg<'_>], held: bool) -> Written {
        if arguments.is_empty() {
            return Ok(());
        }
        self.put("(");
        for argument in arguments {
            let value = match argument {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    value
                }
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return unsupported("a spread argument");
                }
            };
            self.expression(value)?;
            self.put(if held { "|_held, " } else { ", " });
        }
        self.put(")");
        Ok(())
    }

    fn constant(&mut self, value: &Value) -> Written {
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::None => self.put("none"),
            // Digits as minijinja writes them; writing to a string does not fail.
            ValueKind::Number => drop(write!(self.out, "({value})")),
            other => return unsupported(&format!("a constant {other}")),
        }
        Ok(())
    }

    /// A string literal.
    fn text(&mut self, text: &str) {
        self.put("\"");
        for character in text.chars() {
            match character {
                '"' => self.put("\\\""),
                '\\' => self.put("\\\\"),
                // Newlines in literals are subject to the syntax's own rules.
                '\n' => self.put("\\n"),
                '\r' => self.put("\\r"),
                plain => self.out.push(plain),
            }
        }
        self.put("\"");
    }
}

fn comparison(operator: CompareOpKind) -> &'static str {
    match operator {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}
