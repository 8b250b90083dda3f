//! `memctl plot`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use memctl::record::{self, Course, Record};
use percent_encoding::percent_decode_str;

use crate::cli::{Global, Plot};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{self, Verbosity, plot};

/// Runs the subcommand.
pub fn run(args: &Plot, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    let name = args.record.display().to_string();
    let to_stdout = args.output == Path::new("-");
    if !to_stdout && args.output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("svg")) {
        let what = format!("-o {}: only SVG is supported", args.output.display());
        return Err(
            Error::usage(what).with_hint(Some("name a file that ends in .svg, or - for standard output"))
        );
    }
    let open = record::open(&args.record).map_err(|e| Error::io(&name, &e))?;
    let record = Record::read(open).map_err(|why| Error::record(&name, &why))?;
    output::notes::read(&name, &record, loudness);
    let course = match &args.cgroup {
        None => Cow::Owned(record.together(plot::LOOKS)),
        Some(cgroup) => Cow::Borrowed(named(&record, cgroup)?),
    };
    let svg = plot::picture(&record, &course)?;
    if to_stdout {
        output::print_stdout(&svg)?;
    } else {
        write_whole(&args.output, svg.as_bytes()).map_err(|e| Error::io(args.output.display(), &e))?;
    }
    Ok(Exit::Success)
}

/// Writes a file as a whole or not at all: on a full disk, the old picture stays.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What isn't a regular file can't be replaced, and a link leads to the file that is meant.
    let is_special = path.symlink_metadata().is_ok_and(|meta| !meta.is_file());
    if is_special {
        return fs::write(path, bytes);
    }
    let mut draft = OsString::from(".");
    draft.push(path.file_name().unwrap_or_default());
    draft.push(format!(".{}.tmp", std::process::id()));
    let draft = path.with_file_name(draft);
    let created = match File::create_new(&draft) {
        // The file may be one's own in a folder of others.
        Err(why) if why.kind() == ErrorKind::PermissionDenied && path.exists() => {
            return fs::write(path, bytes);
        }
        created => created,
    };
    let written = created.and_then(|mut file| file.write_all(bytes));
    let renamed = written.and_then(|()| fs::rename(&draft, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    renamed
}

/// Returns the cgroup of a name: with or without the leading slash, or the last component where no
/// other cgroup has the same; or of a pod's or a container's name.
fn named<'a>(record: &'a Record, word: &OsStr) -> Result<&'a Course> {
    // For names that aren't UTF-8, the record has the path, percent-encoded.
    let bytes = |course: &Course| -> Vec<u8> {
        match &course.path_bytes {
            Some(path) => percent_decode_str(path).collect(),
            None => course.name.clone().into_bytes(),
        }
    };
    let slash = |byte: &u8| *byte == b'/';
    let word_bytes = word.as_bytes();
    let below = &word_bytes[word_bytes.iter().take_while(|byte| slash(byte)).count()..];
    let is = |course: &Course| match &course.path_bytes {
        // The record doesn't contain the mount point.
        Some(_) => bytes(course).ends_with(&[b"/", below].concat()),
        None => course.name.trim_start_matches('/').as_bytes() == below,
    };
    let ends = |course: &&Course| bytes(course).rsplit(slash).next() == Some(word_bytes);
    let cgroup = word.to_string_lossy();
    let pod = cgroup.strip_prefix("pod:").unwrap_or(&cgroup);
    let is_pod = |course: &&Course| course.pod.as_deref() == Some(pod);
    let mut ending = record.courses.iter().filter(ends);
    let only = ending.next().filter(|_| ending.next().is_none());
    let by_pod = || record.courses.iter().find(is_pod);
    record.courses.iter().find(|course| is(course)).or(only).or_else(by_pod).ok_or_else(|| {
        let called = |course: &'a Course| course.pod.as_ref().unwrap_or(&course.name).as_str();
        let mut known: Vec<_> = record.courses.iter().take(8).map(called).collect();
        if record.courses.len() > known.len() {
            known.push("…");
        }
        Error::new(format_args!("--cgroup {cgroup}: not in the record"))
            .with_hint(Some(format!("the record has {}", known.join(", "))))
    })
}
