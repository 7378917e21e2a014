//! Paths in a config file in JavaScript or TypeScript. Calls such as `path.join` and `new URL` with
//! `__dirname`, `import.meta.url` and string literals are evaluated.

use std::collections::HashMap;
use std::path::Path;

use oxc_allocator::Allocator;
use oxc_ast::ast::{
    Argument, BinaryOperator, BindingPattern, CallExpression, Expression, NewExpression, Statement,
    TemplateLiteral, VariableDeclarator,
};
use oxc_ast_visit::{Visit, walk};
use oxc_parser::Parser;
use oxc_span::{GetSpan, SourceType};

use super::PathReference;

/// Methods of strings, whose arguments are not paths.
const STRING_METHODS: [&str; 9] = [
    "startsWith",
    "endsWith",
    "includes",
    "indexOf",
    "replace",
    "replaceAll",
    "split",
    "match",
    "test",
];

/// The known value of an expression.
#[derive(Debug, Clone)]
enum Value {
    /// A path relative to the app.
    Place(String),
    /// Any other text. It can be a path relative to the config file.
    Text(String),
}

/// The paths in a config file. `file` is relative to the app. None if the file cannot be parsed.
pub fn paths(file: &str, text: &str) -> Option<Vec<PathReference>> {
    let allocator = Allocator::default();
    let kind = SourceType::from_path(Path::new(file)).ok()?;
    let parsed = Parser::new(&allocator, text, kind).parse();
    if parsed.panicked {
        return None;
    }
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut reader = Reader {
        file,
        folder,
        text,
        constants: HashMap::new(),
        found: Vec::new(),
    };
    for statement in &parsed.program.body {
        reader.constants_of(statement);
    }
    reader.visit_program(&parsed.program);
    Some(reader.found)
}

struct Reader<'t> {
    file: &'t str,
    folder: &'t str,
    text: &'t str,
    /// The constants of the module that are known, with the position of the value.
    constants: HashMap<String, (Value, u32)>,
    found: Vec<PathReference>,
}

