//! The rule for secrets in output: which values are replaced. All parts of the program use this rule, so that
//! none of them shows what another one hides.

use http_client::Redactor;

/// Values with fewer bytes are not replaced: they are mostly flags and numbers, which also occur elsewhere in
/// the output.
const SHORTEST: usize = 6;

/// The starts of names whose values browsers receive.
const PUBLIC: [&str; 2] = ["NEXT_PUBLIC_", "NUXT_PUBLIC_"];

/// Whether browsers receive the value of a variable, so that it is not a secret.
pub fn is_public(name: &str) -> bool {
    PUBLIC.iter().any(|start| name.starts_with(start))
}

/// Replaces these secret values in output.
pub fn redactor<'v>(values: impl IntoIterator<Item = &'v str>) -> Redactor {
    let values = values.into_iter();
    Redactor::new(values.filter(|value| value.len() >= SHORTEST))
}

#[cfg(test)]
mod tests {
    use super::{is_public, redactor};

    #[test]
    fn flags_and_values_for_browsers_are_shown() {
        let redactor = redactor(["12345", "123456"]);
        assert_eq!(redactor.redact("12345 x123456"), "12345 x***");
        assert!(is_public("NEXT_PUBLIC_URL") && is_public("NUXT_PUBLIC_URL"));
        assert!(!is_public("URL_NEXT_PUBLIC_") && !is_public("TOKEN"));
    }
}
