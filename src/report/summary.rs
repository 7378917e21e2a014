//! What a run made, as a table for people and an object for machines.

use std::fmt::Write as _;

use serde::Serialize;

use super::duration;
use crate::event::bytes;

/// One unit's results, as far as it came.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRow {
    /// The store.
    pub store_id: String,
    /// The app.
    pub app: String,
    /// Time of the build script.
    pub build_seconds: Option<f64>,
    /// Bytes in `.deploy`.
    pub deploy_bytes: Option<u64>,
    /// Bytes of the image.
    pub image_bytes: Option<u64>,
    /// Digest of the pushed manifest.
    pub digest: Option<String>,
    /// Full reference.
    pub reference: Option<String>,
}

/// A store that the console has taken.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The store.
    pub store_id: String,
    /// Its public address.
    pub address: String,
}

/// Everything that a run made.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryTable {
    /// Units in the plan's order.
    pub units: Vec<SummaryRow>,
    /// Deployed stores with their public addresses.
    pub deployed: Vec<Deployed>,
    /// Wall time of the run.
    pub seconds: f64,
    /// Wall time of this program itself.
    pub own_seconds: f64,
}

impl SummaryTable {
    /// The table, and below it every reference, whole, so that it can be copied.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if !self.units.is_empty() {
            let store = width("store", self.units.iter().map(|row| row.store_id.as_str()));
            let app = width("app", self.units.iter().map(|row| row.app.as_str()));
            writeln!(
                out,
                "{:store$}  {:app$}  {:>12}  {:>8}  {:>8}  digest",
                "store", "app", "build", ".deploy", "image"
            )?;
            for row in &self.units {
                let size = |size: Option<u64>| size.map_or("-".into(), bytes);
                let digest = row.digest.as_deref().unwrap_or("-");
                let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
                writeln!(
                    out,
                    "{:store$}  {:app$}  {:>12}  {:>8}  {:>8}  {}",
                    row.store_id,
                    row.app,
                    row.build_seconds.map_or("-".into(), duration),
                    size(row.deploy_bytes),
                    size(row.image_bytes),
                    &digest[..digest.len().min(12)],
                )?;
            }
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
            writeln!(out)?;
        }
        for deployed in &self.deployed {
            writeln!(out, "deployed {}: {}", deployed.store_id, deployed.address)?;
        }
        writeln!(
            out,
            "{} in all, {} of it alokai's own",
            duration(self.seconds),
            duration(self.own_seconds)
        )
    }
}

fn width<'a>(title: &str, values: impl Iterator<Item = &'a str>) -> usize {
    values.map(str::len).chain([title.len()]).max().unwrap_or(0)
}
