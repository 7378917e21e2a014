//! The modules that a file of JavaScript requests: imports, re-exports, and calls of `require` with
//! a literal.

use std::collections::BTreeSet;

use oxc_allocator::Allocator;
use oxc_ast::AstKind;
use oxc_ast::ast::{
    Argument, AssignmentExpression, AssignmentTarget, AwaitExpression, BindingPattern,
    CallExpression, ConditionalExpression, ExportAllDeclaration, ExportFromDeclaration, Expression,
    FormalParameters, IfStatement, ImportDeclaration, ImportDeclarationSpecifier, ImportExpression,
    LogicalExpression, VariableDeclarator,
};
use oxc_ast_visit::{VisitJs, walk_js as walk};
use oxc_parser::{ParseOptions, Parser};
use oxc_span::SourceType;

/// How a module is requested. It selects the conditions of `exports` and the rules for file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// `import`, `export … from` and `import()`.
    Import,
    /// `require()`.
    Require,
    /// `require.resolve()`, which fails like `require()` and loads nothing.
    Resolve,
}

/// When a request is carried out, once its file is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestTime {
    /// Always, when the file is loaded. If the module is missing, loading the file fails.
    Load,
    /// When a function is called.
    Call,
    /// Only on a condition, or in a `try`. The program may run without the module.
    Guarded,
}

/// A request for a module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleRequest {
    /// The module's name as written: `dotenv/config`, `./cart.js`, `#texts`.
    pub specifier: String,
    /// How it is requested.
    pub kind: RequestKind,
    /// When it is requested.
    pub time: RequestTime,
}

/// The requests of a file.
#[derive(Debug, Default)]
pub struct ModuleRequests {
    /// Each request once.
    pub requests: BTreeSet<ModuleRequest>,
    /// Whether the file changes how Node resolves modules, as `module-alias` does.
    pub changes_resolution: bool,
}

/// Words of which every file with a request contains at least one.
const WORDS: [&str; 3] = ["require", "import", "export"];

/// Members of Node's `Module` that change resolution when they are assigned.
const HOOKS: [&str; 6] = [
    "_extensions",
    "_findPath",
    "_initPaths",
    "_nodeModulePaths",
    "_resolveFilename",
    "extensions",
];

impl ModuleRequests {
    /// Parses a file. A file that cannot be parsed has no requests: Node reports its syntax error.
    pub fn parse(file_name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !WORDS.iter().any(|word| text.contains(word)) {
            return Self::default();
        }
        let source_type = match file_name.rsplit_once('.') {
            Some((_, "mjs")) => SourceType::mjs(),
            Some((_, "cjs")) => SourceType::cjs(),
            _ => SourceType::unambiguous(),
        };
        let allocator = Allocator::default();
        let options = ParseOptions {
            allow_return_outside_function: true,
            ..ParseOptions::default()
        };
        let parsed = Parser::new(&allocator, text, source_type)
            .with_options(options)
            .parse();
        if parsed.panicked {
            return Self::default();
        }
        let mut visitor = RequestVisitor::default();
        // In an ES module, `require` exists only where the module creates it.
        if !parsed.program.source_type.is_module() {
            visitor.require_names.insert("require".into());
        }
        visitor.visit_program(&parsed.program);
        visitor.found
    }
}

#[derive(Default)]
struct RequestVisitor {
    found: ModuleRequests,
    /// Names of variables that hold a `require` function of this file.
    require_names: BTreeSet<String>,
    /// Names under which `createRequire` is imported.
    creator_names: BTreeSet<String>,
    /// The number of enclosing functions.
    functions: usize,
    /// The number of enclosing conditions and `try` blocks.
    guards: usize,
    /// The number of enclosing functions with a parameter `require`.
    shadows: usize,
    /// Whether a `return` or `process.exit()` above can end the file early.
    may_have_ended: bool,
}

impl RequestVisitor {
    fn time(&self) -> RequestTime {
        if self.guards > 0 || self.may_have_ended {
            RequestTime::Guarded
        } else if self.functions > 0 {
            RequestTime::Call
        } else {
            RequestTime::Load
        }
    }

    fn add(&mut self, specifier: &str, kind: RequestKind, time: RequestTime) {
        self.found.requests.insert(ModuleRequest {
            specifier: specifier.to_owned(),
            kind,
            time,
        });
    }

    fn guarded(&mut self, visit: impl FnOnce(&mut Self)) {
        self.guards += 1;
        visit(self);
        self.guards -= 1;
    }

