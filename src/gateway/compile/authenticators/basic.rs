//! `basic`.
use super::{Compiled, Scene};
use crate::{
    auth::{Method, basic},
    config::raw,
    diagnostic::{Path, Problems},
};

pub(super) fn compile(
    raw: &raw::Basic,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let realm = raw.realm.as_ref().map_or("Tollgate", |realm| realm.0.as_str());
    let made = basic::Basic::new(realm, scene.users.clone(), scene.shared.passwords.clone());
    problems.keep(&at.key("realm"), made).map(|it| Method::Basic(it).into())
}
