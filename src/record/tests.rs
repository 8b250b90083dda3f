use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const OLD: &str = include_str!("../../tests/records/version-0.jsonl");
const NEW: &str = include_str!("../../tests/records/version-1.jsonl");
const M: u64 = 1 << 20;

fn read(text: &str) -> Record {
    Record::read(text.as_bytes()).expect("a record")
}

fn refused(text: &[u8]) -> String {
    Record::read(text).expect_err("no record").to_string()
}

#[test]
fn what_tasks_reclaimed_may_be_a_bound() {
    let is_at_most = |text: &str| read(text).courses[0].outcome.map(|outcome| outcome.direct_is_at_most);
    let bound = OLD.replace("\"direct_bytes\":524288", "\"direct_bytes\":524288,\"direct_at_most\":true");
    assert_eq!((is_at_most(OLD), is_at_most(&bound)), (Some(false), Some(true)));
}

#[test]
fn an_old_one_is_read() {
    let record = read(OLD);
    assert_eq!((record.version, record.runs, record.started), (0, 0, None));
    let [app] = &record.courses[..] else { panic!("{record:?}") };
    let last = app.points.last().unwrap();
    assert_eq!((app.points.len(), last.reclaimed, last.current), (4, 32 * M, 227 * M));
    assert_eq!((last.limit, last.working_set, last.stalled), (Some(256 * M), Some(200 * M), None));
    assert_eq!(app.outrun, [0.503_112]);
    assert_eq!(
        app.outcome.map(|outcome| (outcome.direct, outcome.stalled)),
        Some((Some(M / 2), Some(0.012)))
    );
    assert!((record.span - 6.0).abs() < 0.01 && record.cpu == Some(0.045));
}

#[test]
fn what_is_sampled_counts_and_what_is_unknown_is_passed_over() {
    let record = read(NEW);
    assert_eq!((record.version, record.runs, record.started), (1, 1, Some(1_795_564_800.0)));
    let [app, db] = &record.courses[..] else { panic!("{record:?}") };
    let last = app.points.last().unwrap();
    assert_eq!(
        (last.reclaimed, last.refaulted, last.stalled),
        (30 * M, Some(2 * M), Some(0.003)),
        "not twice"
    );
    assert_eq!((db.rule.as_deref(), db.ended), (Some("press"), Some(3.0)));
    assert_eq!(db.points.last().map(|point| point.limit), Some(None));
}

