//! What a page says, what it never does, and that it stays within its bounds.

use serde_json::json;

use super::{BUDGET, Entry, FAILED, HELD, Page, Scene, Tale, base64};

const HOSTILE: &str = "</script><script>window.hostile=1</script><img src=x onerror=alert(1)>\"'&";

fn entry(name: &str) -> Entry {
    Entry {
        name: name.into(),
        ..Entry::default()
    }
}

#[test]
fn names_that_look_like_html_are_text() {
    let mut page = Page {
        title: HOSTILE.into(),
        command: HOSTILE.into(),
        notes: vec![HOSTILE.into()],
        ..Page::default()
    };
    page.push(Entry {
        seed: HOSTILE.into(),
        because: HOSTILE.into(),
        gist: HOSTILE.into(),
        failures: vec![HOSTILE.into()],
        tales: vec![Tale {
            text: HOSTILE.into(),
            events: vec![HOSTILE.into()],
            lines: vec![HOSTILE.into()],
            again: HOSTILE.into(),
            token: HOSTILE.into(),
            ..Tale::default()
        }],
        scenes: vec![Scene::new(HOSTILE, &json!({ "name": HOSTILE }))],
        ..entry(HOSTILE).ended(FAILED)
    });
    let html = page.html().unwrap();
    assert!(!html.contains("<script>window"), "a name became a script");
    assert!(!html.contains("<img"), "a name became an element");
    assert_eq!(
        html.matches("<script").count(),
        2,
        "one picture and the script of the page"
    );
    // The JSON says the same as before.
    let begin = html.find("application/json\">").unwrap() + "application/json\">".len();
    let end = begin + html[begin..].find("</script>").unwrap();
    let read: serde_json::Value = serde_json::from_str(&html[begin..end]).unwrap();
    assert_eq!(read["name"], HOSTILE);
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let mut page = Page::default();
    page.push(entry("a").ended(HELD));
    let html = page.html().unwrap();
    for word in [
        " src=",
        "@import",
        "url(",
        "<link",
        "<iframe",
        "fetch(",
        "XMLHttpRequest",
        "http:",
        "https:",
    ] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(
        html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"),
        "the policy is there"
    );
}

#[test]
fn the_same_entries_make_the_same_bytes() {
    let page = || {
        let mut page = Page::default();
        page.push(entry("a").ended(HELD));
        page.push(entry("b").ended(FAILED));
        page.count();
        page.html().unwrap()
    };
    assert_eq!(page(), page());
}

#[test]
fn pictures_of_what_held_give_way_to_those_of_what_failed() {
    let heavy = |name: &str| Entry {
        scenes: vec![Scene::new("s", &"x".repeat(BUDGET / 4))],
        tales: vec![Tale {
            mark: Some(1),
            ..Tale::default()
        }],
        ..entry(name)
    };
    let mut page = Page::default();
    for nth in 0..6 {
        let ending = if nth % 2 == 0 { HELD } else { FAILED };
        page.push(heavy(&nth.to_string()).ended(ending));
    }
    let drawn: Vec<&str> = page
        .entries
        .iter()
        .filter(|e| !e.scenes.is_empty())
        .map(|e| e.name.as_str())
        .collect();
    assert_eq!(drawn, ["1", "3", "5"]);
    assert!(page.entries[0].absent.contains("no room"));
    assert_eq!(page.entries[0].tales[0].mark, None);
    page.count();
    let counts: Vec<_> = page
        .counts
        .iter()
        .map(|count| (count.word.as_str(), count.number))
        .collect();
    assert_eq!(counts, [("failed", 3), ("held", 3)]);
    assert!(page.html().unwrap().len() < BUDGET + (1 << 20));
}

#[test]
fn base64_is_as_it_is_defined() {
    for (plain, coded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}
