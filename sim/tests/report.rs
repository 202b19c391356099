//! The report of the built command: what it holds, what it never holds, that it is the same each time, and that it works in a browser.
//!
//! The last needs Chromium. Where there is none, the test says `NOT RUN`; with `WAVETANK_BROWSER=demanded` that is a failure.

mod built;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use built::binary::root;
use built::{folder, wavetank};

const LIFE: &str = "scenarios/lifecycle/dynamic-immediate.yaml";

/// The pictures that a page holds.
fn pictures(html: &str) -> Vec<Json> {
    let parts = html.split("<script type=\"application/json\">").skip(1);
    let texts = parts.map(|part| part.split("</script>").next().expect("an element ends"));
    texts
        .map(|text| serde_json::from_str(text).expect("a picture is JSON"))
        .collect()
}

#[test]
fn a_page_tells_a_run_and_is_the_same_each_time() {
    let folder = folder("same");
    let page = |name: &str| {
        let file = folder.join(name);
        let ran = wavetank(&["run", LIFE, "--no-trace", "--report", file.to_str().unwrap()]);
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        fs::read_to_string(file).expect("the page is there")
    };
    let (one, other) = (page("one.html"), page("other.html"));
    assert_eq!(one, other, "the same token, the same bytes, wherever the page lies");
    assert!(one.contains("lifecycle/dynamic-immediate") && one.contains("token <code>wavetank/"));
    let picture = &pictures(&one)[0];
    let lanes: Vec<&str> = picture["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| lane["name"].as_str().unwrap())
        .collect();
    for lane in [
        "kubectl",
        "controller-manager",
        "provisioner",
        "attacher",
        "kubelet/node-3",
    ] {
        assert!(lanes.contains(&lane), "{lanes:?}");
    }
    let marks = picture["marks"].as_array().unwrap();
    let create = marks.iter().find(|mark| mark["label"] == "CreateVolume").unwrap();
    assert_eq!(create["sort"], "call");
    assert_eq!(create["tone"], "good");
    assert!(create["took"].as_f64().unwrap() > 0.0);
    assert_eq!(
        create["detail"]["request"]["capacity_range"]["required_bytes"],
        "1073741824"
    );
    assert!(create["detail"]["response"]["volume"]["volume_id"].is_string());
    let lives = picture["lives"].as_array().unwrap();
    let claim = lives.iter().find(|life| life["name"] == "pvc data").unwrap();
    let phases = &claim["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|track| track[0] == "phase")
        .unwrap()[1];
    assert_eq!((&phases[0][1], &phases[1][1]), (&"Pending".into(), &"Bound".into()));
    assert!(claim["gone"].is_number());
    let left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "nothing but the pages stays: {left:?}");
}

#[test]
fn a_violation_is_told_with_its_place_and_the_way_to_it() {
    let file = folder("violation").join("page.html");
    let ran = wavetank(&[
        "run",
        LIFE,
        "--mutant",
        "skips-unstage",
        "--report",
        file.to_str().unwrap(),
    ]);
    assert_eq!(ran.status, Some(2), "{}", ran.err);
    let html = fs::read_to_string(&file).unwrap();
    assert!(
        html.contains("--token wavetank/") && html.contains("/mutant="),
        "the command repeats the mutant"
    );
    for part in [
        "<span class=\"promise\">order</span>",
        "class=\"events\"",
        "<dt>blame</dt>",
        "data-mark=",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn where_a_page_cannot_be_written_the_command_says_so_before_it_plays() {
    let folder = folder("refused");
    let inside = folder.join("no/such/folder/page.html");
    for (path, why) in [
        (inside.to_str().unwrap(), "cannot be written"),
        (folder.to_str().unwrap(), "folder"),
        ("/dev/null", "plain file"),
    ] {
        for option in ["--report", "--perfetto"] {
            let ran = wavetank(&["run", LIFE, option, path]);
            ran.refuses(64, &[why]);
            assert!(ran.out.is_empty(), "nothing was played");
        }
    }
    let several = wavetank(&[
        "run",
        LIFE,
        "--seeds",
        "2",
        "--perfetto",
        folder.join("x.json").to_str().unwrap(),
    ]);
    several.refuses(64, &["one run"]);
}

#[test]
fn a_run_opens_in_perfetto() {
    let file = folder("perfetto").join("run.json");
    let ran = wavetank(&["run", LIFE, "--no-trace", "--perfetto", file.to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let read: Json = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let events = read["traceEvents"].as_array().unwrap();
    let threads: Vec<&str> = events
        .iter()
        .filter(|e| e["name"] == "thread_name")
        .map(|e| e["args"]["name"].as_str().unwrap())
        .collect();
    assert!(threads.contains(&"provisioner"), "{threads:?}");
    let mut ends: std::collections::BTreeMap<u64, f64> = std::collections::BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let (begin, tid) = (event["ts"].as_f64().unwrap(), event["tid"].as_u64().unwrap());
        let end = ends.entry(tid).or_default();
        assert!(begin >= *end - 0.001, "slices of a thread do not overlap: {event}");
        *end = begin + event["dur"].as_f64().unwrap();
    }
    assert!(ends.len() >= 3, "provisioner, attacher and kubelet call: {ends:?}");
    assert!(read["otherData"]["token"].as_str().unwrap().starts_with("wavetank/"));
}

/// A browser, if there is one.
fn chromium() -> Option<&'static str> {
    [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
}

/// What the page says of itself in a window of this width.
fn checked(browser: &str, page: &Path, width: u32, folder: &Path) -> Json {
    let profile = folder.join(format!("profile-{width}"));
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    command.args([
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--timeout=60000",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("--window-size={width},900"));
    command.args(["--dump-dom", &format!("file://{}#selfcheck", page.display())]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the browser can be started");
    let (dom, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let found = dom
        .split("<pre id=\"selfcheck\">")
        .nth(1)
        .and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the page says nothing of itself:\n{said}"));
    serde_json::from_str(&found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).expect("it says JSON")
}

#[test]
fn pages_work_in_a_browser_on_a_laptop_and_on_a_phone() {
    let Some(browser) = chromium() else {
        #[expect(clippy::disallowed_methods, reason = "CI demands the browser by a variable")]
        let demanded = std::env::var("WAVETANK_BROWSER").is_ok_and(|value| value == "demanded");
        assert!(!demanded, "there is no Chromium, and it is demanded");
        println!("NOT RUN: there is no Chromium here");
        return;
    };
    let folder = folder("browser");
    let hostile = folder.join("hostile.yaml");
    let text = fs::read_to_string(root().join(LIFE)).unwrap();
    let (_, text) = text.split_once("manifests:").unwrap();
    let bad = "</script><script>window.hostile=1</script><img src=x onerror='window.hostile=1'>";
    let noted = format!("  metadata: {{name: data, annotations: {{note: {bad:?}}}}}\n  spec:");
    let text = text.replacen("  metadata: {name: data}\n  spec:", &noted, 1);
    assert!(text.contains(bad));
    fs::write(&hostile, format!("because: {bad:?}\nmanifests:{text}")).unwrap();
    let page = folder.join("page.html");
    let ran = wavetank(&[
        "run",
        "scenarios/lifecycle",
        "scenarios/expand",
        hostile.to_str().unwrap(),
        "--no-trace",
        "--report",
        page.to_str().unwrap(),
    ]);
    assert!(ran.status != Some(64), "{}", ran.err);
    for width in [1280, 500] {
        let told = checked(browser, &page, width, &folder);
        assert_eq!(told["ok"], true, "{width}: {told}");
        assert!(
            told["pictures"].as_u64().unwrap() > 5 && told["marks"].as_u64().unwrap() > 500,
            "{told}"
        );
    }
}
