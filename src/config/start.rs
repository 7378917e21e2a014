//! The section `start`: the variables of apps that are started on this machine.

use std::time::Duration;

use super::check::nearest;
use super::raw;
use crate::store::AppName;

/// The placeholders of all apps, for help texts.
const PLACEHOLDERS: &str = "{port}, {url}, {store}, {middleware.url}, {middleware.port}, {frontend.url}, {frontend.port}, {<app>.url} and {<app>.port}";

/// The section `start` of the config.
#[derive(Debug, Clone)]
pub struct StartRules {
    /// Variables by app. `*` means all apps.
    env: Vec<(String, Vec<(String, ValueTemplate)>)>,
    /// The time limit for an app to accept connections on its port.
    pub timeout: Duration,
}

impl Default for StartRules {
    fn default() -> Self {
        Self {
            env: Vec::new(),
            timeout: Duration::from_mins(1),
        }
    }
}

impl StartRules {
    /// Reads the section, or returns all problems.
    pub fn new(raw: &raw::StartSection, apps: &[AppName]) -> Result<Self, Vec<StartProblem>> {
        let mut wrong = Vec::new();
        let mut env = Vec::new();
        for (app, variables) in &raw.env {
            if app != "*" && !apps.iter().any(|known| known.as_str() == app) {
                wrong.push(StartProblem {
                    pointer: vec!["env".into(), app.clone()],
                    message: format!("`{}` is not a base app", app.escape_debug()),
                    help: match nearest(app, apps.iter().map(AppName::as_str)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "use the name of a folder in `apps/`, or `*` for all".into(),
                    },
                });
            }
            let mut parsed = Vec::new();
            for (name, value) in variables {
                let problem = |message, help| StartProblem {
                    pointer: vec!["env".into(), app.clone(), name.clone()],
                    message,
                    help,
                };
                if !is_variable_name(name) {
                    wrong.push(problem(
                        format!(
                            "`{}` is not a valid name of an environment variable",
                            name.escape_debug()
                        ),
                        "use letters, digits and `_`; the first character cannot be a digit".into(),
                    ));
                }
                match ValueTemplate::parse(value, apps) {
                    Ok(value) => parsed.push((name.clone(), value)),
                    Err((message, help)) => wrong.push(problem(message, help)),
                }
            }
            env.push((app.clone(), parsed));
        }
        if raw.timeout == 0 {
            wrong.push(StartProblem {
                pointer: vec!["timeout".into()],
                message: "`0` is not a valid time limit".into(),
                help: "write a number of seconds, such as 60".into(),
            });
        }
        if wrong.is_empty() {
            Ok(Self {
                env,
                timeout: Duration::from_secs(raw.timeout.into()),
            })
        } else {
            Err(wrong)
        }
    }

    /// The variables of an app: those of all apps first, then its own.
    pub fn of(&self, app: &AppName) -> impl Iterator<Item = &(String, ValueTemplate)> {
        let of = |wanted: &str| {
            let wanted = wanted.to_owned();
            let matching = self.env.iter().filter(move |(name, _)| *name == wanted);
            matching.flat_map(|(_, variables)| variables)
        };
        of("*").chain(of(app.as_str()))
    }
}

/// Whether every shell can set a variable of this name.
pub fn is_variable_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A problem in the section `start`.
#[derive(Debug)]
pub struct StartProblem {
    /// Keys below `start`.
    pub pointer: Vec<String>,
    /// The message.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

/// The value of a variable, with placeholders for ports, addresses and the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTemplate(Vec<TemplatePart>);

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text as it is.
    Text(String),
    /// The id of the store.
    Store,
    /// The port of an app.
    Port(AppReference),
    /// The address of an app, such as `http://localhost:4000`.
    Url(AppReference),
}

/// An app of the same store, as a placeholder names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppReference {
    /// The app that has the variable.
    Own,
    /// The middleware of the store.
    Middleware,
    /// The frontend of the store.
    Frontend,
    /// The app with this name.
    Named(AppName),
}

