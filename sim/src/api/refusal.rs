//! How the server says no: the Status objects of Kubernetes, with their codes, reasons and wording.

use std::fmt::{self, Display, Write as _};

use super::object::{Kind, ObjectRef};
use super::write::ApiError;

impl Kind {
    /// The API group: empty for the core group.
    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }
}

/// `persistentvolumeclaims`, `storageclasses.storage.k8s.io`: how messages name a resource.
struct Qualified(&'static str, Kind);

impl Display for Qualified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        match self.1.group() {
            "" => Ok(()),
            group => write!(f, ".{group}"),
        }
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: String) -> ApiError {
        ApiError { code, reason, message }
    }

    /// 404: there is no such object.
    pub fn not_found(target: &ObjectRef) -> ApiError {
        let message = format!("{} \"{}\" not found", resource(target.kind), target.key.name);
        ApiError::new(404, "NotFound", message)
    }

    /// 404: the kind has no such subresource.
    pub fn no_such_resource() -> ApiError {
        ApiError::new(
            404,
            "NotFound",
            "the server could not find the requested resource".into(),
        )
    }

    /// 409: there is one already.
    pub fn already_exists(target: &ObjectRef) -> ApiError {
        let message = format!("{} \"{}\" already exists", resource(target.kind), target.key.name);
        ApiError::new(409, "AlreadyExists", message)
    }

    /// 409: the write cannot be applied to what is stored.
    pub fn conflict(target: &ObjectRef, why: impl Display) -> ApiError {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            resource(target.kind),
            target.key.name
        );
        ApiError::new(409, "Conflict", message)
    }

    /// 409: somebody else wrote first.
    pub fn stale(target: &ObjectRef) -> ApiError {
        ApiError::conflict(
            target,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: the UID that the client expects is another one by now.
    pub fn other_uid(target: &ObjectRef, expected: &str, stored: &str) -> ApiError {
        let why = format!("Precondition failed: UID in precondition: {expected}, UID in object meta: {stored}");
        ApiError::conflict(target, why)
    }

    /// 403: admission refuses.
    pub fn forbidden(target: &ObjectRef, why: impl Display) -> ApiError {
        let message = format!("{} \"{}\" is forbidden: {why}", resource(target.kind), target.key.name);
        ApiError::new(403, "Forbidden", message)
    }

    /// 400: the request makes no sense.
    pub fn bad_request(why: impl Display) -> ApiError {
        ApiError::new(400, "BadRequest", why.to_string())
    }

    /// 410: the resourceVersion is older than what the watch history still holds.
    pub fn expired(requested: u64, oldest: u64) -> ApiError {
        let message = format!("too old resource version: {requested} ({oldest})");
        ApiError::new(410, "Expired", message)
    }

    /// 415: the kind takes no patches of this type.
    pub fn unsupported_media_type(sent: &str) -> ApiError {
        let accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        let message = format!(
            "the body of the request was in an unknown format ({sent}) - accepted media types include: {accepted}"
        );
        ApiError::new(415, "UnsupportedMediaType", message)
    }

    /// 422: a `test` of a JSON patch fails, or the patch cannot be applied.
    pub fn unappliable() -> ApiError {
        let message = "the server rejected our request due to an error in our request";
        ApiError::new(422, "Invalid", message.into())
    }

    /// 500: what the server answers to a create with a resourceVersion.
    pub fn internal(why: impl Display) -> ApiError {
        ApiError::new(500, "InternalError", why.to_string())
    }

    /// 503: what a client makes of a server that it cannot reach.
    pub fn unavailable() -> ApiError {
        let message = "the server is currently unable to handle the request";
        ApiError::new(503, "ServiceUnavailable", message.into())
    }

    /// 410 with reason `Expired`.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// 422 with reason `Invalid`.
    pub fn is_invalid(&self) -> bool {
        self.code == 422
    }

    /// 403 with reason `Forbidden`.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }
}

fn resource(kind: Kind) -> impl Display {
    Qualified(kind.plural(), kind)
}

/// What is wrong with an object, field by field, in the order found.
#[derive(Debug, Default)]
pub(super) struct FieldErrors {
    found: Vec<String>,
}

impl FieldErrors {
    /// The field must be there.
    pub(super) fn required(&mut self, path: impl Display, detail: impl Display) {
        self.found.push(with_detail(format!("{path}: Required value"), detail));
    }

    /// The value is not acceptable.
    pub(super) fn invalid(&mut self, path: impl Display, value: impl Display, detail: impl Display) {
        self.found.push(format!("{path}: Invalid value: \"{value}\": {detail}"));
    }

    /// The value is none of the few that are.
    pub(super) fn unsupported(&mut self, path: impl Display, value: impl Display, supported: &[&str]) {
        let mut text = format!("{path}: Unsupported value: \"{value}\": supported values: ");
        for (i, one) in supported.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(text, "{comma}\"{one}\"").expect("a string grows");
        }
        self.found.push(text);
    }

    /// The field may not be set, or not changed.
    pub(super) fn forbidden(&mut self, path: impl Display, detail: impl Display) {
        self.found.push(format!("{path}: Forbidden: {detail}"));
    }

    /// The value stands there already.
    pub(super) fn duplicate(&mut self, path: impl Display, value: impl Display) {
        self.found.push(format!("{path}: Duplicate value: \"{value}\""));
    }

    /// The value names something that does not exist.
    pub(super) fn not_found(&mut self, path: impl Display, value: impl Display) {
        self.found.push(format!("{path}: Not found: \"{value}\""));
    }

    /// The value is too long.
    pub(super) fn too_long(&mut self, path: impl Display, limit: usize) {
        self.found
            .push(format!("{path}: Too long: may not be more than {limit} bytes"));
    }

    /// The value may not change any more.
    pub(super) fn immutable<T: PartialEq>(&mut self, path: impl Display, old: &T, new: &T, shown: impl Display) {
        if old != new {
            self.invalid(path, shown, "field is immutable");
        }
    }

    /// Whether something was found.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// 422 naming all that was found, or fine.
    pub(super) fn verdict(self, kind: Kind, name: &str) -> Result<(), ApiError> {
        let what = match self.found.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {what}", Qualified(kind.name(), kind));
        Err(ApiError::new(422, "Invalid", message))
    }
}

