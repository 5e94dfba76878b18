//! What the cache promises under attack and under load: one fetch for a crowd, nothing of what lies, nothing
//! that a stranger could have put there, and no rule but the one that holds now.
mod crowd;
mod liars;
mod poison;
mod rules;