impl Reader<'_> {
    fn constants_of(&mut self, statement: &Statement) {
        let Statement::VariableDeclaration(declaration) = statement else {
            return;
        };
        if !declaration.kind.is_const() {
            return;
        }
        for declarator in &declaration.declarations {
            let (Some(name), Some(init)) = (name_of(declarator), &declarator.init) else {
                continue;
            };
            if let Some(value) = self.value(init) {
                self.constants
                    .insert(name.to_owned(), (value, init.span().start));
            }
        }
    }

    fn value(&self, expression: &Expression) -> Option<Value> {
        match expression.get_inner_expression() {
            Expression::StringLiteral(text) => Some(Value::Text(text.value.to_string())),
            Expression::TemplateLiteral(template) => self.template(template),
            Expression::Identifier(name) => match self.constants.get(name.name.as_str()) {
                Some((value, _)) => Some(value.clone()),
                None if name.name == "__dirname" => Some(Value::Place(self.folder.to_owned())),
                None if name.name == "__filename" => Some(Value::Place(self.file.to_owned())),
                None => None,
            },
            Expression::BinaryExpression(sum) if sum.operator == BinaryOperator::Addition => {
                Some(concat(self.value(&sum.left)?, self.value(&sum.right)?))
            }
            Expression::StaticMemberExpression(member) => {
                let object = member.object.get_inner_expression();
                match (object, member.property.name.as_str()) {
                    (Expression::ImportMeta(_), "dirname") => {
                        Some(Value::Place(self.folder.to_owned()))
                    }
                    (Expression::ImportMeta(_), "filename" | "url") => {
                        Some(Value::Place(self.file.to_owned()))
                    }
                    (Expression::NewExpression(_), "pathname" | "href") => self.value(object),
                    _ => None,
                }
            }
            Expression::NewExpression(new) => self.url(new),
            Expression::CallExpression(call) => self.call(call),
            _ => None,
        }
    }

    fn template(&self, template: &TemplateLiteral) -> Option<Value> {
        let mut whole = Value::Text(String::new());
        let mut expressions = template.expressions.iter();
        for part in &template.quasis {
            whole = concat(whole, Value::Text(part.value.cooked?.to_string()));
            if let Some(expression) = expressions.next() {
                whole = concat(whole, self.value(expression)?);
            }
        }
        Some(whole)
    }

    /// `new URL("../x", import.meta.url)`
    fn url(&self, new: &NewExpression) -> Option<Value> {
        if !new.callee.is_specific_id("URL") {
            return None;
        }
        let mut arguments = self.arguments(&new.arguments)?.into_iter();
        match (arguments.next()?, arguments.next()?) {
            // A URL is relative to the folder of its base.
            (Value::Text(path), Value::Place(base)) if path.starts_with('.') => {
                Some(Value::Place(format!("{base}/../{path}")))
            }
            _ => None,
        }
    }

    fn call(&self, call: &CallExpression) -> Option<Value> {
        let (object, name) = callee(&call.callee)?;
        let is_require = object.is_some_and(|object| object.is_specific_id("require"));
        if is_require || name == "require" {
            return None;
        }
        if name == "cwd" {
            return Some(Value::Place(String::new()));
        }
        let mut values = self.arguments(&call.arguments)?.into_iter();
        match name {
            "join" | "resolve" => {
                let first = values.next()?;
                let joined = values.fold(first, |before, value| match (before, value) {
                    (_, Value::Place(place)) => Value::Place(place),
                    (Value::Place(before), Value::Text(text)) => {
                        Value::Place(format!("{before}/{text}"))
                    }
                    (Value::Text(before), Value::Text(text)) => {
                        Value::Text(format!("{before}/{text}"))
                    }
                });
                Some(joined)
            }
            "fileURLToPath" | "pathToFileURL" | "normalize" => values.next(),
            "dirname" => match values.next()? {
                Value::Place(place) => Some(Value::Place(format!("{place}/.."))),
                Value::Text(_) => None,
            },
            _ => None,
        }
    }

    fn arguments(&self, arguments: &[Argument]) -> Option<Vec<Value>> {
        let values = arguments
            .iter()
            .map(|argument| self.value(argument.as_expression()?));
        values.collect()
    }

    fn record(&mut self, value: Value, start: u32) {
        let path = match value {
            Value::Place(place) => place,
            Value::Text(text) => match super::relative(&text) {
                Some(path) => format!("{}/{path}", self.folder),
                None => return,
            },
        };
        let line = super::line_of(self.text, start as usize);
        self.found.push(PathReference { path, line });
    }
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        // The value of a known constant is a reference at the place where the constant is used.
        let known = name_of(it).and_then(|name| self.constants.get(name));
        let start = it.init.as_ref().map(|init| init.span().start);
        let is_known = known.is_some_and(|(_, known)| Some(*known) == start);
        if !is_known {
            walk::walk_variable_declarator(self, it);
        }
    }

    fn visit_expression(&mut self, it: &Expression<'a>) {
        if let Expression::Identifier(name) = it
            && let Some((value, start)) = self.constants.get(name.name.as_str()).cloned()
        {
            self.record(value, start);
            return;
        }
        if let Some(value) = self.value(it) {
            self.record(value, it.span().start);
            return;
        }
        walk::walk_expression(self, it);
    }

    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        let name = callee(&it.callee).map_or("", |(_, name)| name);
        // Text that is added to an unknown folder, an import, or a part of a text is not relative to
        // the config file.
        let is_no_path =
            ["join", "resolve", "require"].contains(&name) || STRING_METHODS.contains(&name);
        if !is_no_path {
            walk::walk_call_expression(self, it);
            return;
        }
        self.visit_expression(&it.callee);
        for argument in &it.arguments {
            let text = argument.as_expression().and_then(|it| self.value(it));
            if !matches!(text, Some(Value::Text(_))) {
                self.visit_argument(argument);
            }
        }
    }
}

/// The name of a variable that is not destructured.
fn name_of<'a>(declarator: &VariableDeclarator<'a>) -> Option<&'a str> {
    match &declarator.id {
        BindingPattern::BindingIdentifier(name) => Some(name.name.as_str()),
        _ => None,
    }
}

/// The object and the name of a function that is called.
fn callee<'e, 'a>(callee: &'e Expression<'a>) -> Option<(Option<&'e Expression<'a>>, &'e str)> {
    match callee.get_inner_expression() {
        Expression::Identifier(name) => Some((None, name.name.as_str())),
        Expression::StaticMemberExpression(member) => {
            Some((Some(&member.object), member.property.name.as_str()))
        }
        _ => None,
    }
}

fn concat(left: Value, right: Value) -> Value {
    match (left, right) {
        (_, Value::Place(place)) => Value::Place(place),
        (Value::Place(left), Value::Text(right)) => Value::Place(left + &right),
        (Value::Text(left), Value::Text(right)) => Value::Text(left + &right),
    }
}
