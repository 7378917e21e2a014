//! Landlock: whether the kernel has it, and restricting this process by it.

#[cfg(target_os = "linux")]
pub use linux::{enforce, support};
#[cfg(not(target_os = "linux"))]
pub use other::{enforce, support};

/// Why scripts cannot be run in a sandbox here.
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

    /// What has to be enforced; every kernel with Landlock does.
    const LEAST: ABI = ABI::V1;

    /// What is enforced where the kernel can: truncation and moves between folders too. Later
    /// versions restrict devices and sockets, which are no files of a project.
    const MOST: ABI = ABI::V3;

    const MISSING: Unsupported = Unsupported(
        "the kernel does not have it: it is older than Linux 5.13, was built without `CONFIG_SECURITY_LANDLOCK`, or a container's seccomp profile denies it",
    );

    const DISABLED: Unsupported = Unsupported(
        "the kernel has it and it is not switched on: `landlock` is missing in the boot parameter `lsm=` or in `CONFIG_LSM`",
    );

    /// Whether this kernel can restrict a script.
    pub fn support() -> Result<(), Unsupported> {
        // Nothing is asked for, so nothing is restricted: only the status comes back.
        let status = RestrictSelf::default().no_new_privs(false).apply();
        match status.map(|status| status.landlock) {
            Ok(LandlockStatus::Available { .. }) => Ok(()),
            Ok(LandlockStatus::NotEnabled) => Err(DISABLED),
            Ok(LandlockStatus::NotImplemented) | Err(_) => Err(MISSING),
        }
    }

    /// Restricts this thread, and every program that it becomes or starts, to the rules. There is
    /// no way back.
    pub fn enforce(rules: &SandboxRules) -> Result<(), String> {
        restrict(rules).map_err(|error| error.to_string())
    }

    fn restrict(rules: &SandboxRules) -> Result<(), RulesetError> {
        let read = AccessFs::from_read(LEAST);
        let all = AccessFs::from_all(MOST);
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(LEAST))?
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
        /// A path that is not there needs no rule.
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

    const OTHER: Unsupported = Unsupported("only Linux has it");

    /// Whether this system can restrict a script.
    pub fn support() -> Result<(), Unsupported> {
        Err(OTHER)
    }

    /// Nothing else than Linux restricts a script.
    pub fn enforce(_: &SandboxRules) -> Result<(), String> {
        Err(OTHER.to_string())
    }
}
