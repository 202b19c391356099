//! UIDs and generated names, derived from what the object is called and how often that name was used before.
//!
//! No stream is shared: creating an unrelated object changes no other object's identity, and a deleted and recreated object gets another UID.

use super::object::{Kind, ObjKey};

/// The letters of which Kubernetes makes name suffixes: no vowels, and nothing that looks like something else.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The UID of the `incarnation`-th object (from 1) of this kind and name, shaped like a random (version 4) UUID.
pub fn uid(kind: Kind, key: &ObjKey, incarnation: u32) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest("uid", kind, &key.namespace, &key.name, u64::from(incarnation))[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from(HEX[usize::from(digit)]));
        }
    }
    text
}

/// The `nth` name (from 1) made of this `generateName` in this namespace.
pub fn generated_name(kind: Kind, namespace: &str, prefix: &str, nth: u64) -> String {
    // Kubernetes cuts the prefix so that the whole name has at most 63 characters.
    let end = (0..=prefix.len().min(58))
        .rev()
        .find(|i| prefix.is_char_boundary(*i))
        .unwrap_or(0);
    let mut name = String::from(&prefix[..end]);
    let digest = digest("name", kind, namespace, prefix, nth);
    name.extend(
        digest[..5]
            .iter()
            .map(|b| char::from(SUFFIX[usize::from(*b) % SUFFIX.len()])),
    );
    name
}

fn digest(purpose: &str, kind: Kind, namespace: &str, name: &str, nth: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [purpose, kind.name(), namespace, name] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(&nth.to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::{generated_name, uid};
    use crate::api::object::{Kind, ObjKey};

    #[test]
    fn a_uid_depends_on_kind_name_and_incarnation_and_on_nothing_else() {
        let data = ObjKey::new("default", "data");
        let first = uid(Kind::PersistentVolumeClaim, &data, 1);
        assert_eq!(first, uid(Kind::PersistentVolumeClaim, &data, 1));
        assert_ne!(first, uid(Kind::PersistentVolumeClaim, &data, 2));
        assert_ne!(first, uid(Kind::Pod, &data, 1));
        assert_ne!(
            first,
            uid(Kind::PersistentVolumeClaim, &ObjKey::new("other", "data"), 1)
        );
        assert_eq!(first.len(), 36);
        assert_eq!(
            first.as_bytes()[14],
            b'4',
            "the version digit of a random UUID: {first}"
        );
    }

    #[test]
    fn generated_names_are_names() {
        let name = generated_name(Kind::Pod, "default", "web-", 1);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_ne!(name, generated_name(Kind::Pod, "default", "web-", 2));
        assert_eq!(generated_name(Kind::Pod, "default", &"x".repeat(100), 1).len(), 63);
    }
}
