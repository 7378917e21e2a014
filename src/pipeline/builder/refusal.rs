//! The causes of failed pushes by the engine, which returns the registry's answer as text.

use oci_distribution::{Account, Error};

/// Finds the cause of a failed push in the engine's message.
pub fn of_push(reference: &str, registry: &str, user: &str, message: String) -> Error {
    let what = reference.to_owned();
    let account = Account::User(user.to_owned());
    match push_status(&message) {
        Some(401) => Error::Unauthorized {
            registry: registry.to_owned(),
            account,
            message,
        },
        Some(403) => Error::Forbidden {
            what,
            account,
            message,
        },
        Some(404) => Error::NotFound { what, message },
        Some(413) => Error::TooLarge { what, message },
        Some(429 | 500..=599) => Error::Server { what, message },
        None if is_of_network(&message) => Error::Unreachable { what, message },
        _ => Error::PushFailed { what, message },
    }
}

/// The HTTP status of the registry's answer. Some messages of the engine have the number, others
/// have the error code of the distribution specification in lower-case words.
fn push_status(message: &str) -> Option<u16> {
    let text = message.to_lowercase();
    for before in [
        "http status: ",
        "status code ",
        "status code: ",
        "parsing http ",
    ] {
        if let Some(start) = text.find(before).map(|start| start + before.len())
            && let Some(status) = text
                .get(start..start + 3)
                .and_then(|digits| digits.parse().ok())
        {
            return Some(status);
        }
    }
    // The code is at the beginning or after the engine's operation: `push: denied: …`.
    let has = |codes: &[&str]| {
        codes.iter().any(|code| {
            text == *code
                || text.starts_with(&format!("{code}:"))
                || text.contains(&format!(": {code}"))
        })
    };
    if has(&[
        "unauthorized",
        "no basic auth credentials",
        "authentication required",
    ]) {
        Some(401)
    } else if has(&[
        "denied",
        "forbidden",
        "requested access to the resource is denied",
    ]) {
        Some(403)
    } else if has(&["name unknown", "not found", "name invalid"]) {
        Some(404)
    } else if has(&["size invalid", "request entity too large"]) {
        Some(413)
    } else if has(&["toomanyrequests", "too many requests"]) {
        Some(429)
    } else {
        None
    }
}

fn is_of_network(message: &str) -> bool {
    let text = message.to_lowercase();
    let signs = [
        "connection refused",
        "no such host",
        "timeout",
        "timed out",
        "dial tcp",
        "eof",
        "connection reset",
        "broken pipe",
        "no route to host",
    ];
    signs.iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::push_status;

    #[test]
    fn a_status_is_read_and_not_guessed_from_digits() {
        for (message, status) in [
            ("unauthorized: authentication required", Some(401)),
            (
                "denied: requested access to the resource is denied",
                Some(403),
            ),
            (
                "received unexpected HTTP status: 500 Internal Server Error",
                Some(500),
            ),
            (
                "error parsing HTTP 413 response body: invalid character '<'",
                Some(413),
            ),
            (
                "name unknown: repository name not known to registry",
                Some(404),
            ),
            ("toomanyrequests: slow down", Some(429)),
            (
                "read tcp 127.0.0.1:40134->127.0.0.1:5000: connection reset by peer",
                None,
            ),
            ("layer sha256:401403404413 does not fit", None),
        ] {
            assert_eq!(push_status(message), status, "{message}");
        }
    }
}