impl From<TemplatePart> for ValueTemplate {
    fn from(part: TemplatePart) -> Self {
        Self(vec![part])
    }
}

impl From<&str> for ValueTemplate {
    /// A value without placeholders.
    fn from(text: &str) -> Self {
        TemplatePart::Text(text.to_owned()).into()
    }
}

impl ValueTemplate {
    /// The parts, in order.
    pub fn parts(&self) -> &[TemplatePart] {
        &self.0
    }

    /// Reads a value. `{{` and `}}` are literal braces. The error is a message and a help text.
    fn parse(text: &str, apps: &[AppName]) -> Result<Self, (String, String)> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{");
            let Some(end) = end else {
                return Err((
                    format!("`{}` has a single `{brace}`", text.escape_debug()),
                    format!("write `{brace}{brace}` for the character `{brace}`"),
                ));
            };
            parts.extend(text_part(&mut literal));
            parts.push(placeholder(&rest[..end], apps)?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        parts.extend(text_part(&mut literal));
        Ok(Self(parts))
    }
}

fn text_part(literal: &mut String) -> Option<TemplatePart> {
    (!literal.is_empty()).then(|| TemplatePart::Text(std::mem::take(literal)))
}

/// Reads the text between the braces.
fn placeholder(name: &str, apps: &[AppName]) -> Result<TemplatePart, (String, String)> {
    let unknown = || {
        let of_apps = apps
            .iter()
            .flat_map(|app| [format!("{app}.url"), format!("{app}.port")]);
        let general = [
            "port",
            "url",
            "store",
            "middleware.url",
            "middleware.port",
            "frontend.url",
            "frontend.port",
        ];
        let known: Vec<String> = of_apps.chain(general.map(str::to_owned)).collect();
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None => format!("use one of {PLACEHOLDERS}; write `{{{{` for the character `{{`"),
        };
        let message = format!("`{{{}}}` is not a known placeholder", name.escape_debug());
        (message, help)
    };
    if name == "store" {
        return Ok(TemplatePart::Store);
    }
    let (app, value) = match name.rsplit_once('.') {
        Some((app, value)) => (Some(app), value),
        None => (None, name),
    };
    let app = match app {
        None => AppReference::Own,
        // A base app may be called `middleware` or `frontend`.
        Some(name) => match (apps.iter().find(|app| app.as_str() == name), name) {
            (Some(app), _) => AppReference::Named(app.clone()),
            (None, "middleware") => AppReference::Middleware,
            (None, "frontend") => AppReference::Frontend,
            (None, _) => return Err(unknown()),
        },
    };
    match value {
        "port" => Ok(TemplatePart::Port(app)),
        "url" => Ok(TemplatePart::Url(app)),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::{AppReference, TemplatePart, ValueTemplate};
    use crate::store::AppName;

    #[test]
    fn values_have_text_placeholders_and_literal_braces() {
        let app = AppName::new("api.v2").unwrap();
        let text = |text: &str| TemplatePart::Text(text.into());
        let cases = [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{port}", vec![TemplatePart::Port(AppReference::Own)]),
            ("{{port}}", vec![text("{port}")]),
            (r#"{{"a":{{}}}}"#, vec![text(r#"{"a":{}}"#)]),
            (
                "a{store}b{middleware.url}/api",
                vec![
                    text("a"),
                    TemplatePart::Store,
                    text("b"),
                    TemplatePart::Url(AppReference::Middleware),
                    text("/api"),
                ],
            ),
            (
                "{api.v2.port}",
                vec![TemplatePart::Port(AppReference::Named(app.clone()))],
            ),
        ];
        for (written, parts) in cases {
            let parsed = ValueTemplate::parse(written, std::slice::from_ref(&app));
            assert_eq!(parsed.map(|it| it.0), Ok(parts), "{written}");
        }
        for wrong in [
            "{",
            "}",
            "{port",
            "port}",
            "{}",
            "{PORT}",
            "{api.url}",
            "{middleware}",
        ] {
            assert!(ValueTemplate::parse(wrong, &[]).is_err(), "{wrong}");
        }
    }
}
