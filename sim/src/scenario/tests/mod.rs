//! What people see when they write something wrong (`mistakes.rs`), and that both spellings of a scenario are one (`spelling.rs`).

use std::path::{Path, PathBuf};

use super::*;

mod mistakes;
mod spelling;

fn read(text: &str) -> Result<Scenario, ScenarioError> {
    parse("s.yaml", text.to_owned(), Path::new("no-folder"))
}

fn shown(text: &str) -> String {
    read(text).expect_err("the text is wrong").render(100, false)
}

/// Each mistake as `line:column key: message | suggestion | help`.
fn found(text: &str) -> Vec<String> {
    let error = read(text).expect_err("the text is wrong");
    let line = |mistake: &Mistake| {
        let place = mistake.place().expect("a mistake of a file has a place");
        let mut line = format!("{}:{} {}: {}", place.line, place.column, mistake.key, mistake.message);
        for more in [&mistake.suggest, &mistake.help].into_iter().flatten() {
            line.push_str(&format!(" | {more}"));
        }
        line
    };
    error.mistakes().iter().map(line).collect()
}

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

const CLAIM: &str = "
  apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data}
  spec:
    accessModes: [ReadWriteOnce]
    resources: {requests: {storage: 1Gi}}
";
