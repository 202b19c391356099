//! Requests made of random bytes, field by field from the descriptors, so that every field of every method is covered.
//!
//! Most strings are names that mean something (ids, paths, tokens of what is there), so that requests get past the first check; the others are what
//! nobody should send: `..`, NUL, too long, foreign letters. Numbers are often at an edge. The same bytes make the same requests.

use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, Value};

use crate::call::descriptors;

/// Bytes that decide. When they are used up, every decision is the first.
#[derive(Clone, Debug)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// Decisions from these bytes.
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source(bytes)
    }

    /// Is nothing left to decide?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `end`, at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn number(&mut self) -> i64 {
        let mut bytes = [0; 8];
        bytes.iter_mut().for_each(|byte| *byte = self.byte());
        i64::from_le_bytes(bytes)
    }
}

/// Every method of a service of CSI (`Controller`), in order.
pub fn methods(service: &str) -> Vec<MethodDescriptor> {
    let found = descriptors().get_service_by_name(&format!("csi.v1.{service}"));
    found.map(|service| service.methods().collect()).unwrap_or_default()
}

/// The path of a method, as [`crate::raw`] takes it.
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// An encoded request of this method. `words` are strings that mean something to the driver.
pub fn request(method: &MethodDescriptor, source: &mut Source<'_>, words: &[String]) -> DynamicMessage {
    message(&method.input(), source, words, 0)
}

/// What nobody should send.
fn nasty(source: &mut Source<'_>) -> String {
    match source.below(14) {
        0 => String::new(),
        1 => "..".to_owned(),
        2 => "/".to_owned(),
        3 => "/var/lib/kubelet/../../../etc".to_owned(),
        4 => "a\0b".to_owned(),
        5 => "x".repeat(129),
        6 => "y".repeat(5000),
        7 => "größe \u{1F40B} \u{202E}\u{65E5}\u{672C}".to_owned(),
        8 => "\u{1}\u{7f}\n".to_owned(),
        9 => "/etc/passwd".to_owned(),
        10 => "/var/lib/kubelet//pods/./x".to_owned(),
        11 => "-1".to_owned(),
        12 => "18446744073709551616".to_owned(),
        _ => "nobody".to_owned(),
    }
}

fn string(source: &mut Source<'_>, words: &[String]) -> String {
    if words.is_empty() || source.below(6) == 0 {
        return nasty(source);
    }
    words[source.below(words.len())].clone()
}

fn integer(source: &mut Source<'_>) -> i64 {
    const MI: i64 = 1 << 20;
    const EDGES: [i64; 12] = [
        0,
        1,
        -1,
        2,
        MI,
        64 * MI,
        128 * MI,
        4096,
        i64::MAX,
        i64::MIN,
        i32::MAX as i64,
        MI - 1,
    ];
    let nth = source.below(EDGES.len() + 1);
    EDGES.get(nth).copied().unwrap_or_else(|| source.number())
}

fn message(of: &MessageDescriptor, source: &mut Source<'_>, words: &[String], depth: usize) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        // Most fields are set, so that requests are often complete.
        if source.below(8) == 7 {
            continue;
        }
        let value = if field.is_map() {
            map(&field, source, words)
        } else if field.is_list() {
            let count = [1, 2, 0, 3][source.below(4)];
            Value::List((0..count).map(|_| one(&field, source, words, depth)).collect())
        } else {
            one(&field, source, words, depth)
        };
        made.set_field(&field, value);
    }
    made
}

fn map(field: &FieldDescriptor, source: &mut Source<'_>, words: &[String]) -> Value {
    debug_assert!(field.is_map());
    let count = [0, 0, 1, 2][source.below(4)];
    Value::Map(
        (0..count)
            .map(|_| {
                (
                    MapKey::String(string(source, words)),
                    Value::String(string(source, words)),
                )
            })
            .collect(),
    )
}

/// Messages in messages end here; CSI's are flatter.
const DEEPEST: usize = 6;

fn one(field: &FieldDescriptor, source: &mut Source<'_>, words: &[String], depth: usize) -> Value {
    match field.kind() {
        Kind::String => Value::String(string(source, words)),
        Kind::Bool => Value::Bool(source.below(2) == 1),
        Kind::Bytes => Value::Bytes(string(source, words).into_bytes().into()),
        Kind::Enum(values) => {
            let known: Vec<i32> = values.values().map(|value| value.number()).collect();
            let nth = source.below(known.len() + 2);
            let number = known
                .get(nth)
                .copied()
                .unwrap_or(if nth == known.len() { 4711 } else { -1 });
            Value::EnumNumber(number)
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(source) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(source)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(source) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(source) as u64),
        Kind::Float => Value::F32(integer(source) as f32),
        Kind::Double => Value::F64(integer(source) as f64),
        Kind::Message(of) if depth < DEEPEST => Value::Message(message(&of, source, words, depth + 1)),
        Kind::Message(of) => Value::Message(DynamicMessage::new(of)),
    }
}

/// A message as JSON, for people.
pub fn shown(message: &DynamicMessage) -> String {
    let text = serde_json::to_string(message).unwrap_or_default();
    text.chars().take(600).collect()
}

/// Its encoding.
pub fn encoded(message: &DynamicMessage) -> Vec<u8> {
    message.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::{Source, encoded, methods, request};
    use std::collections::BTreeSet;

    #[test]
    fn every_field_of_every_request_is_set_by_some_bytes() {
        for service in ["Identity", "Controller", "GroupController", "SnapshotMetadata", "Node"] {
            for method in methods(service) {
                let wanted: BTreeSet<String> = method.input().fields().map(|field| field.name().to_owned()).collect();
                let mut seen = BTreeSet::new();
                for seed in 0..64_u8 {
                    let bytes: Vec<u8> = (0..200_u8)
                        .map(|nth| nth.wrapping_mul(31).wrapping_add(seed.wrapping_mul(7)))
                        .collect();
                    let made = request(&method, &mut Source::new(&bytes), &["v".to_owned()]);
                    seen.extend(made.fields().map(|(field, _)| field.name().to_owned()));
                }
                assert_eq!(seen, wanted, "{}", method.full_name());
            }
        }
    }

    #[test]
    fn the_same_bytes_make_the_same_request() {
        let method = &methods("Controller")[0];
        let bytes: Vec<u8> = (0..=255).collect();
        let make = || encoded(&request(method, &mut Source::new(&bytes), &["v".to_owned()]));
        assert_eq!(make().len(), make().len());
    }
}
