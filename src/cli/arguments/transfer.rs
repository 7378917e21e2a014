//! The options of the commands that move and remove builds.

use clap::Args;

use super::AccessOptions;

#[derive(Debug, Args)]
pub struct BuildExportOptions {
    /// The id, or the first characters of it
    #[arg(value_name = "BUILD")]
    pub build: String,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct BuildImportOptions {
    /// The store that gets the build
    #[arg(short, long, visible_alias = "store-id", value_name = "ID")]
    pub store: String,
    /// Writes the images to `.alokai/registry`, as `store deploy --local` does
    #[arg(long, conflicts_with = "docker_registry_url")]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct BuildPruneOptions {
    /// Only builds of these stores
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Keeps this number of builds of each store, the newest ones
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Removes only builds that are older than this, such as `30d` or `12h`
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub older_than: Option<u64>,
    /// Removes only as many builds as needed until all images of each store have at most this size,
    /// such as `20GB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Prints what would be removed, and removes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

/// Parses `30d`, `12h`, `90m` or `2w` to seconds.
fn age(text: &str) -> Result<u64, String> {
    let unit = |letter| match letter {
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        'w' => Some(604_800),
        _ => None,
    };
    let parsed = text.chars().last().and_then(unit).and_then(|unit| {
        let number = text.get(..text.len() - 1)?.parse::<u64>().ok()?;
        number.checked_mul(unit)
    });
    parsed.ok_or_else(|| "write a number and one of the units `m`, `h`, `d` and `w`: `30d`".into())
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::size_of(text).ok_or_else(|| "write a number and a unit: `500MB`, `20GB`".into())
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("1w", 604_800),
            ("0m", 0),
        ] {
            assert_eq!(age(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "-1d",
            "1y",
            "1é",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