    /// Whether the call creates a `require` function of this file.
    fn creates_require(&self, call: &CallExpression) -> bool {
        let is_creator = match call.callee.get_inner_expression() {
            Expression::Identifier(name) => {
                name.name == "createRequire" || self.creator_names.contains(name.name.as_str())
            }
            Expression::StaticMemberExpression(member) => member.property.name == "createRequire",
            _ => false,
        };
        let of_this_file = match call.arguments.first().and_then(Argument::as_expression) {
            Some(Expression::Identifier(name)) => name.name == "__filename",
            Some(Expression::StaticMemberExpression(member)) => {
                matches!(member.object, Expression::ImportMeta(_))
                    && (member.property.name == "url" || member.property.name == "filename")
            }
            _ => false,
        };
        is_creator && of_this_file
    }

    /// Whether the expression is a `require` function of this file.
    fn is_require(&self, expression: &Expression) -> bool {
        match expression.get_inner_expression() {
            Expression::Identifier(name) => {
                let is_shadowed = name.name == "require" && self.shadows > 0;
                !is_shadowed && self.require_names.contains(name.name.as_str())
            }
            Expression::StaticMemberExpression(_) => {
                expression.is_specific_member_access("module", "require")
            }
            Expression::CallExpression(call) => self.creates_require(call),
            _ => false,
        }
    }

    /// How the call requests a module, if it does.
    fn request_of(&self, call: &CallExpression) -> Option<(RequestKind, RequestTime)> {
        if self.is_require(&call.callee) {
            return Some((RequestKind::Require, self.time()));
        }
        match call.callee.get_inner_expression() {
            // Bundlers write this wrapper, which works only where `require` exists.
            Expression::Identifier(name) if name.name == "__require" => {
                Some((RequestKind::Require, RequestTime::Guarded))
            }
            Expression::StaticMemberExpression(member) if member.property.name == "resolve" => {
                let is_require = self.is_require(&member.object);
                // With `paths` the search starts elsewhere.
                let is_plain = call.arguments.len() == 1;
                (is_require && is_plain).then(|| (RequestKind::Resolve, self.time()))
            }
            _ => None,
        }
    }

