//! The command line: rejected arguments and their errors, help, version, streams. No test here
//! needs a kernel.

use crate::environment::{Case, list};
use crate::harness::{assert_fails, memctl, run};

pub fn cases() -> Vec<Case> {
    list![
        "" =>
            sizes_are_refused_with_a_reason,
            words_that_do_not_make_a_request,
            options_that_do_not_go_together,
            global_options_stand_anywhere,
            help_fits_one_screen,
            long_help_has_examples_and_exit_statuses,
            version_is_told,
            no_words_are_a_usage_error,
            a_closed_pipe_is_no_error,
            words_that_are_not_utf8,
            colour_only_when_asked_for
    ]
}

fn sizes_are_refused_with_a_reason() {
    let cases = [
        ("0", "must be at least 4096 bytes, one page"),
        ("4095", "must be at least 4096 bytes, one page"),
        ("1K", "must be at least 4096 bytes, one page"),
        ("010M", "a size must not have leading zeros (the kernel reads them as octal)"),
        ("0x10000", "hexadecimal sizes are not supported"),
        ("+10M", "a size must not have a sign"),
        ("-10M", "a size can't be negative"),
        ("16E", "must be less than 8 EiB"),
        ("9E", "must be less than 8 EiB"),
        ("10MB", "MB is ambiguous: write M or MiB (a power of 1024), or the number of bytes"),
        ("101%", "must be at most 100%"),
        ("0%", "must be more than 0"),
        ("10Q", "'Q' is not a unit (K, M, G, T, P, E, powers of 1024)"),
        ("ten", "not a size (as in 10M, 1.5G, 25% or max)"),
    ];
    for (size, why) in cases {
        assert_fails(&["reclaim", "app", size], 2, &format!("memctl: {size}: {why}"));
    }
}

fn words_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"bad\xff");
    let run = |words: &[&std::ffi::OsStr]| -> crate::harness::Finished {
        memctl(words).output().expect("memctl runs").into()
    };
    // A cgroup can have this name: memctl searches for it.
    for verb in ["stat", "check", "reclaim"] {
        let ran =
            run(&[verb, "--json"].map(std::ffi::OsStr::new).iter().copied().chain([odd]).collect::<Vec<_>>());
        assert!(!ran.stderr.contains("invalid UTF-8"), "{verb}: {}", ran.stderr);
    }
    // A size, or the value of an option, can't.
    for words in [["reclaim", "app"], ["stat", "--depth"], ["watch", "--headroom"]] {
        let ran = run(&words.map(std::ffi::OsStr::new).iter().copied().chain([odd]).collect::<Vec<_>>());
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("memctl: "), "{words:?}: {}", ran.stderr);
    }
}

fn words_that_do_not_make_a_request() {
    assert_fails(&["reclaim", "app"], 2, "memctl: app: no size given");
    assert_fails(&["reclaim", "10M"], 2, "memctl: 10M: no cgroup given");
    assert_fails(&["reclaim", "--to", "10M", "app", "5M"], 2, "memctl: 5M: SIZE can't be combined with --to");
    assert_fails(&["check", "app", "other"], 2, "memctl: other: check takes a single cgroup");
    assert_fails(&["reclaim"], 2, "memctl: reclaim: a CGROUP and a SIZE are required");
    for option in ["--to", "--total"] {
        assert_fails(&["reclaim", option, "1G"], 2, "memctl: reclaim: a CGROUP is required");
    }
    assert_fails(&["reclaim", "app", ""], 2, "memctl: a size can't be empty");
    assert_fails(
        &["reclaim", "app", "5M", "--swappiness", "-1"],
        2,
        "memctl: --swappiness -1: must not be negative",
    );
    let ran =
        assert_fails(&["reclaim", "10M", "app"], 2, "memctl: app: not a size (as in 10M, 1.5G, 25% or max)");
    assert!(ran.stderr.contains("hint: give the cgroup first"), "{}", ran.stderr);
    let ran = assert_fails(
        &["reclaim", "app", "5M", "--chunk", "x"],
        2,
        "memctl: invalid value 'x' for '--chunk <SIZE>': not a size (as in 10M, 1.5G, 25% or max)",
    );
    assert!(ran.stderr.contains("hint: see 'memctl reclaim --help'"), "{}", ran.stderr);
    assert_fails(&["reclam", "app", "5M"], 2, "memctl: unrecognized subcommand 'reclam'");
    let ran =
        assert_fails(&["reclaim", "--jsn", "app", "5M"], 2, "memctl: unexpected argument '--jsn' found");
    assert!(ran.stderr.contains("hint: a similar argument exists: '--json'"), "{}", ran.stderr);
}

