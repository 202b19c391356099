//! The findings as JUnit XML, for continuous integration: a suite for each service, a case for each check.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wavetank_conform::{Finding, Report, Service, Verdict};

/// Renders a report.
pub(super) fn render(report: &Report) -> String {
    let mut suites: BTreeMap<Service, Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        suites.entry(finding.check.service).or_default().push(finding);
    }
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites name=\"{}\">",
        escape(&format!("wavetank conform {}", report.profile.name))
    );
    for (service, findings) in suites {
        let of = |wanted: fn(&Verdict) -> bool| findings.iter().filter(|one| wanted(&one.verdict)).count();
        let failures = of(|verdict| matches!(verdict, Verdict::Broken(_)));
        let errors = of(|verdict| matches!(verdict, Verdict::NotJudged(_)));
        let skipped = of(|verdict| matches!(verdict, Verdict::NotApplicable(_)));
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">",
            service.title(),
            findings.len(),
        );
        findings.iter().for_each(|finding| case(&mut text, finding));
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, finding: &Finding) {
    let (name, took) = (escape(finding.check.name), finding.took.as_secs_f64());
    let about = escape(&format!("{} ({})", finding.check.obligation, finding.check.source));
    let class = finding.check.service.title();
    let _ = write!(
        text,
        "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{took:.3}\""
    );
    let inner = match &finding.verdict {
        Verdict::Held => String::new(),
        Verdict::Broken(what) => format!("<failure message=\"{}\">{about}</failure>", escape(what)),
        Verdict::Advice(what) => format!("<system-out>should: {} {about}</system-out>", escape(what)),
        Verdict::NotApplicable(why) => format!("<skipped message=\"{}\"/>", escape(why)),
        Verdict::NotJudged(why) => format!("<error message=\"{}\">{about}</error>", escape(why)),
    };
    if inner.is_empty() {
        text.push_str("/>\n");
    } else {
        let _ = writeln!(text, ">{inner}</testcase>");
    }
}

/// As text or attribute. XML has no place for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_breaks_out_of_an_attribute() {
        assert_eq!(escape("a<b>&\"c\"\n\u{1}"), "a&lt;b&gt;&amp;&quot;c&quot; \u{fffd}");
    }
}
