//! Which version of the inherited file an override was made from: history first, likeness
//! where history does not tell.

use super::OverrideCandidate;
use super::three_way::{
    count, distance, has_markers, is_binary, keep_ours, ours_in_conflicts, three_way,
};
use crate::compare::Error;
use crate::git::{PathChange, PathHistory};
use crate::overlay::ContentId;

/// How alike two contents must be for one to count as made from the other, when history does
/// not tell: as many lines unchanged as changed.
const ALIKE: f64 = 0.5;

/// The versions of an override and of what it inherits.
pub struct OverrideHistory<'a> {
    pub history: &'a PathHistory<'a>,
    pub candidate: &'a OverrideCandidate<'a>,
}

/// The content that an override was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseVersion {
    pub id: ContentId,
    /// The override's commit at which it was inherited; none for what is inherited now.
    pub commit: Option<usize>,
}

/// A version: its id, and its content.
type VersionContent<'a> = (ContentId, &'a [u8]);

impl OverrideHistory<'_> {
    /// The content that the override was made from.
    pub fn base(
        &self,
        ours: VersionContent,
        theirs: VersionContent,
    ) -> Result<Option<BaseVersion>, Error> {
        let mut base: Option<BaseVersion> = None;
        let mut before: Option<Vec<u8>> = None;
        let touches = self.history.touches(&self.candidate.place.file);
        // Oldest first. A removal ends an override; what is added later is another one.
        let start = touches.iter().position(|touch| touch.blob.is_none());
        for touch in touches[..start.unwrap_or(touches.len())].iter().rev() {
            let Some(own) = touch.blob else { continue };
            let own = self.history.content(own)?;
            let there = self.inherited_at(touch.commit)?;
            let there = there.map(|id| BaseVersion {
                id,
                commit: Some(touch.commit),
            });
            base = match (base, there) {
                // Added together with it, or after it.
                (None, Some(there)) => Some(there),
                (None, None) => self.most_alike(&own, touch.commit)?,
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
        // In no commit yet: a new override, or one that is being worked on.
        let committed = touches.first().and_then(|touch| touch.blob);
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

    /// What the override would have inherited at a commit.
    fn inherited_at(&self, commit: usize) -> Result<Option<ContentId>, Error> {
        for place in &self.candidate.above {
            if let Some(blob) = self.history.blob_at(&place.file, commit)? {
                return Ok(Some(blob.into()));
            }
        }
        Ok(None)
    }

    /// Whether the override, changed from `before` to `own`, has taken over what came after
    /// `base`: merging would bring nothing more, or nothing more but conflicts in lines that
    /// this change has touched, so that a person has decided.
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
        if merged.clean {
            return Ok(merged.content == own);
        }
        let Some(before) = before.filter(|_| !has_markers(own)) else {
            return Ok(false);
        };
        let earlier = three_way(&base, before, there, ("", ""))?;
        let has_decided = ours_in_conflicts(&earlier.content) != ours_in_conflicts(&merged.content);
        Ok(has_decided && keep_ours(&base, own, there)? == own)
    }

    /// For an override that is older than what it overrides, as far as history goes: the
    /// version that is most like it, else the first.
    fn most_alike(&self, own: &[u8], commit: usize) -> Result<Option<BaseVersion>, Error> {
        let mut best: Option<(f64, PathChange)> = None;
        let mut first = None;
        for place in &self.candidate.above {
            for touch in self.history.touches(&place.file) {
                let Some(blob) = touch.blob.filter(|_| touch.commit < commit) else {
                    continue;
                };
                first = Some(*touch);
                let content = self.history.content(blob)?;
                let lines = 1 + count(own, b"\n") + count(&content, b"\n");
                #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
                let alike = 1.0 - distance(own, &content)? as f64 / lines as f64;
                if alike >= ALIKE && best.is_none_or(|(known, _)| alike > known) {
                    best = Some((alike, *touch));
                }
            }
        }
        let found = best.map(|(_, touch)| touch).or(first);
        Ok(found.and_then(|touch| {
            Some(BaseVersion {
                id: touch.blob?.into(),
                commit: Some(touch.commit),
            })
        }))
    }
}
