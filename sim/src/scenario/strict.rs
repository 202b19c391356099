//! Strict reading of other files than scenarios: every mistake with its place and the key that was probably meant.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::check::{At, Check};
use super::mistake::{Mistake, ScenarioError, Source, Span};
use super::tree;

/// Reads one YAML document as `schema` has it. `name` is what mistakes call the file, `title` what they call the document.
///
/// # Errors
/// All its mistakes.
pub(crate) fn read<T: DeserializeOwned>(
    name: &str,
    text: String,
    schema: &Json,
    title: &str,
) -> Result<T, ScenarioError> {
    let source: Arc<Source> = Source::new(name, text);
    let (mut documents, mut mistakes) = tree::parse(&source);
    if !mistakes.is_empty() {
        return Err(ScenarioError::of(mistakes));
    }
    let Some(root) = documents.pop().filter(|_| documents.is_empty()) else {
        let mistake = Mistake::new("", format!("{title} is one document")).at(&source, Span::default());
        return Err(ScenarioError::of(vec![mistake]));
    };
    let mut check = Check::of(&source, schema, title);
    let at = At {
        path: String::new(),
        span: root.span,
    };
    check.check(&root, schema, &at);
    mistakes.append(&mut check.mistakes);
    if mistakes.is_empty() {
        match serde_json::from_value(root.to_json(false)) {
            Ok(read) => return Ok(read),
            Err(error) => mistakes.push(Mistake::new("", error.to_string()).at(&source, root.span)),
        }
    }
    Err(ScenarioError::of(mistakes))
}
