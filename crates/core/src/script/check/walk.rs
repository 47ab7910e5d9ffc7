//! A walk over every call and statement of a parsed runbook.
//!
//! Invariant: a run may call only the actions it finds; the session refuses calls that it cannot see.

mod calls;

use super::super::arguments::plural;
use super::super::host::{BUILT_IN, ScriptHost};
use super::super::near::nearest;
use super::{Diagnostic, spot, word_at};
use crate::limits;
use crate::model::{ActionSpec, RunbookHeader};
use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, Position, ScriptFnMetadata, Stmt};
use std::collections::{BTreeMap, BTreeSet};

/// Words that the language itself answers, and that are no functions of the engine.
const LANGUAGE: [&str; 10] =
    ["print", "debug", "type_of", "Fn", "call", "curry", "is_def_var", "is_def_fn", "is_shared", "this"];

pub(super) struct AstWalkResult {
    pub(super) actions: BTreeSet<usize>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

pub(super) fn walk(text: &str, ast: &AST, header: &RunbookHeader, host: &ScriptHost) -> AstWalkResult {
    let mut functions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for function in ast.iter_functions() {
        functions.entry(function.name).or_default().push(function.params.len());
    }
    let mut declared = BTreeSet::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Var(var, ..))) = path.last() {
            declared.insert(var.0.name.to_string());
        }
        true
    });
    let mut walk = AstWalk {
        text,
        header,
        host,
        functions,
        declared,
        actions: BTreeSet::new(),
        used: BTreeSet::new(),
        changes: None,
        verified: None,
        diagnostics: Vec::new(),
    };
    walk.sequence(ast.statements());
    ast.clone_statements_only().walk(&mut |path| {
        walk.node(path);
        true
    });
    for function in ast.iter_functions() {
        walk.function(ast, &function);
    }
    walk.hidden_actions();
    walk.missing_verify();
    walk.unused_params();
    AstWalkResult { actions: walk.actions, diagnostics: walk.diagnostics }
}

struct AstWalk<'a> {
    text: &'a str,
    header: &'a RunbookHeader,
    host: &'a ScriptHost,
    /// Functions of the script, with their numbers of parameters.
    functions: BTreeMap<&'a str, Vec<usize>>,
    /// Names that `let` and `const` declare; a parameter of the same name is hidden.
    declared: BTreeSet<String>,
    actions: BTreeSet<usize>,
    used: BTreeSet<String>,
    /// The last call that changes something.
    changes: Option<(Position, &'static str)>,
    /// The last `verify`.
    verified: Option<Position>,
    diagnostics: Vec<Diagnostic>,
}

