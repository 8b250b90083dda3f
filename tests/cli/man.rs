//! The man pages: names, options and their descriptions come from the command line itself, the rest
//! from man/parts.
//!
//! `MEMCTL_BLESS=1 cargo test --test cli man` regenerates them. A file of man/parts begins with the
//! subsections of DESCRIPTION; from its first `.SH` on, it follows OPTIONS.

use clap::CommandFactory;
use clap_mangen::Man;

use crate::environment::{Case, list};

pub fn cases() -> Vec<Case> {
    list!["host" => the_pages_are_true, the_pages_name_every_key_of_the_report, the_page_of_rules_is_true]
}

struct Page {
    file: &'static str,
    subcommand: Option<&'static str>,
    synopsis: &'static [&'static str],
    parts: &'static str,
}

const PAGES: [Page; 6] = [
    Page {
        file: "memctl.1",
        subcommand: None,
        synopsis: &[
            "reclaim [\\fIOPTIONS\\fR] \\fICGROUP\\fR... \\fISIZE\\fR",
            "watch [\\fIOPTIONS\\fR] \\fICGROUP\\fR...",
            "stat [\\fIOPTIONS\\fR] [\\fICGROUP\\fR]...",
            "check [\\fIOPTIONS\\fR] [\\fICGROUP\\fR]",
            "plot [\\fIOPTIONS\\fR] \\fIRECORD\\fR \\fB\\-o\\fR \\fIFILE.svg\\fR",
        ],
        parts: include_str!("../../man/parts/memctl.roff"),
    },
    Page {
        file: "memctl-reclaim.1",
        subcommand: Some("reclaim"),
        synopsis: &[
            "reclaim [\\fIOPTIONS\\fR] \\fICGROUP\\fR... \\fISIZE\\fR",
            "reclaim [\\fIOPTIONS\\fR] \\fB\\-\\-to\\fR \\fISIZE\\fR \\fICGROUP\\fR...",
        ],
        parts: include_str!("../../man/parts/memctl-reclaim.roff"),
    },
    Page {
        file: "memctl-watch.1",
        subcommand: Some("watch"),
        synopsis: &[
            "watch [\\fIOPTIONS\\fR] \\fB\\-\\-headroom\\fR \\fISIZE\\fR|\\fIPCT\\fR \\fICGROUP\\fR...",
            "watch [\\fIOPTIONS\\fR] \\fB\\-\\-keep\\fR \\fISIZE\\fR \\fICGROUP\\fR...",
            "watch [\\fIOPTIONS\\fR] \\fB\\-\\-pressure\\fR \\fIPCT\\fR \\fICGROUP\\fR...",
            "watch [\\fIOPTIONS\\fR] \\fB\\-\\-estimate\\fR [\\fB\\-\\-duration\\fR \\fIDUR\\fR] \\fICGROUP\\fR...",
            "watch [\\fIOPTIONS\\fR] \\fB\\-\\-config\\fR \\fIFILE\\fR",
        ],
        parts: include_str!("../../man/parts/memctl-watch.roff"),
    },
    Page {
        file: "memctl-stat.1",
        subcommand: Some("stat"),
        synopsis: &["stat [\\fIOPTIONS\\fR] [\\fICGROUP\\fR]..."],
        parts: include_str!("../../man/parts/memctl-stat.roff"),
    },
    Page {
        file: "memctl-check.1",
        subcommand: Some("check"),
        synopsis: &["check [\\fIOPTIONS\\fR] [\\fICGROUP\\fR]", "check \\fB\\-\\-config\\fR \\fIFILE\\fR"],
        parts: include_str!("../../man/parts/memctl-check.roff"),
    },
    Page {
        file: "memctl-plot.1",
        subcommand: Some("plot"),
        synopsis: &["plot [\\fIOPTIONS\\fR] \\fIRECORD\\fR \\fB\\-o\\fR \\fIFILE.svg\\fR"],
        parts: include_str!("../../man/parts/memctl-plot.roff"),
    },
];

