//! Landlock: whether the kernel supports it, and how this process restricts itself.

#[cfg(target_os = "linux")]
pub use linux::{enforce, support};
#[cfg(not(target_os = "linux"))]
pub use other::{enforce, support};

/// The reason why this system cannot run scripts in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported(pub &'static str);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::PathBuf;

    use landlock::{
        ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, RestrictSelf,
        Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, path_beneath_rules,
    };

    use super::super::SandboxRules;
    use super::Unsupported;

    /// The version that has to be enforced. Every kernel with Landlock supports it.
    const REQUIRED: ABI = ABI::V1;

    /// The version that is enforced where the kernel supports it. It also restricts truncation and
    /// moves between folders. Later versions restrict devices and sockets, which are not files of a
    /// project.
    const BEST: ABI = ABI::V3;

    const MISSING: Unsupported = Unsupported(
        "the kernel does not support Landlock: it is older than Linux 5.13, was built without `CONFIG_SECURITY_LANDLOCK`, or a container's seccomp profile blocks it",
    );

    const DISABLED: Unsupported = Unsupported(
        "the kernel has Landlock, but it is not enabled: add `landlock` to the boot parameter `lsm=` or to `CONFIG_LSM`",
    );

    /// Whether this kernel can restrict a script.
    pub fn support() -> Result<(), Unsupported> {
        // An empty rule set restricts nothing. The call only returns the status.
        let status = RestrictSelf::default().no_new_privs(false).apply();
        match status.map(|status| status.landlock) {
            Ok(LandlockStatus::Available { .. }) => Ok(()),
            Ok(LandlockStatus::NotEnabled) => Err(DISABLED),
            Ok(LandlockStatus::NotImplemented) | Err(_) => Err(MISSING),
        }
    }

    /// Restricts this thread, and every program that it executes or starts, to the rules. The
    /// restriction cannot be removed.
    pub fn enforce(rules: &SandboxRules) -> Result<(), String> {
        restrict(rules).map_err(|error| error.to_string())
    }

    fn restrict(rules: &SandboxRules) -> Result<(), RulesetError> {
        let read = AccessFs::from_read(REQUIRED);
        let all = AccessFs::from_all(BEST);
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(REQUIRED))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .create()?
            .allow(&rules.read, read)?
            .allow(&rules.list, AccessFs::ReadDir.into())?
            .allow(&rules.write, all)?
            .restrict_self()?;
        Ok(())
    }

    trait Allow: Sized {
        fn allow(self, paths: &[PathBuf], access: BitFlags<AccessFs>)
        -> Result<Self, RulesetError>;
    }

    impl Allow for RulesetCreated {
        /// Paths that do not exist are skipped.
        fn allow(
            self,
            paths: &[PathBuf],
            access: BitFlags<AccessFs>,
        ) -> Result<Self, RulesetError> {
            self.add_rules(path_beneath_rules(paths, access))
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::super::SandboxRules;
    use super::Unsupported;

    const OTHER: Unsupported = Unsupported("Landlock is available only on Linux");

    /// Whether this system can restrict a script.
    pub fn support() -> Result<(), Unsupported> {
        Err(OTHER)
    }

    /// Fails: only Linux can restrict a script.
    pub fn enforce(_: &SandboxRules) -> Result<(), String> {
        Err(OTHER.to_string())
    }
}
