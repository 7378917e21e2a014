//! The identities of dependencies in keys, as names and versions without the notation of the lock file.

/// The thing that an identity in a key names. Each lock file has its own notation.
#[derive(Debug, PartialEq, Eq)]
pub enum LockedIdentity<'a> {
    /// An installed package.
    Package {
        /// Its name.
        name: &'a str,
        /// Its version, without the notation of the package manager.
        version: String,
    },
    /// A folder of the workspace, relative to the project. The root is empty.
    Folder(&'a str),
    /// A lock file that is an input as a whole.
    LockFile(&'a str),
}

impl<'a> LockedIdentity<'a> {
    /// Reads an identity such as `react@18.3.1`, `react@npm:18.3.1` or `workspace:apps/web`.
    pub fn of(identity: &'a str) -> Self {
        if let Some(folder) = identity.strip_prefix("workspace:") {
            return Self::Folder(folder);
        }
        // A scope begins with `@` too.
        let mut signs = identity.char_indices().skip(1);
        match signs.find(|(_, sign)| *sign == '@') {
            Some((at, _)) => Self::Package {
                name: &identity[..at],
                version: version(&identity[at + 1..]),
            },
            None => Self::LockFile(identity),
        }
    }
}

/// The version in `npm:5.9.3`, `18.3.1(react@18.3.1)`, or
/// `patch:typescript@npm%3A5.9.3#optional!builtin<compat>::version=5.9.3&hash=1`.
fn version(text: &str) -> String {
    if let Some(patch) = text.strip_prefix("patch:") {
        let named = patch.split_once("::version=").map(|(_, rest)| rest);
        let named = named.map(|rest| rest.split('&').next().unwrap_or(rest));
        let inner = || {
            let inner = patch.split('#').next().unwrap_or(patch);
            let at = inner.rfind("npm%3A").map(|at| at + "npm%3A".len());
            &inner[at
                .or_else(|| inner.rfind('@').map(|at| at + 1))
                .unwrap_or(0)..]
        };
        return format!("{} (patched)", named.unwrap_or_else(inner));
    }
    let text = text.strip_prefix("npm:").unwrap_or(text);
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find('(').filter(|_| is_number).unwrap_or(text.len());
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::LockedIdentity;

    #[test]
    fn every_notation_is_read() {
        let cases = [
            ("react@18.3.1", "react 18.3.1"),
            ("@a/b@npm:1.0.0", "@a/b 1.0.0"),
            ("x@2.0.0(react@18.3.1)(@a/b@1.0.0)", "x 2.0.0"),
            (
                "typescript@patch:typescript@npm%3A5.9.3#optional!builtin<compat/typescript>::version=5.9.3&hash=5786d5",
                "typescript 5.9.3 (patched)",
            ),
            ("x@patch:x@npm%3A1.0.0#./x.patch", "x 1.0.0 (patched)"),
            (
                "x@https://codeload.example.com/x.tgz",
                "x https://codeload.example.com/x.tgz",
            ),
            ("x@installed", "x installed"),
        ];
        for (identity, expected) in cases {
            let LockedIdentity::Package { name, version } = LockedIdentity::of(identity) else {
                panic!("{identity} is not a package");
            };
            assert_eq!(format!("{name} {version}"), expected);
        }
        assert_eq!(
            LockedIdentity::of("workspace:apps/web"),
            LockedIdentity::Folder("apps/web")
        );
        assert_eq!(
            LockedIdentity::of("yarn.lock"),
            LockedIdentity::LockFile("yarn.lock")
        );
    }
}
