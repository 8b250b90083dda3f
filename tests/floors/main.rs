//! The layers of the source, called floors: the allowed imports between modules.
//!
//! Each line of [`FLOORS`] may use the lines below it. A file imports from its own room and from
//! lower floors, never from a higher floor, nor from another room of the same floor; and no files
//! import each other in a circle.

mod source;

use std::collections::BTreeMap;
use std::path::Path;

use source::{Edge, Source};

/// The floors, highest first. A room is a module with everything below it that is in no other room;
/// rooms on one line don't import each other. `bin` is the program (src/main.rs), `lib` the library
/// (src/lib.rs).
const FLOORS: &[&[&str]] = &[
    &["bin"],
    &["bin::cmd", "bin::complete"],
    &["bin::metrics", "bin::notify"],
    &["bin::output"],
    &["bin::usage"],
    &["bin::cli", "bin::error"],
    &["bin::exit", "bin::signal"],
    &["lib"],
    &["lib::check"],
    &["lib::watch"],
    &["lib::reclaim"],
    &["lib::select"],
    &["lib::node"],
    &["lib::cgroup"],
    &["lib::host", "lib::record"],
    // Policies use no clock, file or cgroup.
    &["lib::watch::policy", "lib::clock", "lib::task"],
    &["lib::duration", "lib::kind", "lib::size"],
];

/// Returns the floor of a module, counted from the top, and its room.
fn place(module: &str) -> Option<(usize, &'static str)> {
    let rooms =
        FLOORS.iter().enumerate().flat_map(|(floor, rooms)| rooms.iter().map(move |&room| (floor, room)));
    let holds =
        |room: &str| module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    rooms.filter(|(_, room)| holds(room)).max_by_key(|(_, room)| room.len())
}

/// Returns the fault of an import; `None` for a valid one.
fn fault(edge: &Edge) -> Option<String> {
    let (Some((from_floor, from)), Some((to_floor, to))) = (place(&edge.from), place(&edge.to)) else {
        return Some(format!("{edge}: in no room of FLOORS"));
    };
    (from != to && to_floor <= from_floor).then(|| format!("{edge}: {from} doesn't stand on {to}"))
}

/// Returns the files of each circle of imports.
fn circles(edges: &[Edge]) -> Vec<Vec<&str>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().push(&edge.to);
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut open) = (std::collections::BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for &module in next.get(module).into_iter().flatten() {
                if seen.insert(module) {
                    open.push(module);
                }
            }
        }
        seen.contains(to)
    };
    let mut circles: Vec<Vec<&str>> = Vec::new();
    for &module in next.keys().filter(|module| reaches(module, module)) {
        match circles.iter_mut().find(|circle| reaches(circle[0], module) && reaches(module, circle[0])) {
            Some(circle) => circle.push(module),
            None => circles.push(vec![module]),
        }
    }
    circles
}

fn faults(source: &Source) -> Vec<String> {
    let edges = source.edges();
    let upward = edges.iter().filter_map(fault);
    let circles = circles(&edges).into_iter().map(|circle| {
        let within = |module: &str| circle.contains(&module);
        let edges = edges.iter().filter(|edge| within(&edge.from) && within(&edge.to));
        let edges: Vec<_> = edges.map(|edge| format!("  {edge}")).collect();
        format!("a circle:\n{}", edges.join("\n"))
    });
    upward.chain(circles).collect()
}

#[test]
fn nothing_is_imported_from_above_or_in_a_circle() {
    let source = Source::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    assert!(source.edges().len() > 300, "the imports aren't read");
    let faults = faults(&source);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Names that a pure function doesn't use: files, processes, threads, clocks.
const IMPURE: &[&str] =
    &["fs", "io", "os", "env", "net", "process", "thread", "sync", "Instant", "SystemTime"];

fn impurities(source: &Source) -> Vec<String> {
    let is_impure = |path: &[String]| match path[0].as_str() {
        "std" => path.iter().any(|name| IMPURE.contains(&name.as_str())),
        first => ["rustix", "libc", "nix"].contains(&first),
    };
    let found = source.foreign("lib::watch::policy").filter(|(_, path)| is_impure(path));
    found.map(|(module, path)| format!("{module}: {}", path.join("::"))).collect()
}

#[test]
fn policies_are_pure() {
    let source = Source::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    assert!(source.foreign("lib::watch::policy").count() > 10, "the imports aren't read");
    assert_eq!(impurities(&source), [""; 0]);
    for planted in
        ["use std::time::{Duration, Instant};", "fn f() { std::fs::read(\"x\"); }", "use rustix::fs::open;"]
    {
        let files =
            [("lib.rs", "pub mod watch;"), ("watch.rs", "pub mod policy;"), ("watch/policy.rs", planted)];
        let source = Source::of(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())));
        assert_eq!(impurities(&source).len(), 1, "{planted}");
    }
}

