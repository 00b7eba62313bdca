//! Expressions, guarded.

use std::fmt::Write;

use minijinja::Value;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CompareOpKind, Expr, UnaryOpKind,
};
use minijinja::value::ValueKind;

use super::{Guard, Written, unsupported};

/// Operands of one kind of concatenation before their sum is counted.
const MAX_CHAIN: usize = 8;

impl Guard {
    /// An expression that can be followed by a filter or an operator: a name, a literal, or in
    /// parentheses.
    pub(super) fn expression(&mut self, expression: &Expr<'_>) -> Written {
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
    pub(super) fn scanned(&mut self, expression: &Expr<'_>) -> Written {
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
    pub(super) fn text(&mut self, text: &str) {
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
