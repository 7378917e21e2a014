//! The summary of a run, as a table for people and an object for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::duration;
use crate::event::{ToolCacheUse, bytes};

/// The results of one unit. A field is `None` if the run did not get that far.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRow {
    /// The store.
    pub store_id: String,
    /// The app.
    pub app: String,
    /// Time of the script in seconds.
    pub build_seconds: Option<f64>,
    /// `miss` if the script ran, `hit`, or `reused from <unit>`.
    pub cache: Option<String>,
    /// The kept tool cache that was put in place before the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_cache: Option<ToolCacheUse>,
    /// Whether the image existed before the run.
    pub was_there: bool,
    /// Bytes in `.deploy`.
    pub deploy_bytes: Option<u64>,
    /// Bytes of the image.
    pub image_bytes: Option<u64>,
    /// Digest of the pushed manifest.
    pub digest: Option<String>,
    /// Full image reference.
    pub reference: Option<String>,
}

/// A workspace package that was built for the units.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageRow {
    /// The name.
    pub name: String,
    /// Time of the script in seconds.
    pub build_seconds: f64,
    /// `miss` if the script ran, or `hit`.
    pub cache: String,
}

/// A store with the release that a run made.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The store.
    pub store_id: String,
    /// The release.
    pub release: String,
    /// Where it runs.
    pub target: String,
    /// Its address.
    pub address: String,
    /// Whether it runs on this machine, until `store stop`.
    pub is_local: bool,
}

/// The results of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryTable {
    /// The script, if it is not `build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Units in the order of the plan.
    pub units: Vec<SummaryRow>,
    /// Workspace packages, each once for all stores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageRow>,
    /// Deployed stores with their public addresses.
    pub deployed: Vec<Deployed>,
    /// Stores whose release was made and gets no traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_live: Vec<Deployed>,
    /// Suggestions that save time in later runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Wall time of the run in seconds.
    pub seconds: f64,
    /// Wall time in seconds that the program did not spend waiting.
    pub own_seconds: f64,
}

impl SummaryTable {
    /// The table, and below it the full image references.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if !self.units.is_empty() {
            let store = width("store", self.units.iter().map(|row| row.store_id.as_str()));
            let packages = self.packages.iter().map(|package| package.name.as_str());
            let apps = self.units.iter().map(|row| row.app.as_str());
            let app = width("app", apps.chain(packages));
            // An empty column is left out.
            let any = |has: fn(&SummaryRow) -> bool| self.units.iter().any(has);
            let (deploy, image, digest) = (
                any(|row| row.deploy_bytes.is_some()),
                any(|row| row.image_bytes.is_some()),
                any(|row| row.digest.is_some()),
            );
            let mut line = |cells: [&str; 6]| {
                let [of_store, of_app, of_build, of_deploy, of_image, of_digest] = cells;
                let mut line = format!("{of_store:store$}  {of_app:app$}  {of_build:>12}");
                // Writing to a string cannot fail.
                let _ = match (deploy, image) {
                    (true, true) => write!(line, "  {of_deploy:>8}  {of_image:>8}"),
                    (true, false) => write!(line, "  {of_deploy:>8}"),
                    (false, _) => Ok(()),
                };
                if digest {
                    let _ = write!(line, "  {of_digest}");
                }
                writeln!(out, "{}", line.trim_end())
            };
            let script = self.script.as_deref().unwrap_or("build");
            line(["store", "app", script, ".deploy", "image", "digest"])?;
            for package in &self.packages {
                let built = state(Some(&package.cache), Some(package.build_seconds));
                line(["-", &package.name, &built, "-", "-", "-"])?;
            }
            for row in &self.units {
                let size = |size: Option<u64>| size.map_or("-".into(), bytes);
                let digest = row.digest.as_deref().unwrap_or("-");
                let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
                line([
                    &row.store_id,
                    &row.app,
                    &build(row),
                    &size(row.deploy_bytes),
                    &size(row.image_bytes),
                    &digest[..digest.len().min(12)],
                ])?;
            }
            self.write_references(out)?;
            writeln!(out)?;
        }
        self.write_builds(out)?;
        self.write_deployed(out)?;
        for hint in &self.hints {
            writeln!(out, "hint: {hint}")?;
        }
        writeln!(
            out,
            "took {} (alokai itself: {})",
            duration(self.seconds),
            duration(self.own_seconds)
        )
    }
}

