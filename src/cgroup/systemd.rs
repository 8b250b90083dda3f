//! Role of a cgroup in systemd, judging by its name alone: unit or not, owner, and the way to
//! change its settings.
//!
//! A user's own service manager runs in `user@UID.service`, and the cgroups below belong to that
//! user. Slices and login sessions (`session-N.scope`) are root's. `Delegate=`
//! (systemd.resource-control(5)) with `User=` gives a service's `memory.reclaim` to its user, in
//! systemd 252 and 257 at least.

use std::borrow::Cow;

use super::naming::{Named, pod_uid};
use super::owner::{BY_POLICY, Denied};

/// Returns whether systemd manages this host, as `sd_booted`(3) does.
#[must_use]
pub(crate) fn by_systemd() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// Returns the unit of the cgroup with this name, if it is one.
fn unit(name: &str) -> Option<&str> {
    let (_, last) = name.rsplit_once('/')?;
    matches!(Named::parse(last), Some(Ok(Named::Unit(_)))).then_some(last)
}

/// Returns whether a cgroup is below a user's own service manager.
fn of_a_user(name: &str) -> bool {
    let above = name.rsplit_once('/').map_or("", |(above, _)| above);
    above.split('/').any(|unit| unit.starts_with("user@") && unit.ends_with(".service"))
}

/// Returns whether a cgroup is that of a pod, or below it.
fn of_a_pod(name: &str) -> bool {
    name.split('/').any(|directory| pod_uid(directory).is_some())
}