#[test]
fn the_largest_usage_of_a_folded_sample_is_seen() {
    let folded =
        NEW.replacen("\"current_bytes\":", "\"current_most_bytes\":1099511627776,\"current_bytes\":", 20);
    let (record, plain) = (read(&folded), read(NEW));
    let most = |record: &Record| record.courses[0].points.iter().map(|point| point.current).max();
    assert_eq!((most(&record), most(&plain) < Some(1 << 40)), (Some(1 << 40), true));
    let last = |record: &Record| record.courses[0].points.last().copied();
    assert_eq!(last(&record), last(&plain));
    let times: Vec<_> = record.courses[0].points.iter().map(|point| point.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn one_that_is_made_anew_goes_on() {
    let anew = "{\"event\":\"start\",\"cgroup\":\"/db\",\"at_usec\":4000000,\"current_bytes\":1048576,\"limit_bytes\":null}\n\
                {\"event\":\"sample\",\"cgroup\":\"/db\",\"at_usec\":5000000,\"current_bytes\":4096,\"limit_bytes\":null,\
                \"reclaimed_bytes\":1048576,\"refaulted_bytes\":0,\"stalled_usec\":1000}\n";
    let record = read(&format!("{NEW}{anew}"));
    let db = &record.courses[1];
    let last = db.points.last().unwrap();
    assert_eq!((db.ended, last.reclaimed, last.refaulted), (None, 11 * M, Some(M)));
    assert!((last.stalled.unwrap() - 0.005).abs() < 1e-9);
}

#[test]
fn several_are_one() {
    let all = read(NEW).together(6);
    assert_eq!((all.name.as_str(), all.points.len()), ("2 cgroups", 6));
    let current: Vec<_> = all.points.iter().map(|point| point.current / M).collect();
    assert_eq!(current, [340, 340, 310, 220, 230, 230], "one goes after 3 s");
    assert_eq!(all.points[3].reclaimed, 30 * M, "what was done stays done");
    assert_eq!(all.points[5].reclaimed, 40 * M);
    assert!(all.points.iter().all(|point| point.limit.is_none_or(|limit| limit == 256 * M)));
    assert_eq!(all.outcome.map(|outcome| outcome.reclaimed), Some(40 * M));
    let stalled = read(NEW).together(601).points[600].stalled.unwrap();
    assert!((stalled - 0.006).abs() < 1e-9, "the worst of each: {stalled}");
}

#[test]
fn what_is_cut_off_is_read_as_far_as_it_goes() {
    for cut in [1, 40, 200] {
        let record = read(&OLD[..OLD.len() - cut]);
        assert_eq!((record.is_cut, record.cpu), (cut > 1, (cut == 1).then_some(0.045)), "{cut}");
        assert_eq!(record.courses[0].points.len(), 4);
    }
    // The next watch is appended.
    let record = read(&format!("{}{NEW}", &OLD[..700]));
    assert_eq!((record.runs, record.courses.len()), (1, 2));
    assert_eq!(record.torn, 0, "it was another watch's");
    let record = read(&format!("{NEW}{NEW}"));
    assert_eq!((record.runs, record.courses.len(), record.courses[0].points.len()), (2, 2, 4));
}

#[test]
fn torn_lines_are_passed_over_and_counted() {
    let whole = read(NEW);
    let torn = NEW.find("{\"event\":\"sample\"").unwrap() + 50;
    // With a newline of its own, and directly before the next line.
    for newline in ["\n", ""] {
        let end = torn + NEW[torn..].find('\n').unwrap() + 1;
        let record = read(&format!("{}{newline}{}", &NEW[..torn], &NEW[end..]));
        assert_eq!((record.torn, record.is_cut, record.runs), (1, false, 1));
        assert_eq!(record.courses.len(), whole.courses.len());
        let points = |record: &Record| record.courses.iter().map(|course| course.points.len()).sum::<usize>();
        assert_eq!(points(&record), points(&whole) - 1);
    }
}

#[test]
fn other_text_is_passed_over_and_counted() {
    let whole = read(NEW);
    let (first, rest) = NEW.split_once('\n').unwrap();
    let record = read(&format!("memctl: a note\n{first}\n \n/app  held: it\n{rest}-- Reboot --"));
    assert_eq!((record.foreign, record.torn, record.is_cut), (3, 0, false));
    assert!(record.courses == whole.courses);
    // Lines of a log, and text that is longer than any line.
    let prefix = "Nov 28 10:00:00 host memctl[7]: ";
    let logged = format!("{prefix}{}", NEW.trim_end().replace('\n', &format!("\n{prefix}")));
    let record = read(&format!("{}\n{logged}", "\0".repeat(200_000)));
    assert_eq!((record.foreign, record.torn, record.is_cut), (1, 0, false));
    assert!(record.courses == whole.courses);
}

#[test]
fn dropped_events_are_counted() {
    let dropped = "{\"event\":\"dropped\",\"at_usec\":5,\"dropped_events\":7}\n";
    let record = read(&format!("{NEW}{dropped}{dropped}"));
    assert_eq!((record.dropped, record.courses == read(NEW).courses), (14, true));
}

#[test]
fn what_is_none_is_refused_with_its_place() {
    assert_eq!(refused(b""), "the record is empty");
    assert_eq!(refused(b"\n \n"), "no watched cgroup in the record");
    assert_eq!(refused(b"CGROUP  REQUESTED\n"), "not a record: its lines aren't JSON");
    let second = [OLD.lines().next().unwrap(), "{\"event\":\"reclaim\",\"at_usec\":-3}", ""].join("\n");
    assert_eq!(
        refused(second.as_bytes()),
        "2:31: not a line of a record: invalid value: integer `-3`, expected u64"
    );
    let long = format!("{{\"event\":\"{}\"}}\n", "x".repeat(70_000));
    assert_eq!(refused(long.as_bytes()), "1:65536: the line is longer than 64 KiB");
    assert_eq!(refused(&[0xff, 0xfe, b'\n']), "not a record: its lines aren't JSON");
    assert_eq!(refused(b"[1]\nnull\n7"), "not a record: its lines aren't JSON");
}

#[test]
fn no_more_is_kept_than_has_room() {
    let mut text = String::new();
    for number in 0..MOST_POINTS as u64 + 1000 {
        let line = "{\"event\":\"sample\",\"cgroup\":\"/a\",\"at_usec\":";
        let _ = writeln!(text, "{line}{},\"current_bytes\":{}}}", number * 100_000, number % 97);
    }
    let record = read(&text);
    let points = &record.courses[0].points;
    assert!(points.len() > MOST_POINTS / 8 && points.len() < MOST_POINTS, "{}", points.len());
    assert!(points.iter().any(|point| point.current == 96), "what was most is kept");
    let started = |number| format!("{{\"event\":\"start\",\"cgroup\":\"/{number}\",\"at_usec\":1}}\n");
    let many = (0..=MOST_CGROUPS).map(started).collect::<Vec<_>>().concat();
    assert_eq!(refused(many.as_bytes()), "20001:1: the record has more than 20000 cgroups");
}

/// Keys that have numbers.
const KEYS: [&str; 9] = [
    "current_bytes",
    "current_after_bytes",
    "limit_bytes",
    "reclaimed_bytes",
    "stalled_usec",
    "refaulted_bytes",
    "estimated_working_set_bytes",
    "total_cpu_usec",
    "version",
];

/// Generates lines as in records, whole or in part, with any numbers.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let event = prop_oneof![
        Just("begin"),
        Just("start"),
        Just("limit"),
        Just("reclaim"),
        Just("sample"),
        Just("working_set"),
        Just("outrun"),
        Just("gone"),
        Just("summary"),
        Just("end"),
        Just("would_reclaim"),
        Just("other"),
    ];
    let number = prop_oneof![0..5u64, Just(u64::MAX), any::<u64>()];
    let pairs = proptest::collection::vec((proptest::sample::select(&KEYS[..]), number.clone()), 0..6);
    let line = (event, number, 0..3u8, pairs).prop_map(|(event, at, cgroup, pairs)| {
        let mut pairs = pairs;
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        let more = pairs.iter().map(|(key, number)| format!(",\"{key}\":{number}"));
        let more = more.collect::<Vec<_>>().concat();
        format!("{{\"event\":\"{event}\",\"cgroup\":\"/{cgroup}\",\"at_usec\":{at}{more}}}\n").into_bytes()
    });
    let part = prop_oneof![8 => line, 1 => proptest::collection::vec(any::<u8>(), 0..40)];
    (proptest::collection::vec(part, 0..30), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(parts, at, cut)| {
            let mut bytes = parts.concat();
            if cut && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes.truncate(at);
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_or_refused(text in text()) {
        if let Ok(record) = Record::read(&text[..]) {
            let all = record.together(50);
            prop_assert!(!all.points.is_empty() && record.span.is_finite());
            for course in record.courses.iter().chain([&all]) {
                prop_assert!(course.points.windows(2).all(|two| two[0].at <= two[1].at));
            }
        }
    }
}

#[test]
fn cgroups_that_read_alike_have_courses_of_their_own() {
    let line = |path: &str, current: u64| {
        format!(
            "{{\"event\":\"sample\",\"cgroup\":\"/j\u{fffd}b\",\"path_bytes\":\"/cg/{path}\",\"at_usec\":1000000,\
             \"current_bytes\":{current}}}\n"
        )
    };
    let text = [line("j%E9b", 5), line("j%E8b", 7)].concat();
    let record = Record::read(text.as_bytes()).unwrap();
    let courses: Vec<_> = record
        .courses
        .iter()
        .map(|course| (course.path_bytes.as_deref(), course.points.last().map(|point| point.current)))
        .collect();
    assert_eq!(courses, [(Some("/cg/j%E9b"), Some(5)), (Some("/cg/j%E8b"), Some(7))]);
}

#[test]
fn names_and_marks_are_bounded_for_all_cgroups_together() {
    let mut text = String::new();
    let long = "x".repeat(30_000);
    for number in 0..1200 {
        let _ = writeln!(
            text,
            "{{\"event\":\"sample\",\"at_usec\":1,\"cgroup\":\"/{number}{long}\",\"current_bytes\":1}}"
        );
    }
    let why = refused(text.as_bytes());
    assert!(why.ends_with("the names in the record have more than 64 MiB"), "{}", &why[..200.min(why.len())]);
    text.clear();
    for number in 0..450 {
        let name = format!("\"at_usec\":1,\"cgroup\":\"/{number}\"");
        let _ = writeln!(text, "{{\"event\":\"sample\",{name},\"current_bytes\":1}}");
        (0..1000).for_each(|_| {
            let _ = writeln!(text, "{{\"event\":\"outrun\",{name}}}");
        });
    }
    let marks: usize = read(&text).courses.iter().map(|course| course.outrun.len()).sum();
    assert_eq!(marks, MOST_MARKS);
}