impl SummaryTable {
    /// The addresses of the stores that are live now.
    fn write_deployed(&self, out: &mut String) -> std::fmt::Result {
        for deployed in &self.deployed {
            writeln!(out, "deployed {}: {}", deployed.store_id, deployed.address)?;
        }
        let local = self.deployed.iter().filter(|deployed| deployed.is_local);
        let local: Vec<_> = local.map(|deployed| deployed.store_id.as_str()).collect();
        if !local.is_empty() {
            let ids = local.join(",");
            writeln!(
                out,
                "`alokai store stop --store {ids}` stops what runs here"
            )?;
        }
        Ok(())
    }

    /// The full references of the images, below the table.
    fn write_references(&self, out: &mut String) -> std::fmt::Result {
        let references: Vec<_> = self
            .units
            .iter()
            .filter_map(|row| row.reference.as_ref())
            .collect();
        if !references.is_empty() {
            writeln!(out)?;
            for reference in references {
                writeln!(out, "{reference}")?;
            }
        }
        Ok(())
    }

    /// The number of cache hits, and the results that several stores share.
    fn write_builds(&self, out: &mut String) -> std::fmt::Result {
        let packages = self.packages.iter().map(|package| package.cache.as_str());
        let units = self.units.iter().filter_map(|row| row.cache.as_deref());
        let all: Vec<&str> = units.chain(packages).collect();
        let with = |what: &str| all.iter().filter(|cache| **cache == what).count();
        let mut makers = BTreeMap::<&str, usize>::new();
        for maker in self
            .units
            .iter()
            .filter_map(|row| row.cache.as_deref()?.strip_prefix("reused from "))
        {
            *makers.entry(maker).or_default() += 1;
        }
        let (ran, hits, reused) = (with("miss"), with("hit"), makers.values().sum::<usize>());
        let there = self.units.iter().filter(|row| row.was_there).count();
        if there > 0 {
            let was = if there == 1 {
                "image exists"
            } else {
                "images exist"
            };
            writeln!(out, "{there} {was} already, made from the same inputs")?;
        }
        if ran + hits + reused == 0 {
            return Ok(());
        }
        let is_build = self.script.is_none();
        let done = if is_build { "built" } else { "ran" };
        let noun = if hits == 1 { "cache hit" } else { "cache hits" };
        let with = self.units.iter().filter(|row| row.tool_cache.is_some());
        let with = match with.count() {
            0 => String::new(),
            count => format!(" ({count} with a kept tool cache)"),
        };
        writeln!(
            out,
            "{ran} {done}{with}, {hits} {noun}, {reused} reused from other stores"
        )?;
        let was = if is_build { "was built" } else { "ran" };
        for (maker, count) in makers {
            writeln!(out, "  {maker} {was} once for {} stores", count + 1)?;
        }
        Ok(())
    }
}

/// The time of a script that ran, or the source of the result.
fn build(row: &SummaryRow) -> String {
    if row.was_there {
        return "exists".into();
    }
    state(row.cache.as_deref(), row.build_seconds)
}

fn state(cache: Option<&str>, seconds: Option<f64>) -> String {
    match cache {
        None | Some("miss") => seconds.map_or("-".into(), duration),
        Some("hit") => "hit".into(),
        Some(_) => "reused".into(),
    }
}

fn width<'a>(title: &str, values: impl Iterator<Item = &'a str>) -> usize {
    values.map(str::len).chain([title.len()]).max().unwrap_or(0)
}
