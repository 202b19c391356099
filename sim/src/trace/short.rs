//! Short forms of identities: what makes a line readable without making it ambiguous within a run.
//!
//! The form depends on the text alone, so that an unrelated object changes no other line: six hexadecimal digits of every UID and digest. JSON keeps them whole.

use std::borrow::Cow;
use std::time::Duration;

use crate::api::ObjKey;
use crate::scenario::DEFAULT_NAMESPACE;

/// How many digits of an identity are kept.
const KEPT: usize = 6;
/// The lengths of the groups of a UUID.
const UUID: [usize; 5] = [8, 4, 4, 4, 12];
/// From so many hexadecimal digits on a word is a digest and not a word.
const DIGEST: usize = 16;
/// Identities that are neither: from so many characters on they are cut in the middle.
const LONG: usize = 32;

/// The text with every UID and digest in it shortened: `pvc-1a2b3c…`.
pub fn ids(text: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let mut kept = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_alphanumeric() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        if !starts {
            at += 1;
            continue;
        }
        let end = word(bytes, at);
        let Some(id_end) = uuid(bytes, at).or_else(|| digest(&bytes[at..end]).then_some(end)) else {
            at = end;
            continue;
        };
        let out = out.get_or_insert_default();
        out.push_str(&text[kept..at + KEPT]);
        out.push('…');
        kept = id_end;
        at = id_end;
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.push_str(&text[kept..]);
            Cow::Owned(out)
        }
    }
}

/// A volume's or snapshot's id as a driver chose it.
pub fn handle(id: &str) -> Cow<'_, str> {
    let short = ids(id);
    let count = short.chars().count();
    if count <= LONG {
        return short;
    }
    let (head, tail) = (short.chars().take(14), short.chars().skip(count - 10));
    Cow::Owned(head.chain(['…']).chain(tail).collect())
}

/// Namespace and name, without the namespace where it is the default one.
pub fn key(key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == DEFAULT_NAMESPACE {
        ids(&key.name).into_owned()
    } else {
        format!("{}/{}", key.namespace, ids(&key.name))
    }
}

/// The last part of a qualified name: of `volume.kubernetes.io/selected-node` what stands behind the slash.
pub fn qualified(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some((_, last)) if !last.is_empty() => last,
        _ => name,
    }
}

/// A duration for people: `3.1 ms`, `850 ms`, `10.0 s`, `6 min 3 s`.
pub fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..100_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        100_000..1_000_000 => format!("{} ms", micros / 1000),
        1_000_000..120_000_000 => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
        _ => format!("{} min {} s", micros / 60_000_000, micros / 1_000_000 % 60),
    }
}

/// At most `most` characters, with a sign where something is missing.
pub fn clip(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text[..end].trim_end())),
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    let len = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    at + len
}

fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The end of the UUID that starts here.
fn uuid(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    for (nth, len) in UUID.into_iter().enumerate() {
        if nth > 0 {
            if bytes.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        let end = word(bytes, at);
        if end - at != len || !is_hex(&bytes[at..end]) {
            return None;
        }
        at = end;
    }
    Some(at)
}

/// Numbers are no digests: they are read as numbers.
fn digest(word: &[u8]) -> bool {
    word.len() >= DIGEST && is_hex(word) && !word.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::{clip, duration, handle, ids, qualified};
    use std::time::Duration;

    #[test]
    fn uids_and_digests_are_shortened_wherever_they_stand_and_nothing_else_is() {
        assert_eq!(ids("pvc-1a2b3c4d-0000-4000-8000-123456789abc"), "pvc-1a2b3c…");
        assert_eq!(
            ids("/plugins/csi/08806679b99e169f5f587a767a17cbe3/globalmount of ed53d0af-e51c-11f1-8f70-02524b5e115c."),
            "/plugins/csi/088066…/globalmount of ed53d0…."
        );
        for plain in [
            "default/data",
            "1099511627776000000",
            "deadbeef",
            "node-1",
            "",
            "é-ü",
            "12345678-1234",
        ] {
            assert_eq!(ids(plain), plain);
        }
    }

    #[test]
    fn ids_of_other_drivers_are_cut_in_the_middle() {
        assert_eq!(
            handle("projects/p/zones/z/disks/one-very-long-disk-name"),
            "projects/p/zon…-disk-name"
        );
        assert_eq!(handle("vol-1"), "vol-1");
    }

    #[test]
    fn durations_read_at_the_scale_that_matters() {
        let text = |micros| duration(Duration::from_micros(micros));
        assert_eq!(text(0), "0.0 ms");
        assert_eq!(text(3_149), "3.1 ms");
        assert_eq!(text(850_400), "850 ms");
        assert_eq!(text(10_000_000), "10.0 s");
        assert_eq!(text(363_000_000), "6 min 3 s");
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("añb", 2), "añ…");
        assert_eq!(clip("ab", 2), "ab");
        assert_eq!(qualified("volume.kubernetes.io/selected-node"), "selected-node");
        assert_eq!(qualified("plain/"), "plain/");
    }
}