/// Quotes a name or path for a shell, since the hints are commands to copy. Control characters,
/// which messages don't show as they are, take the form `$'…'` (POSIX.1-2024).
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=@%+,-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.into();
    }
    if !text.contains(char::is_control) {
        return format!("'{}'", text.replace('\'', r"'\''")).into();
    }
    let mut quoted = "$'".to_owned();
    for character in text.chars() {
        match character {
            '\'' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                // By bytes: a control character of Unicode has several.
                let bytes = control.to_string().into_bytes();
                quoted.extend(bytes.iter().map(|byte| format!("\\{byte:03o}")));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted.into()
}

/// Describes how a user gets permission to reclaim from the cgroup with this name. `file` is its
/// `memory.reclaim`; `by_systemd` is true on a host that systemd manages.
#[must_use]
pub(crate) fn permit(name: &str, file: &str, denied: Denied, by_systemd: bool) -> String {
    let file = quoted(file);
    match denied {
        // The kubelet makes these cgroups, as root: a file that is delegated by hand is soon gone.
        Denied::ByOwner if of_a_pod(name) => return "run as root (in a pod: runAsUser: 0)".into(),
        Denied::ByNamespace { .. } if of_a_pod(name) => {
            return "run as root outside of this user namespace (in a pod: without hostUsers: false)".into();
        }
        Denied::ByOwner => {}
        Denied::ByNamespace { outside } => {
            let user = outside.map_or_else(|| "USER".to_owned(), |uid| uid.to_string());
            return format!(
                "run as root outside of this user namespace, or delegate the file there: chown {user} {file}"
            );
        }
        Denied::ByCapabilities { uid } => {
            return format!("run with CAP_DAC_OVERRIDE, or as uid {uid}, the owner of the file");
        }
        Denied::ByMode => return format!("let the file's owner write: chmod u+w {file}"),
        Denied::ByPolicy => return BY_POLICY.into(),
    }
    if !by_systemd {
        return match name {
            "/" => "run as root, or name a cgroup of your own".into(),
            _ => format!("run as root, or delegate the file: chown USER {file}"),
        };
    }
    match unit(name) {
        Some(_) if of_a_user(name) => "run as root, or as the user who owns the unit".into(),
        Some(unit) if unit.ends_with(".service") => {
            "run as root, or delegate the unit: User= and Delegate=memory".into()
        }
        None if name != "/" => format!("run as root, or delegate the file: chown USER {file}"),
        _ => "run as root, or name a cgroup of your own, such as one started with systemd-run --user".into(),
    }
}

/// Returns the command that enables the memory controller for the cgroup with this name, which the
/// parents don't pass on, by writes to `files`, the topmost first. For a unit the files are
/// systemd's, which would soon overwrite them, so the command sets a property.
#[must_use]
pub(crate) fn account(name: &str, files: &[String], by_systemd: bool) -> String {
    let Some(unit) = unit(name).filter(|_| by_systemd) else {
        let quoted: Vec<_> = files.iter().map(|file| quoted(file)).collect();
        return match &quoted[..] {
            [only] => format!("echo +memory > {only}"),
            several => format!("echo +memory | tee {}", several.join(" ")),
        };
    };
    let user = if of_a_user(name) { "--user " } else { "" };
    format!("systemctl {user}set-property {} MemoryAccounting=yes", quoted(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/user.slice/user-1000.slice/user@1000.service";

    #[test]
    fn how_to_be_permitted_depends_on_whose_the_cgroup_is() {
        let hint = |name: &str| permit(name, "FILE", Denied::ByOwner, true);
        assert!(hint("/system.slice/nginx.service").contains("Delegate=memory"));
        assert!(hint(OWN).contains("Delegate=memory"));
        assert!(hint(&format!("{OWN}/app.slice/mine.service")).contains("the user who owns the unit"));
        for name in ["/", "/system.slice", "/user.slice/user-1000.slice/session-1.scope", "/docker-1.scope"] {
            assert!(hint(name).contains("systemd-run --user"), "{name}");
        }
        for name in
            ["/app", "/system.slice/nginx.service/inner", &format!("{OWN}/app.slice/mine.service/inner")]
        {
            assert!(hint(name).ends_with("chown USER FILE"), "{name}");
        }
    }

    #[test]
    fn no_file_of_a_pod_is_delegated_by_hand() {
        const UID: &str = "1a2b3c4d_1111_2222_3333_444455556666";
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice");
        let cgroupfs = format!("/kubepods/burstable/pod{}/1f2e", UID.replace('_', "-"));
        for name in [&slice, &format!("{slice}/cri-containerd-1f2e.scope"), &cgroupfs] {
            for by_systemd in [true, false] {
                let hint = |denied| permit(name, "FILE", denied, by_systemd);
                assert_eq!(hint(Denied::ByOwner), "run as root (in a pod: runAsUser: 0)");
                let namespace = hint(Denied::ByNamespace { outside: Some(1) });
                assert!(namespace.ends_with("(in a pod: without hostUsers: false)"), "{namespace}");
            }
        }
        let above = permit("/kubepods.slice/kubepods-burstable.slice", "FILE", Denied::ByOwner, false);
        assert!(above.ends_with("chown USER FILE"), "{above}");
    }

    #[test]
    fn accounting_is_turned_on_by_who_manages_the_cgroup() {
        let files = ["FILE".to_owned()];
        let hint = |name: &str| account(name, &files, true);
        assert_eq!(hint("/app"), "echo +memory > FILE");
        assert_eq!(hint("/system.slice/nginx.service/inner"), "echo +memory > FILE");
        assert_eq!(hint("/a.slice/b.service"), "systemctl set-property b.service MemoryAccounting=yes");
        let own = hint(&format!("{OWN}/a.slice/b.service"));
        assert_eq!(own, "systemctl --user set-property b.service MemoryAccounting=yes");
        assert_eq!(account("/a.slice/b.service", &files, false), "echo +memory > FILE");
        let files = ["A".to_owned(), "A/b c".to_owned()];
        assert_eq!(account("/a/b c/d", &files, false), "echo +memory | tee A 'A/b c'");
        let by_hand = |name: &str| permit(name, "FILE", Denied::ByOwner, false);
        assert!(by_hand("/a.slice/b.service").ends_with("chown USER FILE"));
        assert_eq!(by_hand("/"), "run as root, or name a cgroup of your own");
        assert_eq!(hint(r"/a\x2db.mount"), r"systemctl set-property 'a\x2db.mount' MemoryAccounting=yes");
        let hint = hint("/x;reboot;.service");
        assert_eq!(hint, "systemctl set-property 'x;reboot;.service' MemoryAccounting=yes");
        assert_eq!(account("/a;b", &["/cg/a';b/f".to_owned()], true), r"echo +memory > '/cg/a'\'';b/f'");
        assert!(permit("/a b/c", "/cg/a b/c/f", Denied::ByOwner, true).ends_with("chown USER '/cg/a b/c/f'"));
        assert_eq!(quoted("a\n\u{85}\\'b"), r"$'a\012\302\205\\\'b'");
    }
}
