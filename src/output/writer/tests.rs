use std::io::{PipeReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

type TestWriter = Writer<OwnedFd>;

/// Creates a writer with a thread, and the other ends of its outputs.
fn writer(form: Form) -> (TestWriter, PipeReader, PipeReader) {
    let (out, to_out) = pipe().unwrap();
    let (err, to_err) = pipe().unwrap();
    (TestWriter::with([to_out.into(), to_err.into()], form, || false), out, err)
}

/// Makes the writer do without a thread.
fn alone(writer: &TestWriter) {
    *writer.thread.borrow_mut() = Thread::Missing { retry: Duration::MAX, delay: FIRST_RETRY };
}

/// Returns all that can be read, once the writer is gone.
fn rest(writer: TestWriter, mut from: PipeReader) -> String {
    drop(writer);
    let mut text = Vec::new();
    from.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn push_all(writer: &TestWriter, count: usize) -> Vec<String> {
    let lines: Vec<_> = (0..count).map(|number| format!("{{\"event\":\"{number:090}\"}}\n")).collect();
    for line in &lines {
        writer.push(To::Stdout, line);
    }
    lines
}

fn never() -> bool {
    false
}

#[test]
fn lines_arrive_in_order_with_a_thread_and_without() {
    for is_alone in [false, true] {
        let (writer, out, err) = writer(Form::Json);
        if is_alone {
            alone(&writer);
        }
        let lines = push_all(&writer, 300);
        writer.push(To::Stderr, "memctl: a note\n");
        assert_eq!(writer.end(["end\n".to_owned()], &never), Ok(()));
        drop(writer);
        for (mut from, expected) in [(out, lines.concat() + "end\n"), (err, "memctl: a note\n".to_owned())] {
            let mut text = String::new();
            #[allow(clippy::disallowed_methods, reason = "the writer's own text")]
            from.read_to_string(&mut text).unwrap();
            assert!(text == expected, "{is_alone}: {text}");
        }
    }
}

#[test]
fn outputs_that_share_a_file_keep_the_order() {
    let (mut from, to) = pipe().unwrap();
    let writer = TestWriter::with([to.try_clone().unwrap().into(), to.into()], Form::Text, || false);
    let mut expected = String::new();
    for number in 0..500 {
        let line = format!("{number}\n");
        writer.push(if number % 3 == 0 { To::Stderr } else { To::Stdout }, &line);
        expected += &line;
    }
    assert_eq!(writer.end([], &never), Ok(()));
    drop(writer);
    let mut text = Vec::new();
    from.read_to_end(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_reader_that_stalls_holds_up_neither_lines_nor_messages_nor_the_end() {
    for is_alone in [false, true] {
        let (writer, out, mut err) = writer(Form::Json);
        if is_alone {
            alone(&writer);
        }
        let began = Instant::now();
        let lines = push_all(&writer, 10_000);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(writer.dropped() > 5000);
        writer.push(To::Stderr, "memctl: a note\n");
        let mut note = [0; 15];
        err.read_exact(&mut note).unwrap();
        assert_eq!(&note, b"memctl: a note\n");
        let began = Instant::now();
        assert_eq!(writer.end(["end\n".to_owned()], &|| true), Err("not read in time".to_owned()));
        assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
        // What is in the pipe begins the record, and is cut off.
        let text = rest(writer, out);
        assert!(lines.concat().starts_with(&text), "{is_alone}");
    }
}

#[test]
fn messages_that_nobody_reads_hold_up_no_events() {
    let (writer, out, err) = writer(Form::Json);
    for _ in 0..2000 {
        writer.push(To::Stderr, &("memctl: ".to_owned() + &"x".repeat(100) + "\n"));
    }
    let lines = push_all(&writer, 100).concat();
    let began = Instant::now();
    assert_eq!(writer.end(["end\n".to_owned()], &|| true), Ok(()));
    writer.flush_messages();
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!(writer.dropped(), 0, "only events count");
    assert_eq!(rest(writer, out), lines + "end\n");
    drop(err);
}

#[test]
fn dropped_lines_are_reported_in_their_place() {
    for is_alone in [false, true] {
        let (writer, mut out, _err) = writer(Form::Json);
        if is_alone {
            alone(&writer);
        }
        let lines = push_all(&writer, 4000);
        let dropped = writer.dropped();
        assert!(dropped > 0);
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            out.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        // Without a thread, the watch calls this repeatedly.
        while !writer.shared.lock().streams[0].is_empty() {
            writer.advance();
            std::thread::sleep(Duration::from_millis(1));
        }
        let more = "{\"event\":\"more\"}\n".to_owned();
        writer.push(To::Stdout, &more);
        assert_eq!(writer.end(["end\n".to_owned()], &never), Ok(()));
        drop(writer);
        let text = reader.join().unwrap();
        let at = text.find("{\"event\":\"dropped\"").expect("a report");
        let (before, after) = text.split_at(at);
        let (report, after) = after.split_at(after.find('\n').unwrap() + 1);
        assert_eq!(before, lines[..lines.len() - dropped as usize].concat());
        assert!(report.ends_with(&format!(",\"dropped_events\":{dropped}}}\n")), "{report}");
        assert_eq!(after, more + "end\n");
    }
}

#[test]
fn a_slow_reader_gets_the_whole_end() {
    let (writer, mut out, _err) = writer(Form::Text);
    let reader = std::thread::spawn(move || {
        let (mut all, mut chunk) = (0, vec![0; 16 << 10]);
        while let Ok(read @ 1..) = out.read(&mut chunk) {
            all += read;
            std::thread::sleep(Duration::from_millis(2));
        }
        all
    });
    let line = "x".repeat(999) + "\n";
    assert_eq!(writer.end((0..1000).map(|_| line.clone()), &never), Ok(()));
    assert_eq!(writer.dropped(), 0);
    drop(writer);
    assert_eq!(reader.join().unwrap(), 1_000_000);
}

#[test]
fn a_reader_that_leaves_ends_an_interactive_watch_only() {
    for is_interactive in [true, false] {
        let (out, to_out) = pipe().unwrap();
        let (mut err, to_err) = pipe().unwrap();
        let is = if is_interactive { || true } else { never };
        let writer = TestWriter::with([to_out.into(), to_err.into()], Form::Json, is);
        drop(out);
        writer.push(To::Stdout, "one\n");
        let until = Instant::now() + Duration::from_secs(5);
        while !writer.is_closed()
            && writer.shared.lock().streams[0].error().is_none()
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(writer.is_closed(), is_interactive);
        writer.push(To::Stdout, "two\n");
        let end = writer.end(["end\n".to_owned()], &never);
        assert_eq!(end, if is_interactive { Ok(()) } else { Err("broken pipe".to_owned()) });
        drop(writer);
        let mut text = Vec::new();
        err.read_to_end(&mut text).unwrap();
        let says =
            if is_interactive { "" } else { "memctl: standard output: broken pipe; the watch goes on\n" };
        assert_eq!(String::from_utf8(text).unwrap(), says, "once");
    }
}

#[test]
fn a_full_disk_is_reported_once() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (mut err, to_err) = pipe().unwrap();
    let writer = TestWriter::with([full.into(), to_err.into()], Form::Json, || false);
    push_all(&writer, 10);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(writer.end([], &never), Err("no space left on device".to_owned()));
    drop(writer);
    let mut text = Vec::new();
    err.read_to_end(&mut text).unwrap();
    let says = "memctl: standard output: no space left on device; the watch goes on\n";
    assert_eq!(String::from_utf8(text).unwrap(), says);
}

#[test]
fn a_screen_is_painted_only_after_the_one_before() {
    let (writer, mut out, _err) = writer(Form::Text);
    let screen = "x".repeat(50_000);
    for _ in 0..10 {
        writer.paint(&screen);
    }
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        text.len()
    });
    assert_eq!((writer.end([], &never), writer.dropped()), (Ok(()), 0));
    drop(writer);
    let length = reader.join().unwrap();
    assert!(length % screen.len() == 0 && length < 10 * screen.len(), "{length}");
}

/// An output that takes a bounded part of each write, or fails.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Bytes(usize),
    Fails(Errno),
}

