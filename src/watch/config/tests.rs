use proptest::prelude::*;

use super::rule::InvalidRule;
use super::*;
use crate::kind::Kind;
use crate::watch::policy::headroom::Headroom;

const HOST: &str = r#"
version = 1
cpu = "5%"

# The web servers.
[[rule]]
name = "web"
match = ["system.slice/nginx*.service", "php.service"]
exclude = "**/*-test.service"
headroom = "10%"
floor = 67108864
max-pressure = 10
ancestors = true

[[rule]]
match = "batch/**"
pressure = 0.1
keep = "1G"
swappiness = 60
lock = false

[[rule]]
match = "batch/db"
leave-alone = true
"#;

#[test]
fn a_host_is_read() {
    let rules = Rules::parse(HOST).unwrap();
    assert_eq!(
        (rules.cpu, rules.swap_writes),
        ("5%".parse().ok(), Some(1 << 20)),
        "the default with pressure"
    );
    let [web, batch, db] = &rules.each[..] else { panic!("{rules:?}") };
    assert_eq!((&*web.name, web.line, &*batch.name, batch.line), ("web", 6, "batch/**", 15));
    assert_eq!(web.words.wanted, ["system.slice/nginx*.service", "php.service"]);
    assert_eq!(web.words.excluded, ["**/*-test.service"]);
    let rule = web.rule.as_deref().unwrap();
    assert_eq!(
        (rule.name.as_deref(), rule.headroom, rule.pressure),
        (Some("web"), Headroom::Share(0.1), None)
    );
    assert_eq!(
        (rule.bounds.floor, rule.bounds.kind, rule.ancestors, rule.lock),
        (64 << 20, None, true, true)
    );
    assert_eq!(rule.bounds.max_pressure, "10%".parse().ok());
    let rule = batch.rule.as_deref().unwrap();
    assert_eq!((rule.headroom, rule.pressure, rule.keep), (Headroom::Bytes(0), Some(0.001), Some(1 << 30)));
    assert_eq!(
        (rule.bounds.kind, rule.lock),
        (Some(Kind::Weighed(crate::kind::Swappiness::Value(60))), false)
    );
    assert_eq!(db.rule, None);
}

#[test]
fn writes_to_swap_are_bounded_as_given() {
    let bound = |line: &str| {
        Rules::parse(&format!("{line}\n[[rule]]\nmatch = \"a\"\nkeep = \"1G\"")).unwrap().swap_writes
    };
    assert_eq!(bound(""), None);
    assert_eq!(bound("swap-writes = \"2M\""), Some(2 << 20));
    assert_eq!(bound("swap-writes = \"max\""), None);
}

#[test]
fn metrics_are_as_given() {
    let metrics = |lines: &str| {
        let rules = Rules::parse(&format!("{lines}\n[[rule]]\nmatch = \"a\"\nkeep = \"1G\""));
        rules.map(|rules| rules.metrics).map_err(|why| why.to_string())
    };
    assert_eq!(metrics(""), Ok(MetricsSpec::default()));
    let given =
        MetricsSpec { file: Some("/x/y.prom".into()), listen: "unix:/x/s".parse().ok(), cgroups: Some(0) };
    assert_eq!(
        metrics("metrics = '/x/y.prom'\nmetrics-listen = 'unix:/x/s'\nmetrics-cgroups = 0"),
        Ok(given)
    );
    assert_eq!(
        metrics("metrics-listen = 'localhost:1'").unwrap_err(),
        "1:18: \"localhost:1\": must be IP:PORT, [IPv6]:PORT or unix:PATH"
    );
    assert_eq!(metrics("metrics = '/run/x/'").unwrap_err(), "1:11: must name a file, not a folder");
    assert!(metrics("metrics-cgroups = -1").unwrap_err().starts_with("1:19: "));
}

