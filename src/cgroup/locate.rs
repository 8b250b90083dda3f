//! From a name as a user gives it to the directory of a cgroup.
//!
//! A name is a path under the cgroup2 mount (`/sys/fs/cgroup/app`), the same without the mount (`app`, `/app`),
//! `self`, a systemd unit's name, `pid:N`, `container:ID`, `pod:UID`, or, within the hierarchy, a path that begins with
//! `.`. Whether memory can be reclaimed there is the business of [`super::diagnose`].

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnose::{Unreclaimable, missing};
use super::mount::{self, Mount};
use super::named::Named;
use super::{Cgroup, FileSystem, node, tree};

/// A cgroup that was found: where, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its directory.
    pub path: Arc<Path>,
    /// The path from the mount point, with a leading `/`.
    pub name: Arc<str>,
    /// The hierarchy it is in.
    pub mount: Arc<Mount>,
}

impl Located {
    /// The cgroups above it, the nearest first, without the root of what is mounted.
    pub fn above(&self) -> impl Iterator<Item = Self> + '_ {
        let within = |path: &&Path| path.starts_with(&self.mount.point) && **path != self.mount.point;
        self.path.ancestors().skip(1).take_while(within).filter_map(|path| {
            let name = self.mount.name_of(path)?;
            Some(Self { path: path.into(), name: name.into(), mount: Arc::clone(&self.mount) })
        })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Unreclaimable`], naming what is there instead of a cgroup.
    pub fn open(&self) -> Result<Cgroup, Unreclaimable> {
        Cgroup::open(Arc::clone(&self.path), Arc::clone(&self.name)).map_err(|e| not_a_cgroup(&self.path, &e))
    }
}

/// Finds the cgroup that `word` names.
///
/// # Errors
/// [`Unreclaimable`]: cgroup2 isn't mounted, or there is no such cgroup; the nearest names are suggested.
pub fn locate(word: &str) -> Result<Located, Unreclaimable> {
    // A script whose variable is empty doesn't mean the root, which joining an empty path would make of it.
    if word.is_empty() {
        return Err(Unreclaimable::NoName);
    }
    let from_here = word.split('/').next().filter(|first| matches!(*first, "." | "..")).map(|_| {
        std::env::current_dir().map(|here| here.join(word)).map_err(|e| Unreclaimable::io(word, &e))
    });
    let from_here = from_here.transpose()?;
    let given = from_here.as_deref().unwrap_or(Path::new(word));
    let mount = Mount::find(given).map_err(|e| Unreclaimable::io("/proc/self/mountinfo", &e))?;
    let Some(mount) = mount else {
        return Err(Unreclaimable::no_cgroup2());
    };
    if word == "self" {
        return own(&mount);
    }
    if given.is_absolute() && given.starts_with(&mount.point) {
        return existing(given, word, &mount);
    }
    if from_here.is_some() {
        return existing(given, word, &mount);
    }
    let below = given.strip_prefix("/").unwrap_or(given);
    let in_mount = mount.point.join(below);
    if in_mount.is_dir() {
        return existing(&in_mount, word, &mount);
    }
    if let Some(number) = node::parse(word) {
        number?;
        return Err(Unreclaimable::IsNode { word: word.to_owned() });
    }
    if let Some(named) = Named::parse(word) {
        let named = named.map_err(|why| Unreclaimable::BadName { word: word.to_owned(), why })?;
        return by_name(&named, word, &mount);
    }
    // `-` typed where systemd has `\\x2d`.
    if let Some(path) = spelt_otherwise(&mount.point, below) {
        return existing(&path, word, &mount);
    }
    // An absolute path elsewhere: another mount of the hierarchy, or a mistake that deserves its own words.
    if given.is_absolute() && given.exists() {
        return existing(given, word, &mount);
    }
    Err(missing(word, &in_mount, &mount))
}

/// The cgroup memctl itself runs in.
fn own(mount: &Mount) -> Result<Located, Unreclaimable> {
    of_process("self", "self", mount)
}

/// The cgroup that a process runs in.
fn of_process(process: &str, word: &str, mount: &Mount) -> Result<Located, Unreclaimable> {
    let file = format!("/proc/{process}/cgroup");
    let text = super::read_system_file(&file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Unreclaimable::NoProcess { word: word.to_owned() },
        _ => Unreclaimable::io(&file, &e),
    })?;
    let cgroup = mount::own_cgroup(&text).unwrap_or_default();
    let out_of_sight = || Unreclaimable::OutOfSight {
        word: word.to_owned(),
        name: cgroup.to_owned(),
        root: mount.root.clone(),
    };
    // A process of another namespace is seen outside of this one's root.
    let path = mount.directory_of(cgroup).filter(|_| !cgroup.starts_with("/.."));
    existing(&path.ok_or_else(out_of_sight)?, word, mount)
}

/// A unit, container, pod or process.
fn by_name(named: &Named, word: &str, mount: &Mount) -> Result<Located, Unreclaimable> {
    if let Named::Pid(pid) = named {
        return of_process(&pid.to_string(), word, mount);
    }
    let found = named.find(&mount.point);
    match &found[..] {
        [] => Err(missing(word, &mount.point.join(word), mount)),
        [only] => existing(only, word, mount),
        several => {
            let candidates = several.iter().filter_map(|path| mount.name_of(path)).collect();
            Err(Unreclaimable::Ambiguous { word: word.to_owned(), candidates })
        }
    }
}

/// A path in which systemd's escapes are spelt as what they stand for.
fn spelt_otherwise(point: &Path, below: &Path) -> Option<PathBuf> {
    below.components().try_fold(point.to_path_buf(), |path, component| {
        let plain = path.join(component);
        if plain.is_dir() {
            return Some(plain);
        }
        let unit = Named::unit(component.as_os_str().to_str()?);
        tree::children(&path)
            .find(|child| child.file_name().and_then(OsStr::to_str).is_some_and(|name| unit.is(name)))
    })
}

fn existing(path: &Path, word: &str, mount: &Mount) -> Result<Located, Unreclaimable> {
    // Canonical, so that `a/../b` and a symlink are called by the name of what they lead to.
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(word, path, mount)),
        Err(e) => return Err(Unreclaimable::io(path, &e)),
    };
    let name = mount.name_of(&path).unwrap_or_else(|| path.to_string_lossy().into_owned());
    let located = Located { path: path.into(), name: name.into(), mount: Arc::new(mount.clone()) };
    located.open().map(|_| located)
}

fn not_a_cgroup(path: &Path, error: &io::Error) -> Unreclaimable {
    let on_v1 = || super::open_directory(path).and_then(|dir| Ok(super::file_system(&dir)?));
    match error.kind() {
        io::ErrorKind::InvalidInput if matches!(on_v1(), Ok(FileSystem::Cgroup1)) => {
            Unreclaimable::Version1 { path: path.to_path_buf() }
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
            Unreclaimable::NotACgroup { path: path.to_path_buf() }
        }
        _ => Unreclaimable::io(path, error),
    }
}

/// How alike two names are, up to 1; nothing if more than a third of it would have to be typed anew. What one begins
/// with counts most.
fn alike(wanted: &str, name: &str) -> f64 {
    const BEGINNING: usize = 3;
    let begins = wanted.len() >= BEGINNING && name.starts_with(wanted);
    let typed_anew = strsim::osa_distance(wanted, name);
    if begins || typed_anew <= (wanted.len() / 3).max(1) { strsim::jaro_winkler(wanted, name) } else { 0.0 }
}

/// Existing names that a mistyped one may have meant, the best first.
pub(super) fn nearest(path: &Path, mount: &Mount) -> Vec<String> {
    const LOOKED_AT: usize = 5000;
    const SUGGESTED: usize = 3;
    const ALIKE: f64 = 0.8;
    let Some(wanted) =
        path.file_name().map(OsStr::as_bytes).map(|name| String::from_utf8_lossy(name).to_lowercase())
    else {
        return Vec::new();
    };
    let mut scored: Vec<(f64, String)> = tree::below(&mount.point)
        .take(LOOKED_AT)
        .filter_map(|found| {
            let last = found.file_name()?.to_string_lossy().into_owned();
            let stem = last.split_once('.').map_or(last.as_str(), |(stem, _)| stem);
            let alike = |name: &str| alike(&wanted, &name.to_lowercase());
            let score = alike(&last).max(alike(stem));
            let name = mount.name_of(&found)?;
            (score >= ALIKE).then(|| (score, name.trim_start_matches('/').to_owned()))
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(SUGGESTED).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_near_when_little_of_it_would_be_typed_anew() {
        for (wanted, name) in
            [("ngnix", "nginx"), ("databse", "database"), ("postg", "postgresql"), ("ap", "app")]
        {
            assert!(alike(wanted, name) >= 0.8, "{wanted} {name}");
        }
        for (wanted, name) in [("nope", "one"), ("nope", "batch"), ("web", "db")] {
            assert!(alike(wanted, name) < 0.8, "{wanted} {name}");
        }
    }
}