/// Renders the page from the current command line.
fn rendered(page: &Page) -> String {
    let mut root = crate::cli::Cli::command();
    root.build();
    let command = match page.subcommand {
        Some(name) => root.find_subcommand(name).expect("the subcommand").clone(),
        None => root,
    };
    let name = page.file.trim_end_matches(".1");
    let version = format!("memctl {}", env!("CARGO_PKG_VERSION"));
    let command = command.name(name).display_name(name);
    let man = Man::new(command).title(name.to_uppercase()).date("").source(version).manual("User Commands");
    let mut out = Vec::new();
    man.render_title(&mut out).expect("title");
    let about = man_name(&man);
    out.extend_from_slice(about.as_bytes());
    out.extend_from_slice(b".SH SYNOPSIS\n");
    for line in page.synopsis {
        out.extend_from_slice(format!("\\fBmemctl\\fR {line}\n.br\n").as_bytes());
    }
    man.render_description_section(&mut out).expect("description");
    let sections =
        if page.parts.starts_with(".SH") { 0 } else { page.parts.find("\n.SH").expect("a section") + 1 };
    let (description, sections) = page.parts.split_at(sections);
    out.extend_from_slice(description.as_bytes());
    man.render_options_section(&mut out).expect("options");
    out.extend_from_slice(sections.as_bytes());
    String::from_utf8(out).expect("UTF-8")
}

/// Returns the section NAME, with the description in lower case, as man-pages(7) requires.
fn man_name(man: &Man) -> String {
    let mut out = Vec::new();
    man.render_name_section(&mut out).expect("name");
    let name = String::from_utf8(out).expect("UTF-8");
    let (before, about) = name.split_once(" \\- ").expect("a name and what it is");
    let mut about = about.chars();
    let first = about.next().expect("a description").to_ascii_lowercase();
    format!("{before} \\- {first}{}", about.as_str())
}

fn checked_in(page: &Page) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page.file)
}

fn the_pages_are_true() {
    for page in &PAGES {
        let path = checked_in(page);
        if std::env::var_os("MEMCTL_BLESS").is_some() {
            std::fs::write(&path, rendered(page)).expect("write the page");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == rendered(page),
            "man/{} is not what the command line says: MEMCTL_BLESS=1 cargo test --test cli man",
            page.file
        );
    }
}

/// Checks that every key of a file of rules is described, and that its example and the one in
/// contrib parse.
fn the_page_of_rules_is_true() {
    use memctl::watch::config::Rules;
    let page = include_str!("../../man/watch.toml.5").replace("\\-", "-");
    let bad = Rules::parse("[[rule]]\nmatch = \"a\"\nno-such-key = 1").expect_err("a mistake");
    let hosts = Rules::parse("no-such-key = 1").expect_err("a mistake");
    let keys = [bad, hosts].map(|bad| bad.mistake.hint().expect("the keys that there are")).join(", ");
    let keys: Vec<_> =
        keys.split(", ").map(|key| key.trim_start_matches("known keys: ").to_owned()).collect();
    assert!(keys.len() >= 18 && keys.iter().any(|key| key == "max-pressure"), "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("\\fB{key}\\fR = ")) || key == "rule", "{key} is not in watch.toml.5");
    }
    let example =
        page.split_once(".nf\n").and_then(|(_, rest)| rest.split_once(".fi")).expect("an example").0;
    assert_eq!(Rules::parse(example).map(|rules| rules.each.len()), Ok(3));
    assert!(Rules::parse(include_str!("../../contrib/watch.toml")).is_ok());
    let version = format!("\"memctl {}\"", env!("CARGO_PKG_VERSION"));
    assert!(page.lines().next().is_some_and(|line| line.contains(&version)), "another version");
}

/// Checks that all keys of the JSON report are documented.
fn the_pages_name_every_key_of_the_report() {
    let source = concat!(
        include_str!("../../src/output/json.rs"),
        include_str!("../../src/output/json/name.rs"),
        include_str!("../../src/output/json/stat.rs"),
        include_str!("../../src/output/json/watch.rs"),
    );
    let pages = PAGES.map(|page| page.parts).concat();
    // A flattened field is no key itself.
    let source: Vec<_> = source.split("#[serde(flatten)]\n    ").collect();
    let source = source.iter().enumerate().map(|(at, part)| match part.split_once('\n') {
        Some((_, rest)) if at > 0 => rest,
        _ => part,
    });
    let source = source.collect::<Vec<_>>().join("\n");
    let fields =
        source.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": ")).map(|(key, _)| key);
    let keys: Vec<_> =
        fields.filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(pages.contains(&format!("\\fB{key}\\fR")), "{key} is not in man/parts");
    }
}
