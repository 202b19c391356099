//! Which secrets a class names: the parameters of each kind, their templates, and what they resolve to (fact sheet 3.4).
//!
//! Every kind falls back to `csi.storage.k8s.io/secret-name|namespace`. A namespace may use `${pv.name}` and `${pvc.namespace}`; a name also `${pvc.name}` and
//! `${pvc.annotations['key']}`, which are in the hands of whoever writes the claim.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, SecretReference};

use crate::api::fields;

/// The prefix of parameters that are Kubernetes' and not the driver's.
pub const PREFIX: &str = "csi.storage.k8s.io/";

/// What a secret is for: which parameters name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// CreateVolume and DeleteVolume.
    Provisioner,
    /// ControllerPublishVolume.
    ControllerPublish,
    /// NodeStageVolume.
    NodeStage,
    /// NodePublishVolume.
    NodePublish,
    /// ControllerExpandVolume.
    ControllerExpand,
    /// NodeExpandVolume.
    NodeExpand,
    /// ControllerModifyVolume.
    ControllerModify,
    /// All of them, unless they have their own.
    Default,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 8] = [
        Purpose::Provisioner,
        Purpose::ControllerPublish,
        Purpose::NodeStage,
        Purpose::NodePublish,
        Purpose::ControllerExpand,
        Purpose::NodeExpand,
        Purpose::ControllerModify,
        Purpose::Default,
    ];

    /// The parameter keys for name and namespace, without [`PREFIX`].
    pub fn keys(self) -> (&'static str, &'static str) {
        match self {
            Purpose::Provisioner => ("provisioner-secret-name", "provisioner-secret-namespace"),
            Purpose::ControllerPublish => ("controller-publish-secret-name", "controller-publish-secret-namespace"),
            Purpose::NodeStage => ("node-stage-secret-name", "node-stage-secret-namespace"),
            Purpose::NodePublish => ("node-publish-secret-name", "node-publish-secret-namespace"),
            Purpose::ControllerExpand => ("controller-expand-secret-name", "controller-expand-secret-namespace"),
            Purpose::NodeExpand => ("node-expand-secret-name", "node-expand-secret-namespace"),
            Purpose::ControllerModify => ("controller-modify-secret-name", "controller-modify-secret-namespace"),
            Purpose::Default => ("secret-name", "secret-namespace"),
        }
    }

    /// The old, unprefixed keys that still count. They are also handed to the driver.
    fn deprecated(self) -> Option<(&'static str, &'static str)> {
        match self {
            Purpose::Provisioner => Some(("csiProvisionerSecretName", "csiProvisionerSecretNamespace")),
            Purpose::ControllerPublish => {
                Some(("csiControllerPublishSecretName", "csiControllerPublishSecretNamespace"))
            }
            Purpose::NodeStage => Some(("csiNodeStageSecretName", "csiNodeStageSecretNamespace")),
            Purpose::NodePublish => Some(("csiNodePublishSecretName", "csiNodePublishSecretNamespace")),
            _ => None,
        }
    }

    /// The templates of name and namespace in a class.
    fn templates(self, parameters: &BTreeMap<String, String>) -> Result<Option<(&str, &str)>, String> {
        let (name, namespace) = self.keys();
        let prefixed = |key: &str| parameters.get(&format!("{PREFIX}{key}")).map(String::as_str);
        let old = |key: &str| parameters.get(key).map(String::as_str);
        let (old_name, old_namespace) = self.deprecated().map_or((None, None), |(a, b)| (old(a), old(b)));
        let (new_name, new_namespace) = (prefixed(name), prefixed(namespace));
        if (old_name.is_some() && new_name.is_some()) || (old_namespace.is_some() && new_namespace.is_some()) {
            return Err(format!(
                "{self:?} secrets specified in parameters with both \"csi\" and \"{PREFIX}\" keys"
            ));
        }
        match (new_name.or(old_name), new_namespace.or(old_namespace)) {
            (None, None) => Ok(None),
            (Some(name), Some(namespace)) if name.is_empty() || namespace.is_empty() => Err(format!(
                "{self:?} secrets specified in parameters but value of either namespace or name is empty"
            )),
            (Some(name), Some(namespace)) => Ok(Some((name, namespace))),
            _ => Err(format!(
                "either name and namespace for {self:?} secrets specified, Both must be specified"
            )),
        }
    }

    /// The secret that a class names for this purpose.
    ///
    /// # Errors
    /// When the parameters are incomplete, doubled, or resolve to no valid name.
    pub fn reference(
        self,
        parameters: &BTreeMap<String, String>,
        volume: &str,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<SecretReference>, String> {
        let own = self.templates(parameters);
        let own = own.map_err(|e| format!("failed to get name and namespace template from params: {e}"))?;
        let found = match own {
            Some(found) => Some(found),
            None => Purpose::Default
                .templates(parameters)
                .map_err(|e| format!("failed to get default name and namespace template from params: {e}"))?,
        };
        let Some((name, namespace)) = found else {
            return Ok(None);
        };
        let mut tokens: BTreeMap<String, &str> = BTreeMap::new();
        tokens.insert("pv.name".into(), volume);
        tokens.insert("pvc.namespace".into(), fields::namespace(&claim.metadata));
        let namespace = resolve(namespace, &tokens, is_label, "namespace name")?;
        tokens.insert("pvc.name".into(), fields::name(&claim.metadata));
        for (key, value) in claim.metadata.annotations.iter().flatten() {
            tokens.insert(format!("pvc.annotations['{key}']"), value);
        }
        let name = resolve(name, &tokens, is_subdomain, "secret name")?;
        Ok(Some(SecretReference {
            name: Some(name),
            namespace: Some(namespace),
        }))
    }
}

