//! `mtls`.
use super::{Compiled, Scene, allows_unknown};
use crate::{
    auth::{
        Method,
        mtls::{Field, Mtls},
    },
    config::raw,
    diagnostic::{Path, Problems},
    gateway::compile::words::choice_or,
};

pub(super) fn compile(
    raw: &raw::Mtls,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let at = at.key("consumer");
    let field = raw.consumer.as_ref().and_then(|it| it.field.as_ref());
    if field.is_none() {
        problems.add_with_hint(
            &at,
            "`field` is missing: what of a certificate says whose it is",
            "write `consumer: {field: san_dns}`, or `subject_cn`, `san_uri`, `fingerprint`",
        );
        return None;
    }
    let field = choice_or(field, Field::SanDns, &Field::ALL, &at.key("field"), problems);
    let unknown = raw.consumer.as_ref().and_then(|it| it.unknown.as_ref());
    let allows_unknown = allows_unknown(unknown, &at, problems);
    let subjects = scene.identities.subjects.clone();
    Some(Method::Mtls(Mtls::new(scene.label, field, allows_unknown, subjects)).into())
}
