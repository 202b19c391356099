//! Secrets as sidecars use them: read live before each call, and handed to the driver as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Secret, SecretReference};

use crate::api::{ApiError, Kind, ObjKey, ObjectRef};

/// Where the API server keeps a secret.
pub fn target(reference: &SecretReference) -> ObjectRef {
    let part = |s: &Option<String>| s.clone().unwrap_or_default();
    ObjectRef::new(
        Kind::Secret,
        ObjKey::new(part(&reference.namespace), part(&reference.name)),
    )
}

/// What a driver gets of a secret: its values as text.
pub fn credentials(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

/// The error of a GET of a secret as sidecars word it.
pub fn missing(reference: &SecretReference, error: &ApiError) -> String {
    let part = |s: &Option<String>| s.clone().unwrap_or_default();
    let (name, namespace) = (part(&reference.name), part(&reference.namespace));
    format!("error getting secret {name} in namespace {namespace}: {error}")
}
