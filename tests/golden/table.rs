//! `docs/fidelity.md`: its table is made from the fixtures and the allow list, and a test compares.

use std::fmt::Write as _;
use std::path::Path;

use crate::allow::{self, Allowance};
use crate::fixture::Fixture;
use crate::names::Names;
use crate::{calls, events, gaps, states, writes};

const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->";

/// The text between the marks.
fn expected(fixtures: &[Fixture], allowed: &[Allowance]) -> String {
    let mut text = String::from(
        "\n| Trace | Subject | Calls | States | Events | Writes | Gaps | What still differs, and why |\n|---|---|---|---|---|---|---|---|\n",
    );
    for fixture in fixtures {
        let names = Names::of(&fixture.seen);
        let calls = calls::calls(&fixture.seen, &names);
        let facts = states::facts(&fixture.seen, &names);
        let differs: Vec<String> = allow::of(allowed, &fixture.trace)
            .iter()
            .map(|a| format!("`{}`: {}", a.what.replace('|', "\\|"), a.why))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            fixture.trace.replace('_', " "),
            fixture.subject.replace('|', "\\|"),
            calls.len(),
            states::count(&facts),
            events::count(&events::events(&fixture.seen, &names)),
            writes::count(&writes::writes(&fixture.seen, &names)),
            calls::count_gaps(&calls) + gaps::count(&facts),
            if differs.is_empty() {
                "nothing".into()
            } else {
                differs.join("<br>")
            }
        );
    }
    text.push('\n');
    text
}

/// Compares the table of the docs with what it should be.
pub fn check(fixtures: &[Fixture], allowed: &[Allowance]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fidelity.md");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("docs/fidelity.md: {e}"))?;
    let inside = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (found, _) = inside.ok_or_else(|| format!("docs/fidelity.md has no {} … {END}", BEGIN.trim()))?;
    let expected = expected(fixtures, allowed);
    if found == expected {
        return Ok(());
    }
    Err(format!("the table in docs/fidelity.md should read:\n{expected}"))
}
