//! A run as a file for Perfetto (<https://ui.perfetto.dev>) and for `chrome://tracing`: JSON trace events, a thread for each lane.
//!
//! Calls are slices, everything else is an instant. Slices of one thread must not overlap, so a lane with calls that do has several threads.

use std::io;

use serde_json::{Value as Json, json};

use super::picture::{Mark, Picture, Sort};

/// Rows of a lane have these many numbers between them and those of the next lane.
const ROWS: usize = 1000;

/// Writes a run's picture; `name` is what its process is called, `token` repeats it.
///
/// # Errors
/// What the stream says.
pub fn write(out: &mut dyn io::Write, picture: &Picture, name: &str, token: &str) -> io::Result<()> {
    let mut events = vec![json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}})];
    for (lane, rows) in picture.rows().into_iter().enumerate() {
        for row in 0..rows.min(ROWS) {
            let name = &picture.lanes[lane].name;
            let name = if row == 0 {
                name.clone()
            } else {
                format!("{name} · {}", row + 1)
            };
            let tid = thread(lane, row);
            events.push(json!({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}));
            events.push(
                json!({"ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}),
            );
        }
    }
    events.extend(picture.marks.iter().map(|mark| event(mark, &picture.end)));
    let file = json!({
        "displayTimeUnit": "ms", "otherData": {"token": token, "time": "virtual"}, "traceEvents": events,
    });
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

fn thread(lane: usize, row: usize) -> usize {
    1 + lane * ROWS + row.min(ROWS - 1)
}

fn event(mark: &Mark, end: &Json) -> Json {
    let mut event = json!({
        "pid": 1, "tid": thread(mark.lane, mark.row), "name": mark.label, "cat": mark.sort, "ts": micros(&mark.at), "args": {"line": mark.text},
    });
    if !mark.detail.is_null() {
        event["args"]["detail"] = mark.detail.clone();
    }
    match mark.sort {
        Sort::Call | Sort::Question => {
            // A call that nobody answered goes on to the end.
            let took = match micros(&mark.took) {
                _ if mark.took.is_null() => (micros(end) - micros(&mark.at)).max(0.0),
                took => took,
            };
            event["ph"] = "X".into();
            event["dur"] = took.into();
        }
        Sort::Step | Sort::Fault => {
            event["ph"] = "i".into();
            event["s"] = "p".into();
        }
        Sort::Write | Sort::Event | Sort::Process | Sort::Machine => {
            event["ph"] = "i".into();
            event["s"] = "t".into();
        }
    }
    event
}

/// Trace events count microseconds.
fn micros(millis: &Json) -> f64 {
    (millis.as_f64().unwrap_or(0.0) * 1e6).round() / 1e3
}
