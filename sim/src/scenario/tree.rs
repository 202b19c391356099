//! YAML as a tree that knows where everything stands.
//!
//! Built from parser events, because mistakes must be found with their places and all at once: duplicate keys, unknown keys and wrong types are
//! reported by the one walk in `check.rs`. Plain scalars mean what they mean to kubectl, that is YAML 1.1: `yes` and `on` are booleans, `0644` is
//! octal. Aliases and merge keys are expanded; what they expand to is bounded, as are size and depth of a document.
//!
//! Blind spots: YAML 1.1 timestamps stay text (kubectl does the same), and non-finite numbers stay text (JSON has none).

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::Number;

use super::check::MOST_MISTAKES;
use super::mistake::{Mistake, Source, Span};

/// The most values that one file may hold, aliases expanded.
pub(crate) const MAX_VALUES: usize = 200_000;
/// The most bytes of text that one file may hold, aliases expanded.
const MAX_TEXT: usize = 16 << 20;
/// The deepest that values may be nested.
const MAX_DEPTH: usize = 64;

/// A YAML value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value.
    pub value: Value,
    /// Where; for lists and maps, where they start.
    pub span: Span,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The entries, if it is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry with this key, if it is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// The value under this key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The items, if it is a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What it is, for messages.
    pub fn what(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Number(n) => format!("the number {n}"),
            Value::Text(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
            Value::Text(_) => "a text".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// The value as JSON. `nulls` says whether keys without a value stay (they mean something in a merge patch only).
    pub fn to_json(&self, nulls: bool) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => serde_json::Value::Bool(*b),
            Value::Number(n) => serde_json::Value::Number(n.clone()),
            Value::Text(text) => serde_json::Value::String(text.clone()),
            Value::List(items) => items.iter().map(|item| item.to_json(nulls)).collect(),
            Value::Map(entries) => entries
                .iter()
                .filter(|entry| nulls || !entry.value.is_null())
                .map(|entry| (entry.key.clone(), entry.value.to_json(nulls)))
                .collect(),
        }
    }

    fn weight(&self) -> Weight {
        let mut weight = Weight { values: 1, text: 0 };
        match &self.value {
            Value::Text(text) => weight.text = text.len(),
            Value::List(items) => items.iter().for_each(|item| weight.add(item.weight())),
            Value::Map(entries) => entries.iter().for_each(|entry| {
                weight.add(entry.value.weight());
                weight.text += entry.key.len();
            }),
            _ => {}
        }
        weight
    }
}

#[derive(Clone, Copy, Default)]
struct Weight {
    values: usize,
    text: usize,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.values += other.values;
        self.text += other.text;
    }
}

/// The documents of a file, and what is wrong with their form. After a mistake that the parser cannot pass, the rest is missing.
pub(crate) fn parse(source: &Arc<Source>) -> (Vec<Node>, Vec<Mistake>) {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(source);
    for next in Parser::new_from_str_with_options(&source.text, options) {
        let pushed = match next {
            Ok((event, span)) => builder.push(event, place(span)),
            Err(error) => {
                builder.mistakes.push(unreadable(source, &error));
                Err(Stop)
            }
        };
        if pushed.is_err() || builder.mistakes.len() >= MOST_MISTAKES {
            break;
        }
    }
    (builder.documents, builder.mistakes)
}