/// Public items of the library: see docs/architecture.md.
const PUBLIC: &str = include_str!("public.txt");

#[test]
fn what_is_public_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = Source::read(root.join("src").as_path());
    let public: Vec<_> = source.public().collect();
    assert!(public.len() > 100, "the items aren't read");
    if std::env::var_os("MEMCTL_BLESS").is_some() {
        std::fs::write(root.join("tests/floors/public.txt"), public.join("\n") + "\n")
            .expect("a file to write");
        return;
    }
    let listed: Vec<_> = PUBLIC.lines().collect();
    let more: Vec<_> = public.iter().filter(|item| !listed.contains(&item.as_str())).collect();
    let gone: Vec<_> = listed.iter().filter(|item| !public.iter().any(|public| public == *item)).collect();
    assert!(
        more.is_empty() && gone.is_empty(),
        "public now: {more:?}; no longer: {gone:?}; MEMCTL_BLESS=1 lists them anew"
    );
}

/// Pages that name files of the source.
const PAGES: &[&str] =
    &["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/benchmarks.md"];

#[test]
fn pages_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for page in PAGES {
        let text = String::from_utf8(std::fs::read(root.join(page)).expect("a page")).expect("UTF-8");
        // In code spans, with a folder of the repository in front.
        let spans = text.split('`').skip(1).step_by(2);
        let paths =
            spans.filter(|span| ["src/", "tests/", "fuzz/", "man/"].iter().any(|dir| span.starts_with(dir)));
        for path in paths.filter(|path| !path.contains([' ', '*', '$'])) {
            assert!(
                root.join(path).exists() || path.starts_with("fuzz/artifacts"),
                "{page}: {path} doesn't exist"
            );
            named += 1;
        }
    }
    assert!(named > 20, "{named} paths found: the pages aren't read");
}

/// Returns the faults of a source of five files, with one line of text planted in the lowest.
fn house(planted: &str) -> Vec<String> {
    let files = [
        ("lib.rs", "pub mod host; pub mod cgroup; pub mod watch;"),
        ("host.rs", planted),
        ("cgroup.rs", "pub mod path; pub use path::Path; use crate::host::read; pub struct Cgroup;"),
        ("cgroup/path.rs", "use crate::host; pub struct Path; fn f() { host::read() }"),
        ("watch.rs", "use crate::cgroup::{self, Path}; fn f() { println!(\"{}\", cgroup::path::x()) }"),
    ];
    faults(&Source::of(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned()))))
}

#[test]
fn what_is_planted_is_found() {
    assert_eq!(house("pub fn read() {}"), [""; 0]);
    // A word in a comment, a string or a test is no import.
    for harmless in [
        "// crate::watch::f\n",
        "const A: &str = \"crate::watch::f\";",
        "#[cfg(test)] mod tests { use crate::watch::f; }",
        "#[cfg(test)] use crate::watch::f;",
    ] {
        assert_eq!(house(harmless), [""; 0], "{harmless}");
    }
    for upward in [
        "use crate::watch::f;",
        "use crate::watch::*;",
        "use super::watch::f as g;",
        "use crate::{cgroup, watch::{a::b, f}};",
        "fn g() { crate::watch::f() }",
        "fn g() { use crate::watch; watch::f() }",
        "fn g() -> crate::watch::Watch {}",
        "fn g() { assert!(crate::watch::f()) }",
        "#[cfg(not(test))] use crate::watch::f;",
        "mod inner { fn g() { super::super::watch::f() } }",
    ] {
        let faults = house(upward);
        assert_eq!(faults[0], "lib::host -> lib::watch: lib::host doesn't stand on lib::watch", "{upward}");
        assert!(faults[1].starts_with("a circle:\n  lib::cgroup::path -> lib::host\n"), "{faults:?}");
    }
    // Through a re-export, the file with the definition counts.
    assert_eq!(
        house("use crate::cgroup::Path;"),
        [
            "lib::host -> lib::cgroup::path: lib::host doesn't stand on lib::cgroup",
            "a circle:\n  lib::cgroup::path -> lib::host\n  lib::host -> lib::cgroup::path"
        ]
    );
}
