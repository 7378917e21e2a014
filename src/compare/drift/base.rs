//! Which version of the inherited file an override was made from: as history says, and where it does
//! not, the most similar version.

use super::OverrideCandidate;
use super::three_way::{
    count, distance, has_markers, is_binary, keep_ours, ours_in_conflicts, three_way,
};
use crate::compare::Error;
use crate::git::{CommitIndex, PathChange, PathHistory};
use crate::overlay::ContentId;

/// The least similarity of an override and the version it was made from, where history does not say
/// which version that is: half of the lines are unchanged.
const LEAST_SIMILARITY: f64 = 0.5;

/// The history of an override and of the file that it overrides.
pub struct OverrideHistory<'a> {
    pub history: &'a PathHistory<'a>,
    pub candidate: &'a OverrideCandidate<'a>,
}

/// The content that an override was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseVersion {
    pub id: ContentId,
    /// The override's commit that took it over; `None` for the version inherited now.
    pub commit: Option<CommitIndex>,
}

/// A version's id and content.
type VersionContent<'a> = (ContentId, &'a [u8]);

impl OverrideHistory<'_> {
    /// The content that the override was made from; `None` where it is not known. `ours` is the
    /// override, `theirs` the file that it inherits.
    pub fn base(
        &self,
        ours: VersionContent,
        theirs: VersionContent,
    ) -> Result<Option<BaseVersion>, Error> {
        let mut base: Option<BaseVersion> = None;
        let mut before: Option<Vec<u8>> = None;
        let changes = self.history.changes(&self.candidate.own.file);
        // A file that was removed and added again is another override, so only the changes since
        // the last removal count. Oldest first.
        let start = changes.iter().position(|change| change.blob.is_none());
        for change in changes[..start.unwrap_or(changes.len())].iter().rev() {
            let Some(own) = change.blob else { continue };
            let own = self.history.content(own)?;
            let there = self.inherited_at(change.commit)?;
            let there = there.map(|id| BaseVersion {
                id,
                commit: Some(change.commit),
            });
            base = match (base, there) {
                // The inherited file was added in the same commit or later.
                (None, Some(there)) => Some(there),
                (None, None) => self.most_similar(&own, change.commit)?,
                (Some(base), Some(there)) if there.id != base.id => {
                    let content = self.history.content(there.id.oid())?;
                    let taken_over =
                        self.has_taken_over(base.id, before.as_deref(), &own, &content)?;
                    Some(if taken_over { there } else { base })
                }
                (base, _) => base,
            };
            before = Some(own);
        }
        // The override is new, or has changes that are not committed.
        let committed = changes.first().and_then(|change| change.blob);
        if committed == Some(ours.0.oid()) {
            return Ok(base);
        }
        let now = BaseVersion {
            id: theirs.0,
            commit: None,
        };
        match base {
            None if committed.is_none() => Ok(Some(now)),
            Some(base) if base.id != theirs.0 => {
                let taken_over =
                    self.has_taken_over(base.id, before.as_deref(), ours.1, theirs.1)?;
                Ok(Some(if taken_over { now } else { base }))
            }
            base => Ok(base),
        }
    }

    /// The content that a commit has at the path above the override.
    fn inherited_at(&self, commit: CommitIndex) -> Result<Option<ContentId>, Error> {
        for inherited in &self.candidate.above {
            if let Some(blob) = self.history.blob_at(&inherited.file, commit)? {
                return Ok(Some(blob.into()));
            }
        }
        Ok(None)
    }

    /// Whether the override, changed from `before` to `own`, has taken over the changes from `base` to
    /// `there`: a merge changes nothing, or only gives conflicts in lines that this change has
    /// touched, so that a person has resolved them.
    fn has_taken_over(
        &self,
        base: ContentId,
        before: Option<&[u8]>,
        own: &[u8],
        there: &[u8],
    ) -> Result<bool, Error> {
        let base = self.history.content(base.oid())?;
        if is_binary(&base) || is_binary(own) || is_binary(there) {
            return Ok(false);
        }
        let merged = three_way(&base, own, there, ("", ""))?;
        if merged.is_clean {
            return Ok(merged.content == own);
        }
        let Some(before) = before.filter(|_| !has_markers(own)) else {
            return Ok(false);
        };
        let earlier = three_way(&base, before, there, ("", ""))?;
        let is_resolved = ours_in_conflicts(&earlier.content) != ours_in_conflicts(&merged.content);
        Ok(is_resolved && keep_ours(&base, own, there)? == own)
    }

    /// For an override that is older than the file it overrides, as far as history says: the most
    /// similar version, or the first one where none is similar.
    fn most_similar(&self, own: &[u8], commit: CommitIndex) -> Result<Option<BaseVersion>, Error> {
        let mut best: Option<(f64, PathChange)> = None;
        let mut first = None;
        for inherited in &self.candidate.above {
            for change in self.history.changes(&inherited.file) {
                let Some(blob) = change.blob.filter(|_| change.commit < commit) else {
                    continue;
                };
                first = Some(*change);
                let content = self.history.content(blob)?;
                let lines = 1 + count(own, b"\n") + count(&content, b"\n");
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a ratio needs no more precision"
                )]
                let similarity = 1.0 - distance(own, &content)? as f64 / lines as f64;
                if similarity >= LEAST_SIMILARITY
                    && best.is_none_or(|(known, _)| similarity > known)
                {
                    best = Some((similarity, *change));
                }
            }
        }
        let found = best.map(|(_, change)| change).or(first);
        Ok(found.and_then(|change| {
            Some(BaseVersion {
                id: change.blob?.into(),
                commit: Some(change.commit),
            })
        }))
    }
}