fn place(span: granit_parser::Span) -> Span {
    let start = span.start.byte_offset().unwrap_or_default();
    let end = span.end.byte_offset().unwrap_or(start);
    Span {
        start,
        len: end.saturating_sub(start),
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

fn unreadable(source: &Arc<Source>, error: &granit_parser::ScanError) -> Mistake {
    let marker = error.marker();
    let start = marker.byte_offset().unwrap_or_default().min(source.text.len());
    let span = Span {
        start,
        len: usize::from(start < source.text.len() && source.text.is_char_boundary(start + 1)),
        line: marker.line(),
        column: marker.col() + 1,
    };
    let mistake = Mistake::new("", format!("this is not YAML: {}", error.info())).at(source, span);
    let line = source
        .text
        .lines()
        .nth(marker.line().saturating_sub(1))
        .unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    if indent.contains('\t') {
        return mistake.help("indent with spaces: YAML allows no tabs there");
    }
    mistake
}

/// Reading cannot go on; the mistake that says why has been noted.
struct Stop;

/// A list or map that is still open.
struct Open {
    anchor: usize,
    span: Span,
    what: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        merges: Vec<(Span, Node)>,
        key: Option<(String, Span, bool)>,
        seen: BTreeMap<String, Span>,
    },
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    documents: Vec<Node>,
    mistakes: Vec<Mistake>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, Weight)>,
    total: Weight,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Arc<Source>) -> Builder<'a> {
        Builder {
            source,
            documents: Vec::new(),
            mistakes: Vec::new(),
            open: Vec::new(),
            anchors: BTreeMap::new(),
            total: Weight::default(),
        }
    }

    fn push(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                return self.scalar(text.into_owned(), style, anchor, tag.as_deref(), span);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                return self.start(Collection::List(Vec::new()), anchor, span);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                let what = Collection::Map {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    key: None,
                    seen: BTreeMap::new(),
                };
                return self.start(what, anchor, span);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(),
            Event::Alias(id) => {
                // An anchor that is not complete yet contains the alias itself.
                let Some((node, weight)) = self.anchors.get(&id).cloned() else {
                    return self.stop(span, "this alias stands inside the value that it refers to");
                };
                self.count(weight, span)?;
                return self.attach(node, 0, span);
            }
            _ => {}
        }
        Ok(())
    }

    fn mistake(&self, span: Span, message: impl Into<String>) -> Mistake {
        Mistake::new("", message).at(self.source, span)
    }

    fn stop(&mut self, span: Span, message: impl Into<String>) -> Result<(), Stop> {
        let mistake = self.mistake(span, message);
        self.mistakes.push(mistake);
        Err(Stop)
    }

    fn count(&mut self, weight: Weight, span: Span) -> Result<(), Stop> {
        self.total.add(weight);
        if self.total.values > MAX_VALUES {
            return self.stop(
                span,
                format!("the file holds more than {MAX_VALUES} values, aliases expanded"),
            );
        }
        if self.total.text > MAX_TEXT {
            return self.stop(
                span,
                format!("the file holds more than {MAX_TEXT} bytes of text, aliases expanded"),
            );
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: String,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Stop> {
        self.count(
            Weight {
                values: 1,
                text: text.len(),
            },
            span,
        )?;
        if let Some(Open {
            what: Collection::Map { key: key @ None, .. },
            ..
        }) = self.open.last_mut()
        {
            let merge = text == "<<" && style == ScalarStyle::Plain;
            *key = Some((text.clone(), span, merge));
            if anchor != 0 {
                let node = Node {
                    value: Value::Text(text),
                    span,
                };
                let weight = node.weight();
                self.anchors.insert(anchor, (node, weight));
            }
            return Ok(());
        }
        let core = tag.map(|tag| tag.core_suffix().map(str::to_owned).ok_or_else(|| tag.original()));
        let value = match (core.as_ref().map(|tag| tag.as_deref()), style) {
            (None, ScalarStyle::Plain) => resolve(text),
            (None, _) | (Some(Ok("str")), _) => Value::Text(text),
            (Some(Ok("null" | "bool" | "int" | "float")), _) => resolve(text),
            (Some(Ok(other)), _) => {
                self.mistakes
                    .push(self.mistake(span, format!("the tag !!{other} has no meaning here")));
                Value::Text(text)
            }
            (Some(Err(other)), _) => {
                self.mistakes
                    .push(self.mistake(span, format!("the tag {other} has no meaning here")));
                Value::Text(text)
            }
        };
        self.attach(Node { value, span }, anchor, span)
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, plain: &str, span: Span) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(plain)
        {
            let mistake = self.mistake(
                Span { len: 1, ..span },
                format!("the tag {} has no meaning here", tag.original()),
            );
            self.mistakes.push(mistake);
        }
    }

    fn start(&mut self, what: Collection, anchor: usize, span: Span) -> Result<(), Stop> {
        self.count(Weight { values: 1, text: 0 }, span)?;
        if self.open.len() == MAX_DEPTH {
            return self.stop(span, format!("values are nested deeper than {MAX_DEPTH} levels"));
        }
        // A flow collection spans its brackets, a block collection only its start: quote one character of either.
        let span = Span { len: 1, ..span };
        self.open.push(Open { anchor, span, what });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let open = self.open.pop().expect("the parser ends only what it started");
        let value = match open.what {
            Collection::List(items) => Value::List(items),
            Collection::Map {
                mut entries, merges, ..
            } => {
                for (span, merged) in merges {
                    self.merge(&mut entries, span, merged);
                }
                Value::Map(entries)
            }
        };
        let node = Node { value, span: open.span };
        self.attach(node, open.anchor, open.span)
    }

    /// Adds the keys of a `<<` value that the map does not have itself.
    fn merge(&mut self, entries: &mut Vec<Entry>, span: Span, merged: Node) {
        match merged.value {
            Value::Map(more) => {
                for entry in more {
                    if entries.iter().all(|own| own.key != entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Value::List(items) => items.into_iter().for_each(|item| self.merge(entries, span, item)),
            _ => self
                .mistakes
                .push(self.mistake(span, "the merge key << takes a map or a list of maps")),
        }
    }

    /// Puts a finished value where it belongs.
    fn attach(&mut self, node: Node, anchor: usize, at: Span) -> Result<(), Stop> {
        if anchor != 0 {
            let weight = node.weight();
            self.count(weight, at)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.what {
            Collection::List(items) => items.push(node),
            Collection::Map {
                entries,
                merges,
                key,
                seen,
            } => match key.take() {
                None => {
                    let text = node.text().map(str::to_owned);
                    *key = Some((text.clone().unwrap_or_default(), at, false));
                    if text.is_none() {
                        self.mistakes
                            .push(self.mistake(Span { len: 1, ..at }, "a key must be plain text"));
                    }
                }
                Some((_, span, true)) => merges.push((span, node)),
                Some((key, span, false)) => {
                    if let Some(first) = seen.get(&key) {
                        let message = format!("the key `{key}` is already there, in line {}", first.line);
                        self.mistakes.push(
                            Mistake::new(key, message)
                                .at(self.source, span)
                                .help("keep one of the two"),
                        );
                        return Ok(());
                    }
                    seen.insert(key.clone(), span);
                    entries.push(Entry { key, span, value: node });
                }
            },
        }
        Ok(())
    }
}

/// What a plain scalar means, by the rules of YAML 1.1 as kubectl applies them.
pub(crate) fn resolve(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(&text).map_or(Value::Text(text), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let clean = digits.replace('_', "");
    let whole = match clean.as_bytes() {
        [b'0', b'x', ..] => i128::from_str_radix(&clean[2..], 16).ok(),
        [b'0', b'o', ..] => i128::from_str_radix(&clean[2..], 8).ok(),
        [b'0', b'b', ..] => i128::from_str_radix(&clean[2..], 2).ok(),
        [b'0', _, ..] => i128::from_str_radix(&clean, 8).ok().or_else(|| clean.parse().ok()),
        _ => clean.parse::<i128>().ok(),
    };
    if let Some(whole) = whole {
        let whole = if negative { -whole } else { whole };
        if let Ok(small) = i64::try_from(whole) {
            return Some(small.into());
        }
        return u64::try_from(whole).ok().map(Number::from);
    }
    let float = clean.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && clean.contains(|c: char| c.is_ascii_digit())
        && clean
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    let value: f64 = float.then(|| clean.parse().ok()).flatten()?;
    Number::from_f64(if negative { -value } else { value })
}
