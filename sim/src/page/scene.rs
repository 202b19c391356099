//! A picture as it is embedded in a page: JSON that cannot end the element that it stands in.

use serde::Serialize;

/// A picture with its title.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What stands above it.
    pub title: String,
    /// JSON in which no character means anything to HTML.
    pub json: String,
}

impl Scene {
    /// The scene of a picture.
    pub fn new(title: impl Into<String>, picture: &impl Serialize) -> Scene {
        let json = serde_json::to_string(picture).expect("a picture is plain data");
        Scene {
            title: title.into(),
            json: harmless(&json),
        }
    }

    /// How many bytes it adds to a page.
    pub fn weight(&self) -> usize {
        self.json.len()
    }
}

/// JSON with every character that HTML looks at as an escape: `</script>` and `<!--` end nothing. These characters stand only in strings, where the escape is the same.
fn harmless(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}