fn options_that_do_not_go_together() {
    let invalid = |option: &str, value: &str, shown: &str, why: &str| {
        let line = format!("memctl: invalid value '{value}' for '{shown}': {why}");
        assert_fails(&["reclaim", "app", "5M", &format!("{option}={value}")], 2, &line);
    };
    let size = "not a size (as in 10M, 1.5G, 25% or max)";
    invalid("--chunk", "x", "--chunk <SIZE>", size);
    invalid("--chunk", "5%", "--chunk <SIZE>", "must be a size, not a percentage");
    invalid("--timeout", "0", "--timeout <DUR>", "must be more than 0");
    invalid("--timeout", "soon", "--timeout <DUR>", "not a duration (as in 500ms, 10s, 2m)");
    invalid("--timeout", "-1", "--timeout <DUR>", "not a duration (as in 500ms, 10s, 2m)");
    let durations: [(&[&str], &str); 4] = [
        (&["reclaim", "app", "5M"], "--timeout"),
        (&["reclaim", "app", "5M"], "--settle"),
        (&["watch", "app", "--keep=5M"], "--duration"),
        (&["stat"], "--interval"),
    ];
    for (command, option) in durations {
        for (value, why) in [
            ("18446744073709551615", "must be at most 365 days"),
            ("1e30", "must be at most 365 days"),
            ("inf", "must be at most 365 days"),
            ("0", "must be more than 0"),
            ("-1", "not a duration (as in 500ms, 10s, 2m)"),
            ("nan", "not a duration (as in 500ms, 10s, 2m)"),
        ] {
            let given = format!("{option}={value}");
            let line = format!("memctl: invalid value '{value}' for '{option} <DUR>': {why}");
            assert_fails(&[command, &[&given[..]]].concat(), 2, &line);
        }
    }
    invalid("--tolerance", "200", "--tolerance <PCT>", "must be at most 100%");
    invalid("--swappiness", "201", "--swappiness <N>", "must be 0 to 200, or max");
    assert_fails(
        &["reclaim", "app", "5M", "--type=tmpfs"],
        2,
        "memctl: invalid value 'tmpfs' for '--type <TYPE>'; possible values: all, anon, file",
    );
    assert_fails(
        &["reclaim", "app", "5M", "--type=anon", "--swappiness=5"],
        2,
        "memctl: the argument '--type <TYPE>' cannot be used with '--swappiness <N>'",
    );
}

fn global_options_stand_anywhere() {
    let line = "memctl: --quiet and --verbose can't be combined";
    assert_fails(&["-q", "reclaim", "-v", "app", "5M"], 2, line);
    assert_fails(&["-qv", "reclaim", "app", "5M"], 2, line);
    // Even with --quiet, an error is printed.
    assert_fails(
        &["reclaim", "app", "-q", "5MB", "-q"],
        2,
        "memctl: 5MB: MB is ambiguous: write M or MiB (a power of 1024), or the number of bytes",
    );
}

fn help_fits_one_screen() {
    for words in [&["-h"][..], &["reclaim", "-h"]] {
        let ran: crate::harness::Finished =
            memctl(words).env("COLUMNS", "80").output().expect("memctl runs").into();
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        assert!(ran.stdout.lines().count() <= 40, "{}", ran.stdout);
        assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    }
}

fn long_help_has_examples_and_exit_statuses() {
    for words in [&["--help"][..], &["reclaim", "--help"]] {
        let ran = run(words);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        for part in ["Examples:", "Exit status:", "memctl reclaim"] {
            assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
        }
    }
}

fn version_is_told() {
    let ran = run(&["-V"]);
    assert_eq!((ran.status, ran.stdout), (Some(0), format!("memctl {}\n", env!("CARGO_PKG_VERSION"))));
}

fn no_words_are_a_usage_error() {
    let ran = run(&[]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("Usage: memctl"), "{}", ran.stderr);
}

fn a_closed_pipe_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = memctl(["reclaim", "--help"]);
    let status = command.stdout(writer).status().expect("memctl runs");
    assert_eq!(status.code(), Some(0));
}

fn colour_only_when_asked_for() {
    let coloured = |command: &mut std::process::Command| {
        let output = command.args(["reclaim", "app", "5MB"]).output().expect("memctl runs");
        String::from_utf8(output.stderr).expect("UTF-8").contains('\u{1b}')
    };
    assert!(!coloured(&mut memctl([""; 0])));
    assert!(coloured(&mut memctl(["--color=always"])));
    assert!(coloured(memctl([""; 0]).env("CLICOLOR_FORCE", "1")));
    assert!(!coloured(memctl(["--color=never"]).env("CLICOLOR_FORCE", "1")));
    assert!(!coloured(memctl([""; 0]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1")));
}
