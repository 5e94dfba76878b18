//! `jwt`.
use super::{Compiled, Scene};
use crate::{
    config::raw,
    diagnostic::{Path, Problems},
};

pub(super) fn compile(
    _raw: &raw::Jwt,
    _scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    problems.add(at, "this method is not built yet");
    None
}
