//! The key of an encrypted volume: taken from the secrets of a call, handed to the machine, and kept nowhere.
//!
//! It has no text form: `Debug` hides it, and nothing can write it to the ledger.

use std::collections::BTreeMap;
use std::fmt;

/// The secret under which the key is looked for, in the secrets of `NodeStageVolume` and `NodePublishVolume`.
pub const KEY_SECRET: &str = "encryptionPassphrase";

/// What opens the encryption layer of a volume: any bytes, at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key among the secrets of a call; `None` if there is none.
    pub fn among(secrets: &BTreeMap<String, String>) -> Option<Self> {
        let text = secrets.get(KEY_SECRET).filter(|text| !text.is_empty())?;
        Some(Self(text.clone().into_bytes()))
    }

    /// The bytes, for whoever opens the layer.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(stripped)")
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_is_never_shown() {
        let secrets = [(super::KEY_SECRET.to_owned(), "hunter2".to_owned())].into();
        let key = Key::among(&secrets).unwrap();
        assert!(!format!("{key:?}").contains("hunter2"));
        assert_eq!(key.bytes(), b"hunter2");
        assert_eq!(
            Key::among(&[(super::KEY_SECRET.to_owned(), String::new())].into()),
            None
        );
    }
}