impl AstWalk<'_> {
    /// One function or closure. Only its parameters are in view (a closure's captures are among them), but the parser
    /// takes the header's names for known everywhere.
    fn function(&mut self, ast: &AST, function: &ScriptFnMetadata<'_>) {
        // Not `clone_functions_only_filtered`: rhai 1.27 filters nothing there where the target is empty.
        let mut alone = ast.clone_functions_only();
        alone.retain_functions(|_, _, name, params| name == function.name && params == function.params.len());
        let mut ended = None;
        alone.walk(&mut |path| {
            if let [ASTNode::Stmt(statement)] = path {
                if let Some(word) = ended.take() {
                    self.unreachable(statement, word);
                }
                ended = never_goes_on(statement);
            }
            if let Some(ASTNode::Expr(Expr::Variable(variable, None, at))) = path.last() {
                let (index, name, namespace, _) = &**variable;
                let outer = index.is_none() && namespace.is_empty() && !function.params.contains(&name.as_str());
                if outer && (name == "event" || self.header.params.iter().any(|param| param.name == name.as_str())) {
                    let message = format!("there is no variable `{name}` inside a function");
                    let help = format!("a function sees only its own parameters: give `{name}` to it as one");
                    self.error("undefined-variable", *at, message, &help);
                }
            }
            self.node(path);
            true
        });
    }

    fn node(&mut self, path: &[ASTNode<'_>]) {
        match path.last() {
            Some(ASTNode::Stmt(statement)) => self.statement(statement),
            Some(ASTNode::Expr(Expr::FnCall(call, at))) => self.call(call, *at, CallStyle::Function),
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => self.call(call, *at, CallStyle::Method),
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) => self.used.extend([variable.1.to_string()]),
            Some(ASTNode::Expr(Expr::Stmt(block))) => self.sequence(block.statements()),
            _ => {}
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::FnCall(call, at) => self.call(call, *at, CallStyle::Function),
            Stmt::Import(_, at) => self.error(
                "import",
                *at,
                "`import` is not allowed: a run keeps one text, with its hash".to_owned(),
                "put the functions into this file",
            ),
            Stmt::If(flow, _) | Stmt::TryCatch(flow, _) => {
                self.sequence(flow.body.statements());
                self.sequence(flow.branch.statements());
            }
            Stmt::While(flow, at) => {
                self.sequence(flow.body.statements());
                let for_ever = matches!(flow.expr, Expr::Unit(_) | Expr::BoolConstant(true, _));
                if for_ever && !flow.body.statements().iter().any(leaves_loop) {
                    self.warn(
                        "endless-loop",
                        *at,
                        "this loop has no `break`".to_owned(),
                        "bound it (`for i in 0..10`), or use `verify` to wait for something",
                    );
                }
            }
            Stmt::Do(flow, ..) => self.sequence(flow.body.statements()),
            Stmt::For(parts, _) => self.sequence(parts.2.body.statements()),
            Stmt::Block(block) => self.sequence(block.statements()),
            Stmt::Share(names) => self.used.extend(names.iter().map(|(name, _)| name.name.to_string())),
            _ => {}
        }
    }

    /// Statements after one that never goes on.
    fn sequence(&mut self, statements: &[Stmt]) {
        for pair in statements.windows(2) {
            let [first, next] = pair else { continue };
            if let Some(word) = never_goes_on(first) {
                return self.unreachable(next, word);
            }
        }
    }

    fn unreachable(&mut self, next: &Stmt, word: &str) {
        let message = format!("this is never reached: `{word}` before it ends the runbook or block");
        self.warn("unreachable", next.position(), message, "remove it, or move it before");
    }

    fn call(&mut self, call: &FnCallExpr, at: Position, style: CallStyle) {
        if call.op_token.is_some() || call.name.starts_with("anon$") {
            return;
        }
        let args = CallArguments { exprs: &call.args, receiver: usize::from(style == CallStyle::Method) };
        if !call.namespace.is_empty() {
            let full = format!("{}::{}", call.namespace, call.name);
            return match self.host.find(&full) {
                Some(number) => self.action(number, &args, at),
                None => self.unknown_action(&full, at),
            };
        }
        let name = call.name.as_str();
        if self.functions.contains_key(name) && style == CallStyle::Function {
            return self.own_function(name, args.exprs.len(), at);
        }
        match name {
            // Rhai writes `curry` itself for a closure that captures.
            "curry" => {}
            "Fn" => self.error(
                "computed-call",
                at,
                "a function made from its name escapes review".to_owned(),
                "write a closure: `|x| name(x)`",
            ),
            "eval" => self.error(
                "eval",
                at,
                "`eval` is not allowed: it would run text that was not reviewed".to_owned(),
                "write the code itself",
            ),
            "stop" => self.built_in_arity(name, 1..=1, args.count(), "stop(\"why\")", at),
            "verify" => self.verify(&args, at),
            _ => match self.host.find(name) {
                Some(number) => self.action(number, &args, at),
                None => self.other(name, args.count(), style, at),
            },
        }
    }

    fn own_function(&mut self, name: &str, given: usize, at: Position) {
        let arities = &self.functions[name];
        if arities.contains(&given) || self.host.functions.contains(&(name.to_owned(), given)) {
            return;
        }
        let takes: Vec<String> = arities.iter().map(usize::to_string).collect();
        let message = format!("the function `{name}` takes {} arguments, not {given}", takes.join(" or "));
        self.error("wrong-arity", at, message, "");
    }

    fn built_in_arity(
        &mut self,
        name: &str,
        takes: std::ops::RangeInclusive<usize>,
        given: usize,
        usage: &str,
        at: Position,
    ) {
        if !takes.contains(&given) {
            let message = format!("`{name}` does not take {given} {}", plural(given));
            self.error("wrong-arity", at, message, &format!("write `{usage}`"));
        }
    }

    /// A function of the language's library, or none at all.
    fn other(&mut self, name: &str, given: usize, style: CallStyle, at: Position) {
        if self.full() || LANGUAGE.contains(&name) || self.host.functions.contains(&(name.to_owned(), given)) {
            return;
        }
        let known = self.host.functions.iter().any(|(other, _)| other == name);
        if style == CallStyle::Method {
            // A map can hold a closure under any name, so this is no more than a suspicion.
            if !known && !self.functions.contains_key(name) {
                self.warn("unknown-function", at, format!("there is no method `{name}`"), &self.meant(name));
            }
        } else if known {
            self.error("wrong-arity", at, format!("no function `{name}` takes {given} {}", plural(given)), "");
        } else {
            self.error("unknown-function", at, format!("there is no function `{name}`"), &self.meant(name));
        }
    }

    fn meant(&self, name: &str) -> String {
        // `cordon(node)` for `k8s::cordon(node)` is a common first mistake.
        let bare = self.host.specs.iter().map(|spec| spec.name).find(|full| full.rsplit("::").next() == Some(name));
        let own = self.functions.keys().copied();
        let library = self
            .host
            .functions
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        let known: Vec<&str> = self.host.callable().chain(own).chain(library).collect();
        let near = bare.or_else(|| nearest(name, known));
        near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default()
    }

    /// Whether there are enough diagnostics: suggestions cost time, and a hostile text has thousands of wrong names.
    fn full(&self) -> bool {
        self.diagnostics.len() >= limits::DIAGNOSTICS
    }

    fn unknown_action(&mut self, full: &str, at: Position) {
        if self.full() {
            return;
        }
        let near = nearest(full, self.host.callable());
        let namespace = full.rsplit_once("::").map_or("", |(namespace, _)| namespace);
        let of = |spec: &&&ActionSpec| spec.name.rsplit_once("::").is_some_and(|(other, _)| other == namespace);
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<&str> = self.host.specs.iter().filter(of).map(|spec| spec.name).collect();
                format!("`{namespace}` has {}", names.join(", "))
            }
        };
        self.error("unknown-action", at, format!("there is no action `{full}`"), &help);
    }

    /// A function of the script with the name of an action would take its place, unseen by the journal.
    fn hidden_actions(&mut self) {
        let hidden: Vec<&str> = self
            .functions
            .keys()
            .copied()
            .filter(|name| BUILT_IN.contains(name) || self.host.find(name).is_some())
            .collect();
        for name in hidden {
            let line = self.text.lines().position(|line| {
                let mut words =
                    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
                words.any(|word| word == "fn") && words.next() == Some(name)
            });
            let line = line.map_or(1, |at| at + 1);
            let column = self
                .text
                .lines()
                .nth(line - 1)
                .and_then(|text| text.find(name).map(|at| text[..at].chars().count() + 1));
            let message = format!("the function `{name}` hides the action of that name");
            let one = Diagnostic::error("hidden-action", (line, column.unwrap_or(1)), name.chars().count(), message);
            self.diagnostics.push(one.help("give it another name"));
        }
    }

    fn missing_verify(&mut self) {
        let Some((at, name)) = self.changes else { return };
        if self.verified.is_none() {
            self.warn(
                "missing-verify",
                at,
                format!("the result of `{name}` is not verified"),
                "end with `verify(|| …, #{hold: \"10m\"});`",
            );
        }
    }

    fn unused_params(&mut self) {
        for param in self.header.params.iter().filter(|param| !self.used.contains(&param.name)) {
            let line = self.text.lines().position(|line| {
                line.trim_start()
                    .strip_prefix("//!")
                    .and_then(|rest| rest.trim_start().strip_prefix(param.name.as_str()))
                    .is_some_and(|rest| rest.trim_start().starts_with(':'))
            });
            let line = line.map_or(1, |at| at + 1);
            let column = self.text.lines().nth(line - 1).and_then(|text| text.find(&param.name)).map_or(1, |at| at + 1);
            let message = format!("the parameter `{}` is never used", param.name);
            let one = Diagnostic::warning("unused-param", (line, column), param.name.chars().count(), message);
            self.diagnostics.push(one.help("use it, or take it out of the header"));
        }
    }

    fn error(&mut self, code: &'static str, at: Position, message: String, help: &str) {
        let place = spot(self.text, at);
        let length = word_at(self.text, place).chars().count().max(1);
        self.diagnostics.push(Diagnostic::error(code, place, length, message).help(help));
    }

    fn warn(&mut self, code: &'static str, at: Position, message: String, help: &str) {
        // Warnings leave room for errors: a text with an error must never pass for one without.
        if self.diagnostics.len() >= limits::DIAGNOSTICS / 2 {
            return;
        }
        let place = spot(self.text, at);
        let length = word_at(self.text, place).chars().count().max(1);
        self.diagnostics.push(Diagnostic::warning(code, place, length, message).help(help));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CallStyle {
    Function,
    Method,
}

/// The arguments of a call; of a method the receiver is the first.
struct CallArguments<'e> {
    exprs: &'e [Expr],
    receiver: usize,
}