fn taken() -> impl Strategy<Value = Taken> {
    prop_oneof![
        4 => (1..200usize).prop_map(Taken::Bytes),
        1 => Just(Taken::Fails(Errno::NOSPC)),
        1 => Just(Taken::Fails(Errno::IO)),
        1 => Just(Taken::Fails(Errno::INTR)),
        1 => Just(Taken::Fails(Errno::PIPE)),
        1 => Just(Taken::Fails(Errno::AGAIN)),
    ]
}

proptest! {
    #[test]
    fn a_torn_line_is_completed_and_every_line_is_written_or_counted(
        steps in proptest::collection::vec((0..4usize, proptest::collection::vec(taken(), 0..4)), 0..60)
    ) {
        let mut stream = Stream::new(Form::Json, 1000, Duration::ZERO);
        let (mut written, mut pushed, mut time) = (Vec::new(), 0, Duration::ZERO);
        let mut chunk = [0; 100];
        let drain = [(0, vec![Taken::Bytes(100); 100])];
        for (lines, takes) in steps.into_iter().chain(drain) {
            for _ in 0..lines {
                pushed += 1;
                let line = format!("{{\"event\":\"{pushed}\",\"x\":\"{}\"}}\n", "y".repeat(pushed % 90));
                stream.push(pushed as u64, time, line.as_bytes());
            }
            for take in takes {
                time += Duration::from_secs(61);
                let bytes = stream.peek(&mut chunk);
                if stream.due(time).is_none() {
                    prop_assert_eq!(bytes, 0);
                    continue;
                }
                let result = match take {
                    Taken::Bytes(most) => Ok(most.min(bytes)),
                    Taken::Fails(errno) => Err(errno),
                };
                written.extend_from_slice(&chunk[..result.unwrap_or(0)]);
                stream.wrote(0, time, result, || false);
            }
        }
        prop_assert!(stream.is_empty());
        let text = String::from_utf8(written).unwrap();
        let (mut seen, mut dropped, mut last) = (0, 0, 0);
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a whole line");
            if let Some(more) = line["dropped_events"].as_u64() {
                dropped += more;
                continue;
            }
            let number: usize = line["event"].as_str().unwrap().parse().unwrap();
            prop_assert!(number > last);
            last = number;
            seen += 1;
        }
        prop_assert_eq!((seen + dropped, dropped), (pushed as u64, stream.dropped()));
    }
}

#[test]
fn attempts_become_rarer_while_they_fail() {
    let mut stream = Stream::new(Form::Text, 1000, Duration::ZERO);
    stream.push(1, Duration::ZERO, b"line\n");
    let (mut now, mut waits) = (Duration::ZERO, Vec::new());
    for round in 0..9 {
        let attempt = stream.wrote(1, now, Err(Errno::NOSPC), || false);
        assert_eq!(attempt == Attempt::Failed(Errno::NOSPC), round == 0, "reported once");
        let until = stream.until().unwrap();
        waits.push(until.checked_sub(now).unwrap().as_secs());
        assert_eq!((stream.due(now), stream.due(until)), (None, Some(1)));
        now = until;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    stream.wrote(1, now, Ok(5), || false);
    assert_eq!((stream.until(), stream.error()), (None, None));
}
