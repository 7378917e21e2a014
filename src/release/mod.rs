//! Making a build live: the order of the steps, and their records. The targets carry the steps out.
