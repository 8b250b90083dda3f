use memctl::record::Record;
use proptest::prelude::*;

use super::*;

const OLD: &str = include_str!("../../../tests/records/version-0.jsonl");
const NEW: &str = include_str!("../../../tests/records/version-1.jsonl");

fn drawn(text: &str) -> String {
    let record = Record::read(text.as_bytes()).expect("a record");
    picture(&record, &record.together(LOOKS)).expect("a picture")
}

/// Returns the texts in a picture, in order.
fn words(svg: &str) -> Vec<String> {
    let texts = svg.split("<text").skip(1).filter_map(|rest| rest.split_once('>')?.1.split_once("</text>"));
    texts.map(|(text, _)| text.trim().to_owned()).collect()
}

#[test]
fn a_picture_says_what_it_shows_and_what_it_came_to() {
    let svg = drawn(NEW);
    let words = words(&svg);
    for wanted in [
        "memctl watch of 2 cgroups, 5.0 s",
        "reclaimed 40 MiB of 40 MiB requested; 0 B by the application itself",
        "stalled for 3 ms; 60 ms of CPU",
        "usage",
        "limit",
        "working set",
        "reclaimed",
        "refaulted",
        "stalled on memory (PSI some)",
        "200 MiB",
        "2 s",
    ] {
        assert!(words.iter().any(|word| word.contains(wanted)), "{wanted}: {words:?}");
    }
    assert!(!words.iter().any(|word| word.contains("limit reached")), "{words:?}");
    let bound = NEW.replace("\"direct_bytes\":0", "\"direct_bytes\":4096,\"direct_at_most\":true");
    let by_itself = "; at most 4 KiB by the application itself";
    assert!(self::words(&drawn(&bound)).iter().any(|word| word.contains(by_itself)), "{bound}");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("prefers-color-scheme:dark"));
    // Every colour drawn has a dark counterpart.
    let coloured = svg.split("fill=\"#").skip(1).chain(svg.split("stroke=\"#").skip(1));
    for colour in coloured.map(|rest| &rest[..6]) {
        assert!(svg.contains(&format!("[fill=\"#{colour}\"]")), "#{colour} is light only");
    }
}

#[test]
fn an_old_record_is_drawn_without_what_it_has_not() {
    let words = words(&drawn(OLD));
    for wanted in ["memctl watch of /app, 6.0 s", "limit reached", "no pressure in this record"] {
        assert!(words.iter().any(|word| word.contains(wanted)), "{wanted}: {words:?}");
    }
    assert!(
        words.contains(&"working set 200 MiB; ".to_owned())
            || words.iter().any(|word| word.contains("working set 200 MiB"))
    );
    assert!(!words.contains(&"refaulted".to_owned()));
}

#[test]
fn names_are_text_and_nothing_else() {
    let svg = drawn(&NEW.replace("/app", "/<script>&\\u001b").replace("/db", "/<script>&\\u001b"));
    assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'), "{svg}");
    assert!(svg.contains("&lt;script"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_figures_are_drawn(figures in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..6)) {
        let lines = figures.iter().map(|(at, current, stalled)| format!(
            "{{\"event\":\"sample\",\"cgroup\":\"/a\",\"at_usec\":{at},\"current_bytes\":{current},\
             \"stalled_usec\":{stalled},\"reclaimed_bytes\":{stalled},\"limit_bytes\":{at}}}\n"
        ));
        let lines = lines.collect::<Vec<_>>().concat();
        let svg = drawn(&lines);
        prop_assert!(svg.len() < 1_000_000 && !svg.contains("NaN"), "{}", svg.len());
    }
}
