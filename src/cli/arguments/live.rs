//! The options of the commands for stores that run: their output, and pages for maintenance.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use super::AccessOptions;
use super::flow::{OneStoreOptions, one_store};
use super::questions::ChosenTargets;

#[derive(Debug, Args)]
pub struct LogsOptions {
    /// The store
    #[arg(short, long, visible_alias = "store-id", value_name = "ID", value_parser = one_store)]
    pub store: String,
    /// Prints new lines until Ctrl-C, including those of later releases
    #[arg(short, long)]
    pub follow: bool,
    /// Only this app
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Only lines after this time: `10m` (ten minutes ago), `2h`, or a time such as `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// A release other than the live release; the first characters of the id are enough
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Prints one JSON object for each line
    #[arg(long)]
    pub json: bool,
    /// Uses this machine, to which `store deploy --local` deploys
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct MaintenanceOptions {
    #[command(subcommand)]
    pub command: MaintenanceCommand,
}

#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Shows a page with status 503 instead of the store
    On(MaintenanceOnOptions),
    /// Shows the store again
    Off(MaintainedStores),
}

#[derive(Debug, Args)]
pub struct MaintenanceOnOptions {
    /// The page, an HTML file [default: a page in English]
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    #[command(flatten)]
    pub target: MaintainedStores,
}

#[derive(Debug, Args)]
pub struct MaintainedStores {
    /// The stores: `--store us,eu`
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1.., required = true)]
    pub stores: Vec<String>,
    /// Uses this machine, to which `store deploy --local` deploys
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

impl MaintainedStores {
    pub fn chosen(&self) -> ChosenTargets<'_> {
        ChosenTargets {
            stores: &self.stores,
            local: self.local,
            access: &self.access,
        }
    }
}

#[derive(Debug, Args)]
pub struct ReleasesPruneOptions {
    /// Keeps this number of releases without traffic [default: `deploy.keep`]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Prints what would be removed, and removes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: OneStoreOptions,
}

/// Parses `90s`, `10m`, `2h`, `3d` before now, or a time.
fn since(text: &str) -> Result<Timestamp, String> {
    let unit = |letter| match letter {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        'w' => Some(604_800),
        _ => None,
    };
    let before = || {
        let unit = unit(text.chars().last()?)?;
        let number = text.get(..text.len() - 1)?.parse::<u32>().ok()?;
        let age = SignedDuration::from_secs(i64::from(number) * unit);
        Timestamp::now().checked_sub(age).ok()
    };
    let time = before().or_else(|| text.parse().ok());
    time.ok_or_else(|| {
        "write a number and one of the units `s`, `m`, `h`, `d` and `w`, such as `10m`, or a time such as `2026-01-31T12:00:00Z`".into()
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::since;

    #[test]
    fn since_is_an_age_or_a_time() {
        let age = |text: &str| {
            let since = since(text).unwrap();
            Timestamp::now().duration_since(since)
        };
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            let late = age(text).as_secs() - seconds;
            assert!((0..60).contains(&late), "{text}");
        }
        let time = "2026-01-31T12:00:00Z";
        assert_eq!(since(time).unwrap().to_string(), time);
        let zone = since("2026-01-31T13:00:00+01:00").unwrap();
        assert_eq!(zone.to_string(), time);
        for text in ["", "m", "10", "-1m", "1y", "1é", "4294967295w", "yesterday"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