#[test]
fn mistakes_are_reported_with_their_place() {
    let reported = |text: &str| {
        let bad = Rules::parse(text).unwrap_err();
        (bad.to_string(), bad.mistake.hint())
    };
    let hint = |hint: &str| Some(hint.to_owned());
    let rule = "[[rule]]\nmatch = \"a\"\n";
    for (text, what, why) in [
        (format!("{rule}headrom = \"10%\""), "3:1: unknown key \"headrom\"", hint("similar key: headroom")),
        (
            "colour = 1".to_owned(),
            "1:1: unknown key \"colour\"",
            hint("known keys: version, cpu, swap-writes, metrics, metrics-listen, metrics-cgroups, rule"),
        ),
        (
            format!("{rule}headroom = \"10MB\""),
            "3:12: \"10MB\": MB is ambiguous: write M or MiB (a power of 1024), or the number of bytes",
            None,
        ),
        (format!("{rule}headroom = \"100%\""), "1:1: the headroom must be less than the limit", None),
        (
            format!("{rule}floor = true"),
            "3:9: invalid type: boolean `true`, expected a size, as in \"64M\"",
            None,
        ),
        (format!("{rule}floor = -1"), "3:9: \"-1\": a size can't be negative", None),
        (format!("{rule}pressure = 0"), "3:12: \"0\": must be more than 0", None),
        (
            rule.to_owned(),
            "1:1: the rule sets none of headroom, keep, pressure and leave-alone",
            hint("set headroom, keep, pressure, or leave-alone = true"),
        ),
        ("headroom = 1".to_owned(), "1:1: unknown key \"headroom\"", hint("move the key into a [[rule]]")),
        (
            format!("{rule}cpu = \"5%\""),
            "3:1: unknown key \"cpu\"",
            hint("move the key above the first [[rule]], since it applies to the whole host"),
        ),
        (
            format!("{rule}headroom = \"5%\"\nmetrics-listen = \"127.0.0.1:1\""),
            "4:1: unknown key \"metrics-listen\"",
            hint("move the key above the first [[rule]], since it applies to the whole host"),
        ),
        (
            "[rule]\nmatch = \"a\"".to_owned(),
            "1:1: invalid type: map, expected a sequence",
            hint("begin a rule with [[rule]], in two brackets"),
        ),
        (format!("{rule}keep = \"1G\"\nancestors = true"), "1:1: ancestors requires headroom", None),
        (
            format!("{rule}keep = \"1G\"\ntype = \"file\"\nswappiness = 1"),
            "1:1: type and swappiness can't be combined",
            None,
        ),
        (
            format!("{rule}leave-alone = true\nkeep = \"1G\""),
            "1:1: leave-alone can't be combined with other settings",
            None,
        ),
        (
            "[[rule]]\nkeep = \"1G\"".to_owned(),
            "1:1: missing key `match`",
            hint("select the cgroups of the rule: match = \"GLOB\""),
        ),
        ("[[rule]]\nmatch = []\nkeep = \"1G\"".to_owned(), "1:1: match must not be empty", None),
        (
            "[[rule]]\nmatch = \"\"\nkeep = 4096".to_owned(),
            "1:1: a name can't be empty (the root is called /)",
            None,
        ),
        (
            "[[rule]]\nmatch = \"a[\"\nkeep = 4096".to_owned(),
            "1:1: \"a[\": malformed glob: unclosed character class; missing ']'",
            None,
        ),
        (
            "version = 2\n".to_owned() + rule + "keep = \"1G\"",
            "1:11: version 2 is not supported, only version 1",
            None,
        ),
        (
            format!("{rule}keep = \"1G\"\n{rule}keep = \"2G\""),
            "4:1: duplicate rule name \"a\", first used on line 1",
            hint("give one of the rules another name: name = \"…\""),
        ),
        (
            "version = 1\n".to_owned(),
            "2:1: the file has no rules",
            hint("add a rule: [[rule]], match = \"…\", headroom = \"10%\""),
        ),
    ] {
        let (message, hinted) = reported(&text);
        assert_eq!((message.as_str(), hinted), (what, why), "{text}");
    }
    let (unclosed, _) = reported("[[rule]]\nmatch = \"a\nkeep = \"1G\"");
    assert!(unclosed.starts_with("2:"), "{unclosed}");
    assert!(!unclosed.contains('\n'), "{unclosed}");
}

#[test]
fn mistakes_are_values() {
    let mistake = |text: &str| Rules::parse(text).unwrap_err().mistake;
    let rule = |settings: &str| mistake(&format!("[[rule]]\nmatch = \"a\"\n{settings}"));
    assert_eq!(rule(""), Mistake::Rule(InvalidRule::NothingToDo));
    assert_eq!(rule("headroom = \"100%\""), Mistake::Rule(InvalidRule::NothingLeft));
    assert_eq!(rule("keep = \"1G\"\nancestors = true"), Mistake::Rule(InvalidRule::NoHeadroom));
    let short = rule("pressure = \"0.1%\"\nreuse = \"999ms\"");
    assert_eq!(short, Mistake::Rule(InvalidRule::ShortReuse));
    assert_eq!(rule("leave-alone = true\nkeep = \"1G\""), Mistake::LeaveAloneAndMore);
    assert!(
        matches!(rule("kep = 1"), Mistake::UnknownKey { key, known } if key == "kep" && known.len() > 10)
    );
    assert!(matches!(rule("keep = true"), Mistake::Syntax(_)));
    assert_eq!(mistake("version = 2"), Mistake::Version(2));
    assert_eq!(mistake(""), Mistake::NoRules);
    assert_eq!(mistake("[rule]\nmatch = \"a\""), Mistake::SingleBrackets);
    assert_eq!(mistake("[[rule]]\nkeep = \"1G\""), Mistake::NoMatch);
}

#[test]
fn large_files_are_refused() {
    let large = "#".repeat(MAX_BYTES + 1);
    assert_eq!(Rules::parse(&large).unwrap_err().to_string(), "1:1: the file is larger than 1 MiB");
    let rule = |number| format!("[[rule]]\nmatch = \"a{number}\"\nkeep = 4096\n");
    let many = (0..=MAX_RULES).map(rule).collect::<Vec<_>>().concat();
    assert_eq!(Rules::parse(&many).unwrap_err().to_string(), "3001:1: the file has more than 1000 rules");
    let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(Rules::parse(&deep).is_err());
}

/// Words that occur in files of rules, in any order.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("[[rule]]\n".to_owned()),
        Just("match = ".to_owned()),
        Just("headroom = ".to_owned()),
        Just("pressure = \"0.1%\"\n".to_owned()),
        Just("version = 1\n".to_owned()),
        Just("exclude = [\"a\", \"b\"]\n".to_owned()),
        "\"[a-z0-9*?%{}\\[\\]/.]{0,12}\"\n",
        "[0-9.eE+-]{1,20}\n",
        any::<String>(),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_with_a_place(text in text()) {
        match Rules::parse(&text) {
            Ok(rules) => prop_assert!(!rules.each.is_empty()),
            Err(bad) => {
                prop_assert!(bad.line >= 1 && bad.line <= text.matches('\n').count() + 1);
                prop_assert!(bad.column >= 1 && !bad.mistake.to_string().contains('\n'));
            }
        }
    }
}
