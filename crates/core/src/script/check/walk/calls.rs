//! The arguments of one call: their number, their types, their options, and how far the call reaches.
//!
//! Invariant: only a certain mistake is an error; the value of a variable is left to the run.

use super::super::super::arguments::{normal, plural, takes_options, typed, unknown_option, usage};
use super::super::super::verify;
use super::{AstWalk, CallArguments};
use crate::model::{ActionSpec, ImpactScope, ParamSpec, ParamType};
use rhai::{Dynamic, Expr, Position};
use serde_json::Value;

impl AstWalk<'_> {
    pub(super) fn action(&mut self, number: usize, args: &CallArguments<'_>, at: Position) {
        let spec = self.host.specs[number];
        self.actions.insert(number);
        if spec.mutates() && spec.reach > ImpactScope::None && self.changes.is_none_or(|(last, _)| last < at) {
            self.changes = Some((at, spec.name));
        }
        if spec.reach > self.header.reach {
            self.error(
                "reach-exceeded",
                at,
                format!(
                    "`{}` affects a {}, but the header declares `scope: {}`",
                    spec.name, spec.reach, self.header.reach
                ),
                &format!("write `//! scope: {}` in the header, if that is intended", spec.reach),
            );
        }
        self.arity(spec, args, at);
        for (place, expr) in args.exprs.iter().enumerate() {
            let count = args.receiver + place + 1;
            let last = place + 1 == args.exprs.len();
            if let Expr::Map(map, _) = expr
                && last
                && takes_options(spec, count)
            {
                self.options(spec, map.0.iter().map(|(key, value)| (key.name.as_str(), key.pos, value)));
            } else if let Some(param) = spec.params.get(count - 1) {
                self.argument(param, expr);
            }
        }
    }

    fn arity(&mut self, spec: &ActionSpec, args: &CallArguments<'_>, at: Position) {
        let count = args.count();
        let last = args.exprs.last();
        let takes = count > 0 && takes_options(spec, count);
        let most = if takes && last.is_some_and(|last| matches!(last, Expr::Map(..))) { count - 1 } else { count };
        let least = if takes && last.is_some_and(may_be_map) { count - 1 } else { count };
        let required = spec.params.iter().filter(|param| param.required).count();
        if most < required {
            let missing = spec.params[most].name;
            self.error(
                "wrong-arity",
                at,
                format!("`{}` needs `{missing}`", spec.name),
                &format!("write `{}`", usage(spec)),
            );
        } else if least > spec.params.len() {
            let most = spec.params.len();
            let message = format!("`{}` takes at most {most} {}, not {count}", spec.name, plural(most));
            self.error("wrong-arity", at, message, &format!("write `{}`", usage(spec)));
        }
    }

    fn argument(&mut self, param: &ParamSpec, expr: &Expr) {
        let at = expr.start_position();
        let wrong = match expr {
            Expr::InterpolatedString(..) => {
                // Whatever its content, it is a text that is not empty.
                let text = match param.ty {
                    ParamType::Duration => "1s",
                    _ => "text",
                };
                typed(param, &Dynamic::from(text)).err()
            }
            Expr::Variable(variable, ..) => self.parameter(&variable.1, param),
            Expr::Map(..) => typed(param, &Dynamic::from_map(rhai::Map::new())).err(),
            Expr::Array(..) => typed(param, &Dynamic::from_array(Vec::new())).err(),
            other => other.get_literal_value(None).and_then(|value| match value.is_unit() && !param.required {
                true => None,
                false => typed(param, &value).err(),
            }),
        };
        if let Some(wrong) = wrong {
            let bad_span = param.ty == ParamType::Duration && matches!(expr, Expr::StringConstant(..));
            let code = if bad_span { "bad-duration" } else { "wrong-type" };
            self.error(code, at, wrong, &format!("`{}` is {}", param.name, param.doc));
        }
    }

    /// A parameter of the header given where another type is required.
    fn parameter(&self, name: &str, wanted: &ParamSpec) -> Option<String> {
        if self.declared.contains(name) {
            return None;
        }
        let given = self.header.params.iter().find(|param| param.name == name)?;
        let text = |ty| !matches!(ty, ParamType::Int | ParamType::Float | ParamType::Bool | ParamType::Any);
        let thing = |ty| text(ty) && !matches!(ty, ParamType::String | ParamType::Query);
        let clash = match (given.ty, wanted.ty) {
            (ParamType::Any, _) | (_, ParamType::Any) => false,
            (given, wanted) if given == wanted => false,
            (given, wanted) if thing(given) && thing(wanted) => true,
            (given, wanted) if text(given) && text(wanted) => false,
            (ParamType::Int, wanted) => normal(wanted, Value::from(1)).is_err(),
            (ParamType::Float, wanted) => normal(wanted, Value::from(1.5)).is_err(),
            (ParamType::Bool, wanted) => normal(wanted, Value::Bool(true)).is_err(),
            (_, wanted) => normal(wanted, Value::from("text")).is_err(),
        };
        clash
            .then(|| format!("`{}` must be a {}, but `{name}` is a {}", wanted.name, wanted.ty.name(), given.ty.name()))
    }

    fn options<'e>(&mut self, spec: &ActionSpec, given: impl Iterator<Item = (&'e str, Position, &'e Expr)>) {
        for (key, at, value) in given {
            match spec.options.iter().find(|option| option.name == key) {
                Some(option) => self.argument(option, value),
                None => self.error(
                    "unknown-option",
                    at,
                    format!("`{}`: {}", spec.name, unknown_option(spec, key)),
                    &format!("write `{}`", usage(spec)),
                ),
            }
        }
    }

    pub(super) fn verify(&mut self, args: &CallArguments<'_>, at: Position) {
        self.verified = self.verified.max(Some(at));
        for name in ["now", "sleep"] {
            self.actions.extend(self.host.find(name));
        }
        self.built_in_arity("verify", 1..=2, args.count(), "verify(|| condition, #{hold: \"10m\"})", at);
        let Some(Expr::Map(map, _)) = args.exprs.last() else { return };
        for (key, value) in &map.0 {
            if let Some((name, _)) = verify::OPTIONS.iter().find(|(name, _)| *name == key.name.as_str()) {
                let param = ParamSpec { name, ty: ParamType::Duration, required: true, doc: "a length of time" };
                self.argument(&param, value);
            } else {
                self.error(
                    "unknown-option",
                    key.pos,
                    format!("`verify`: {}", verify::unknown_option(&key.name)),
                    "write `verify(|| condition, #{hold: \"10m\", within: \"30m\"})`",
                );
            }
        }
    }
}

fn may_be_map(expr: &Expr) -> bool {
    matches!(expr, Expr::Map(..))
        || expr.get_literal_value(None).is_none() && !matches!(expr, Expr::InterpolatedString(..) | Expr::Array(..))
}
