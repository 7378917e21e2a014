//! The clocks of servers, read from the header `Date` of their responses.

use reqwest::header::{DATE, HeaderMap};

/// Seconds by which the clock of this machine is ahead of the server's; negative if it is behind.
/// `None` if the response has no valid `Date`.
pub fn clock_difference(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(DATE)?.to_str().ok()?.trim();
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    Some(jiff::Timestamp::now().as_second() - date.ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use reqwest::header::{DATE, HeaderMap, HeaderValue};

    use super::clock_difference;

    #[test]
    fn the_difference_has_the_sign_of_this_machine() {
        let of = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, HeaderValue::from_static(text));
            clock_difference(&headers)
        };
        assert!(of("Wed, 21 Oct 2015 07:28:00 GMT") > Some(300_000_000));
        assert!(of("Fri, 31 Dec 2100 23:59:59 GMT") < Some(-3600));
        assert_eq!(of("today"), None);
        assert_eq!(clock_difference(&HeaderMap::new()), None);
    }
}