fn with_detail(text: String, detail: impl Display) -> String {
    let detail = detail.to_string();
    if detail.is_empty() {
        text
    } else {
        format!("{text}: {detail}")
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiError, FieldErrors};
    use crate::api::object::{Kind, ObjKey, ObjectRef};

    #[test]
    fn resources_outside_the_core_group_are_named_with_their_group() {
        let claim = ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", "data"));
        let class = ObjectRef::new(Kind::StorageClass, ObjKey::cluster("fast"));
        assert_eq!(
            ApiError::not_found(&claim).message,
            "persistentvolumeclaims \"data\" not found"
        );
        assert_eq!(
            ApiError::not_found(&class).message,
            "storageclasses.storage.k8s.io \"fast\" not found"
        );
    }

    #[test]
    fn several_faults_are_listed_and_one_stands_alone() {
        let mut errors = FieldErrors::default();
        errors.required("spec.accessModes", "at least 1 access mode is required");
        assert!(!errors.is_empty());
        errors.unsupported("spec.volumeMode", "Blok", &["Block", "Filesystem"]);
        let refusal = errors.verdict(Kind::PersistentVolumeClaim, "data").unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (422, "Invalid"));
        assert_eq!(
            refusal.message,
            "PersistentVolumeClaim \"data\" is invalid: [spec.accessModes: Required value: at least 1 access mode is required, \
             spec.volumeMode: Unsupported value: \"Blok\": supported values: \"Block\", \"Filesystem\"]"
        );
    }
}