impl CallArguments<'_> {
    fn count(&self) -> usize {
        self.exprs.len() + self.receiver
    }
}

fn leaves_loop(statement: &Stmt) -> bool {
    let mut leaves = false;
    statement.walk(&mut Vec::new(), &mut |path: &[ASTNode<'_>]| {
        leaves |= matches!(path.last(), Some(ASTNode::Stmt(Stmt::BreakLoop(_, ASTFlags::BREAK, _) | Stmt::Return(..))));
        leaves |= matches!(path.last(), Some(ASTNode::Stmt(Stmt::FnCall(call, _)) ) if is_stop(call));
        leaves |= matches!(path.last(), Some(ASTNode::Expr(Expr::FnCall(call, _)) ) if is_stop(call));
        true
    });
    leaves
}

fn is_stop(call: &FnCallExpr) -> bool {
    call.namespace.is_empty() && call.name == "stop"
}

fn never_goes_on(statement: &Stmt) -> Option<&'static str> {
    match statement {
        Stmt::Return(_, flags, _) => Some(if flags.contains(ASTFlags::BREAK) { "throw" } else { "return" }),
        Stmt::BreakLoop(_, flags, _) => Some(if flags.contains(ASTFlags::BREAK) { "break" } else { "continue" }),
        Stmt::FnCall(call, _) if is_stop(call) => Some("stop"),
        Stmt::Expr(expr) => match &**expr {
            Expr::FnCall(call, _) if is_stop(call) => Some("stop"),
            _ => None,
        },
        _ => None,
    }
}