fn resolve(
    template: &str,
    tokens: &BTreeMap<String, &str>,
    valid: fn(&str) -> bool,
    what: &str,
) -> Result<String, String> {
    let resolved = expand(template, tokens)
        .map_err(|unknown| format!("error resolving value {template:?}: invalid tokens: {unknown:?}"))?;
    if valid(&resolved) {
        return Ok(resolved);
    }
    if resolved == template {
        Err(format!("{template:?} is not a valid {what}"))
    } else {
        Err(format!(
            "{template:?} resolved to {resolved:?} which is not a valid {what}"
        ))
    }
}

/// Replaces every `${token}`; the tokens that are unknown otherwise.
fn expand(template: &str, tokens: &BTreeMap<String, &str>) -> Result<String, BTreeSet<String>> {
    let mut out = String::new();
    let mut unknown = BTreeSet::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (token, tail) = after.split_once('}').unwrap_or((after, ""));
        match tokens.get(token) {
            Some(value) => out.push_str(value),
            None => {
                unknown.insert(token.to_owned());
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    if unknown.is_empty() { Ok(out) } else { Err(unknown) }
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_word(name)
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_word)
}

/// Small letters, digits and dashes, with a letter or digit at both ends.
fn is_word(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.chars().all(|c| plain(c) || c == '-') && name.starts_with(plain) && name.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use super::Purpose;
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use std::collections::BTreeMap;

    fn resolve(purpose: Purpose, parameters: &[(&str, &str)]) -> Result<Option<(String, String)>, String> {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".into());
        claim.metadata.namespace = Some("team".into());
        claim.metadata.annotations = Some([("key".to_owned(), "mine".to_owned())].into());
        let parameters: BTreeMap<String, String> = parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let found = purpose.reference(&parameters, "pvc-1", &claim)?;
        Ok(found.map(|r| (r.name.unwrap(), r.namespace.unwrap())))
    }

    const NAME: &str = "csi.storage.k8s.io/node-stage-secret-name";
    const NAMESPACE: &str = "csi.storage.k8s.io/node-stage-secret-namespace";

    #[test]
    fn templates_are_filled_from_volume_and_claim() {
        let found = resolve(
            Purpose::NodeStage,
            &[
                (NAME, "${pvc.name}.${pvc.annotations['key']}"),
                (NAMESPACE, "${pvc.namespace}-${pv.name}"),
            ],
        );
        assert_eq!(found, Ok(Some(("data.mine".into(), "team-pvc-1".into()))));
    }

    #[test]
    fn a_namespace_may_not_depend_on_what_the_claims_author_writes() {
        let found = resolve(Purpose::NodeStage, &[(NAME, "a"), (NAMESPACE, "${pvc.name}")]);
        assert!(found.is_err_and(|e| e.contains("invalid tokens")));
    }

    #[test]
    fn every_kind_falls_back_to_the_default_secret() {
        let default = [
            ("csi.storage.k8s.io/secret-name", "all"),
            ("csi.storage.k8s.io/secret-namespace", "ns"),
        ];
        for purpose in Purpose::ALL {
            assert_eq!(
                resolve(purpose, &default),
                Ok(Some(("all".into(), "ns".into()))),
                "{purpose:?}"
            );
        }
        assert_eq!(resolve(Purpose::NodeStage, &[]), Ok(None));
    }

    #[test]
    fn half_doubled_empty_or_invalid_names_are_errors() {
        let old = ("csiNodeStageSecretName", "b");
        let cases: [&[(&str, &str)]; 4] = [
            &[(NAME, "a")],
            &[(NAME, "a"), (NAMESPACE, "ns"), old],
            &[(NAME, ""), (NAMESPACE, "ns")],
            &[(NAME, "No_Name"), (NAMESPACE, "ns")],
        ];
        for parameters in cases {
            assert!(resolve(Purpose::NodeStage, parameters).is_err(), "{parameters:?}");
        }
        let deprecated = [old, ("csiNodeStageSecretNamespace", "ns")];
        assert_eq!(
            resolve(Purpose::NodeStage, &deprecated),
            Ok(Some(("b".into(), "ns".into())))
        );
    }
}
