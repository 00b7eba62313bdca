//! A template with its costs made countable.
//!
//! minijinja's fuel counts instructions, whatever each of them does: `{% set x = x ~ x %}` forty
//! times over needs little fuel and a terabyte. So a template is parsed, and written out again with
//! a filter of [`super::meter`] around whatever makes or scans text or containers. Filters, unlike
//! functions, cannot be shadowed by what a template sets. Tags that chat templates do not use
//! (inheritance, includes, recursive loops) are refused.

mod expression;

use minijinja::machinery::ast::{Expr, ForLoop, IfCond, Macro, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use super::TemplateError;

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
}