    /// Whether the call registers a hook for resolution with Node.
    fn registers_hook(call: &CallExpression) -> bool {
        let is_hook = |name: &str| name == "register" || name == "registerHooks";
        match call.callee.get_inner_expression() {
            Expression::StaticMemberExpression(member) if is_hook(&member.property.name) => {
                match member.object.get_inner_expression() {
                    Expression::Identifier(name) => name.name.eq_ignore_ascii_case("module"),
                    Expression::CallExpression(inner) => {
                        inner.callee.is_specific_id("require")
                            && literal(inner).is_some_and(is_module_of_node)
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// The literal that is the call's first argument.
fn literal<'a>(call: &'a CallExpression) -> Option<&'a str> {
    call.arguments.first()?.as_expression().and_then(text_of)
}

/// The text of a literal without substitutions.
fn text_of<'a>(expression: &'a Expression) -> Option<&'a str> {
    match expression.get_inner_expression() {
        Expression::StringLiteral(literal) => Some(literal.value.as_str()),
        Expression::TemplateLiteral(template) if template.is_no_substitution_template() => template
            .quasis
            .first()?
            .value
            .cooked
            .as_ref()
            .map(oxc_ast::ast::Str::as_str),
        _ => None,
    }
}

fn is_module_of_node(specifier: &str) -> bool {
    specifier == "module" || specifier == "node:module"
}

/// Whether the code in the node runs only when a function is called.
fn is_function(kind: &AstKind) -> bool {
    matches!(
        kind,
        AstKind::Function(_) | AstKind::ArrowFunctionExpression(_) | AstKind::ClassBody(_)
    )
}

/// Whether the code in the node may not run, or may fail without ending the program.
fn is_guard(kind: &AstKind) -> bool {
    matches!(
        kind,
        AstKind::TryStatement(_)
            | AstKind::SwitchStatement(_)
            | AstKind::ForStatement(_)
            | AstKind::ForInStatement(_)
            | AstKind::ForOfStatement(_)
            | AstKind::WhileStatement(_)
            | AstKind::DoWhileStatement(_)
            | AstKind::LabeledStatement(_)
            | AstKind::WithStatement(_)
            | AstKind::ChainExpression(_)
            | AstKind::AssignmentPattern(_)
    )
}

impl<'a> VisitJs<'a> for RequestVisitor {
    fn enter_node(&mut self, kind: AstKind<'a>) {
        self.functions += usize::from(is_function(&kind));
        self.guards += usize::from(is_guard(&kind));
        if matches!(kind, AstKind::ReturnStatement(_)) && self.functions == 0 {
            self.may_have_ended = true;
        }
        let parameters = match kind {
            AstKind::Function(function) => &function.params,
            AstKind::ArrowFunctionExpression(function) => &function.params,
            _ => return,
        };
        self.shadows += usize::from(takes_require(parameters));
    }

    fn leave_node(&mut self, kind: AstKind<'a>) {
        self.functions -= usize::from(is_function(&kind));
        self.guards -= usize::from(is_guard(&kind));
        let parameters = match kind {
            AstKind::Function(function) => &function.params,
            AstKind::ArrowFunctionExpression(function) => &function.params,
            _ => return,
        };
        self.shadows -= usize::from(takes_require(parameters));
    }

    fn visit_if_statement(&mut self, it: &IfStatement<'a>) {
        self.visit_expression(&it.test);
        self.guarded(|visitor| {
            visitor.visit_statement(&it.consequent);
            if let Some(alternate) = &it.alternate {
                visitor.visit_statement(alternate);
            }
        });
    }

    fn visit_logical_expression(&mut self, it: &LogicalExpression<'a>) {
        self.visit_expression(&it.left);
        self.guarded(|visitor| visitor.visit_expression(&it.right));
    }

    fn visit_conditional_expression(&mut self, it: &ConditionalExpression<'a>) {
        self.visit_expression(&it.test);
        self.guarded(|visitor| {
            visitor.visit_expression(&it.consequent);
            visitor.visit_expression(&it.alternate);
        });
    }

    fn visit_assignment_expression(&mut self, it: &AssignmentExpression<'a>) {
        let target = match &it.left {
            // `Module._extensions['.ts'] = …`
            AssignmentTarget::ComputedMemberExpression(member) => match &member.object {
                Expression::StaticMemberExpression(member) => Some(member),
                _ => None,
            },
            AssignmentTarget::StaticMemberExpression(member) => Some(member),
            _ => None,
        };
        if let Some(member) = target {
            let name = member.property.name.as_str();
            let is_of_require = member.object.is_specific_id("require");
            if HOOKS.contains(&name) && (name != "extensions" || is_of_require) {
                self.found.changes_resolution = true;
            }
        }
        if it.operator.is_logical() {
            self.guarded(|visitor| walk::walk_assignment_expression(visitor, it));
        } else {
            walk::walk_assignment_expression(self, it);
        }
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        if let BindingPattern::BindingIdentifier(name) = &it.id {
            let creates = match &it.init {
                Some(Expression::CallExpression(call)) => self.creates_require(call),
                _ => false,
            };
            if creates {
                self.require_names.insert(name.name.to_string());
            } else if name.name == "require" && self.functions == 0 {
                self.require_names.remove("require");
            }
        }
        walk::walk_variable_declarator(self, it);
    }

    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        if let (Some((kind, time)), Some(specifier)) = (self.request_of(it), literal(it)) {
            self.add(specifier, kind, time);
        }
        if it.callee.is_specific_member_access("process", "exit") && self.functions == 0 {
            self.may_have_ended = true;
        }
        self.found.changes_resolution |= Self::registers_hook(it);
        walk::walk_call_expression(self, it);
    }

    fn visit_await_expression(&mut self, it: &AwaitExpression<'a>) {
        if let Expression::ImportExpression(import) = it.argument.get_inner_expression()
            && let Some(specifier) = text_of(&import.source)
        {
            self.add(specifier, RequestKind::Import, self.time());
            return;
        }
        walk::walk_await_expression(self, it);
    }

    fn visit_import_expression(&mut self, it: &ImportExpression<'a>) {
        if let Some(specifier) = text_of(&it.source) {
            // The promise may be awaited later, or its rejection may be handled.
            let time = self.time().max(RequestTime::Call);
            self.add(specifier, RequestKind::Import, time);
        }
        walk::walk_import_expression(self, it);
    }

    fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
        self.add(&it.source.value, RequestKind::Import, RequestTime::Load);
        if !is_module_of_node(&it.source.value) {
            return;
        }
        for specifier in it.specifiers.iter().flatten() {
            let ImportDeclarationSpecifier::ImportSpecifier(specifier) = specifier else {
                continue;
            };
            match specifier.imported.name().as_str() {
                "createRequire" => {
                    self.creator_names.insert(specifier.local.name.to_string());
                }
                "register" | "registerHooks" => self.found.changes_resolution = true,
                _ => {}
            }
        }
    }

    fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
        self.add(&it.source.value, RequestKind::Import, RequestTime::Load);
    }

    fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
        self.add(&it.source.value, RequestKind::Import, RequestTime::Load);
    }
}

/// Whether a parameter has the name `require`, as in the wrappers of bundlers.
fn takes_require(parameters: &FormalParameters) -> bool {
    parameters.items.iter().any(|parameter| {
        matches!(&parameter.pattern, BindingPattern::BindingIdentifier(name) if name.name == "require")
    })
}
