//! Block devices by their number: the disk behind a partition, the disks below a mapped device, and
//! what sysfs says about their speed. Paths of devices are names that anyone with the right to
//! mknod(2) chooses, and are no evidence.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::proc::{read_in, text_of};

/// Maximum number of devices on top of each other that are followed.
const MAX_DEPTH: u32 = 8;

/// Size of the unit of `size` and `stat` in sysfs, bytes.
pub(super) const SECTOR: u64 = 512;

/// Prefixes of directories in sysfs that belong to a hypervisor's bus. Such disks report
/// `rotational` as the driver's default (`virtio_blk` always says 1), whatever lies behind them.
const VIRTUAL_BUSES: [&[u8]; 5] = [b"virtio", b"vbd-", b"vmbus", b"VMBUS", b"vio-"];

/// Vendors and models of SCSI and ATA disks that a hypervisor emulates.
const VIRTUAL_MODELS: [&str; 7] = ["QEMU", "VBOX", "VMware", "Msft", "Google", "Xen", "Virtual"];

/// What a disk is made of, from the fastest to the least known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Medium {
    /// Compressed memory.
    Zram,
    /// Disk that the kernel reports as not rotating.
    Solid,
    /// Rotating disk.
    Rotating,
    /// Disk of unknown speed, such as a virtual one.
    Disk,
    /// Unknown device: it could be anything, zram included.
    Unknown,
}

/// Disk that holds a swap area, or a part of the area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Medium of the disk.
    pub medium: Medium,
    /// Directory of the disk in sysfs; `None` if the disk is unknown.
    pub dir: Option<PathBuf>,
}

/// Number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    major: u32,
    minor: u32,
}

/// Block devices in a sysfs.
#[derive(Clone, Debug)]
pub(crate) struct BlockDevices {
    sys: PathBuf,
}

impl Medium {
    /// Returns the words for it.
    #[must_use]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Zram => "zram",
            Self::Solid => "non-rotating disk",
            Self::Rotating => "rotating disk",
            Self::Disk => "disk of unknown speed",
            Self::Unknown => "unknown device",
        }
    }
}

impl Disk {
    /// Disk of which nothing is known.
    pub(crate) const UNKNOWN: Self = Self { medium: Medium::Unknown, dir: None };
}

impl Number {
    /// Returns the number in a `dev_t`, as stat(2) reports it.
    #[must_use]
    pub(crate) fn new(dev: u64) -> Self {
        Self { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) }
    }

    /// Returns the device of the file system that holds a file.
    #[must_use]
    pub(crate) fn of_file(file: &Path) -> Option<Self> {
        let number = Self::new(std::fs::metadata(file).ok()?.dev());
        if number.is_anonymous() { super::mounts::device(file).map(Self::new) } else { Some(number) }
    }

    /// Parses a `dev` file of sysfs.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Returns whether it stands for a file system without a device, such as btrfs, NFS and tmpfs.
    fn is_anonymous(self) -> bool {
        self.major == 0
    }
}

impl BlockDevices {
    /// Returns the devices of this host.
    #[must_use]
    pub(crate) fn of_host() -> Self {
        Self { sys: "/sys".into() }
    }

    #[cfg(test)]
    pub(crate) fn in_sysfs(sys: &Path) -> Self {
        Self { sys: sys.to_path_buf() }
    }

    /// Returns the disks behind a device: several below a mapped or mirrored one.
    #[must_use]
    pub(crate) fn disks(&self, number: Number) -> Vec<Disk> {
        let mut disks = Vec::new();
        self.follow(number, 0, &mut disks);
        disks
    }

    /// Returns the size of a device, bytes.
    #[must_use]
    pub(crate) fn size(&self, number: Number) -> Option<u64> {
        size(&self.dir(number)?)
    }

    /// Returns the number of the device that the kernel calls `name`.
    #[must_use]
    pub(crate) fn named(&self, name: &std::ffi::OsStr) -> Option<Number> {
        // The kernel writes `!` for the `/` in a device's name (cciss/c0d0).
        let is_plain = !name.as_bytes().contains(&b'/') && name != ".." && name != ".";
        number(&is_plain.then(|| self.sys.join("class/block").join(name))?)
    }

    /// Returns the device of exactly this size, bytes, if there is exactly one.
    #[must_use]
    pub(crate) fn only_one_of(&self, bytes: u64) -> Option<Number> {
        let all = std::fs::read_dir(self.sys.join("class/block")).ok()?;
        let dirs = all.filter_map(|entry| Some(entry.ok()?.path()));
        let mut fitting = dirs.filter(|dir| size(dir) == Some(bytes));
        let only = fitting.next().filter(|_| fitting.next().is_none())?;
        number(&only)
    }

    fn dir(&self, number: Number) -> Option<PathBuf> {
        let Number { major, minor } = number;
        self.sys.join(format!("dev/block/{major}:{minor}")).canonicalize().ok()
    }

    fn follow(&self, number: Number, depth: u32, disks: &mut Vec<Disk>) {
        let Some(dir) = self.dir(number).filter(|_| depth < MAX_DEPTH) else {
            return disks.push(Disk::UNKNOWN);
        };
        // A partition lies in the directory of its disk.
        let disk = match dir.parent() {
            Some(disk) if dir.join("partition").exists() => disk,
            _ => &dir,
        };
        let before = disks.len();
        for below in Self::below(disk) {
            match below {
                Some(below) => self.follow(below, depth + 1, disks),
                None => disks.push(Disk::UNKNOWN),
            }
        }
        if disks.len() == before {
            disks.push(Disk { medium: medium(disk), dir: Some(disk.to_path_buf()) });
        }
    }

    /// Returns the devices on which a disk lies; an unknown one is `None`.
    fn below(disk: &Path) -> Vec<Option<Number>> {
        let slaves = std::fs::read_dir(disk.join("slaves")).into_iter().flatten();
        let mut all: Vec<_> = slaves.map(|entry| number(&entry.ok()?.path())).collect();
        if let Ok(file) = std::fs::read(disk.join("loop/backing_file")) {
            all.push(Number::of_file(Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end()))));
        }
        all
    }
}

fn number(dir: &Path) -> Option<Number> {
    Number::parse(&read_in(dir, "dev").ok()?)
}

fn size(dir: &Path) -> Option<u64> {
    read_in(dir, "size").ok()?.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// Returns the medium of a disk without any below it.
fn medium(disk: &Path) -> Medium {
    if disk.file_name().is_some_and(|name| name.as_bytes().starts_with(b"zram")) {
        return Medium::Zram;
    }
    let rotational = read_in(disk, "queue/rotational").ok();
    match rotational.as_deref().map(str::trim) {
        // No driver says so by default: it was reported by the disk, or set by the administrator.
        Some("0") => Medium::Solid,
        Some("1") if !is_default(disk) => Medium::Rotating,
        _ => Medium::Disk,
    }
}

/// Returns whether `rotational` of a disk is 1 for want of better knowledge.
fn is_default(disk: &Path) -> bool {
    let mut parts = disk.iter().map(OsStrExt::as_bytes);
    if parts.clone().any(|part| VIRTUAL_BUSES.iter().any(|bus| part.starts_with(bus)))
        // Network disks and the like.
        || parts.any(|part| part == b"virtual")
    {
        return true;
    }
    let device = disk.join("device");
    // The rotation rate of SBC-3, 0 where the disk doesn't report any.
    if std::fs::read(device.join("vpd_pgb1")).is_ok_and(|page| page.get(4..6) == Some(&[0, 0])) {
        return true;
    }
    let names = ["vendor", "model"].map(|file| std::fs::read(device.join(file)).map(text_of));
    names.iter().flatten().any(|name| VIRTUAL_MODELS.iter().any(|model| name.contains(model)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sysfs of the tests' own.
    pub(crate) struct Sysfs(tempfile::TempDir);

    impl Sysfs {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(crate) fn devices(&self) -> BlockDevices {
            BlockDevices::in_sysfs(&self.0.path().canonicalize().unwrap())
        }

        /// Adds a device in a directory below `devices`, of so many bytes.
        pub(crate) fn add(&self, dir: &str, number: &str, bytes: u64) -> PathBuf {
            let sys = self.0.path().canonicalize().unwrap();
            let dir = sys.join("devices").join(dir);
            for folder in [&dir, &sys.join("dev/block"), &sys.join("class/block")] {
                std::fs::create_dir_all(folder).unwrap();
            }
            std::fs::write(dir.join("dev"), format!("{number}\n")).unwrap();
            std::fs::write(dir.join("size"), format!("{}\n", bytes / SECTOR)).unwrap();
            std::os::unix::fs::symlink(&dir, sys.join("dev/block").join(number)).unwrap();
            std::os::unix::fs::symlink(&dir, sys.join("class/block").join(dir.file_name().unwrap())).unwrap();
            dir
        }

        /// Adds a disk with this `rotational`.
        pub(crate) fn disk(&self, dir: &str, number: &str, rotational: &str) -> PathBuf {
            let dir = self.add(dir, number, 1 << 30);
            std::fs::create_dir_all(dir.join("queue")).unwrap();
            std::fs::write(dir.join("queue/rotational"), rotational).unwrap();
            dir
        }
    }

    fn on(dir: &Path, slave: &Path) {
        std::fs::create_dir_all(dir.join("slaves")).unwrap();
        std::os::unix::fs::symlink(slave, dir.join("slaves").join(slave.file_name().unwrap())).unwrap();
    }

    fn media(devices: &BlockDevices, number: &str) -> Vec<Medium> {
        devices.disks(Number::parse(number).unwrap()).iter().map(|disk| disk.medium).collect()
    }

    #[test]
    fn a_virtual_disk_says_nothing_of_its_speed() {
        let sysfs = Sysfs::new();
        sysfs.disk("pci0/virtio2/block/vda", "254:0", "1\n");
        sysfs.disk("pci0/virtio3/block/vdb", "254:16", "0\n");
        sysfs.disk("vbd-51712/block/xvda", "202:0", "1\n");
        sysfs.disk("virtual/block/nbd0", "43:0", "1\n");
        sysfs.disk("pci0/ata1/block/sda", "8:0", "1\n");
        let emulated = sysfs.disk("pci0/ata2/block/sdb", "8:16", "1\n");
        std::fs::create_dir(emulated.join("device")).unwrap();
        std::fs::write(emulated.join("device/model"), "QEMU HARDDISK   \n").unwrap();
        let silent = sysfs.disk("pci0/host1/block/sdc", "8:32", "1\n");
        std::fs::create_dir(silent.join("device")).unwrap();
        std::fs::write(silent.join("device/vpd_pgb1"), [0, 0xb1, 0, 0x3c, 0, 0, 0, 0]).unwrap();
        std::fs::write(silent.join("device/vendor"), b"\xff\xfe\n").unwrap();
        sysfs.add("pci0/host2/block/sdd", "8:48", 1 << 30);
        let devices = sysfs.devices();
        for (number, medium) in [
            ("254:0", Medium::Disk),
            ("254:16", Medium::Solid),
            ("202:0", Medium::Disk),
            ("43:0", Medium::Disk),
            ("8:0", Medium::Rotating),
            ("8:16", Medium::Disk),
            ("8:32", Medium::Disk),
            ("8:48", Medium::Disk),
            ("9:9", Medium::Unknown),
        ] {
            assert_eq!(media(&devices, number), [medium], "{number}");
        }
    }

    #[test]
    fn partitions_and_mapped_devices_lead_to_their_disks() {
        let sysfs = Sysfs::new();
        let rotating = sysfs.disk("pci0/ata1/block/sda", "8:0", "1\n");
        let partition = sysfs.add("pci0/ata1/block/sda/sda2", "8:2", 1 << 20);
        std::fs::write(partition.join("partition"), "2\n").unwrap();
        let solid = sysfs.disk("pci0/nvme0/nvme0n1", "259:0", "0\n");
        // LUKS on LVM on two disks; the mapped devices themselves say 1, and 0.
        let volume = sysfs.disk("virtual/block/dm-0", "253:0", "1\n");
        on(&volume, &partition);
        on(&volume, &solid);
        let crypt = sysfs.disk("virtual/block/dm-1", "253:1", "0\n");
        on(&crypt, &volume);
        let gone = sysfs.disk("virtual/block/dm-2", "253:2", "0\n");
        on(&gone, Path::new("/nowhere"));
        let zram = sysfs.disk("virtual/block/zram0", "252:0", "0\n");
        let mapped = sysfs.disk("virtual/block/dm-3", "253:3", "0\n");
        on(&mapped, &zram);
        let circle = sysfs.disk("virtual/block/dm-4", "253:4", "0\n");
        on(&circle, &circle);
        let devices = sysfs.devices();
        let disk = Disk { medium: Medium::Rotating, dir: Some(rotating) };
        assert_eq!(devices.disks(Number::parse("8:2").unwrap()), [disk]);
        let mut below = media(&devices, "253:1");
        below.sort_unstable();
        assert_eq!(below, [Medium::Solid, Medium::Rotating]);
        assert_eq!(media(&devices, "253:2"), [Medium::Unknown]);
        let disk = Disk { medium: Medium::Zram, dir: Some(zram) };
        assert_eq!(devices.disks(Number::parse("253:3").unwrap()), [disk]);
        assert_eq!(media(&devices, "253:4"), [Medium::Unknown]);
    }

    #[test]
    fn devices_are_found_by_name_and_by_size() {
        let sysfs = Sysfs::new();
        sysfs.add("virtual/block/zram0", "252:0", 5 << 20);
        sysfs.add("virtual/block/zram1", "252:1", 6 << 20);
        sysfs.add("virtual/block/zram2", "252:2", 6 << 20);
        let devices = sysfs.devices();
        let found = devices.named("zram1".as_ref()).unwrap();
        assert_eq!((found, devices.size(found)), (Number::parse("252:1\n").unwrap(), Some(6 << 20)));
        for odd in ["zram9", "..", "../block/zram1", ""] {
            assert_eq!(devices.named(odd.as_ref()), None, "{odd}");
        }
        assert_eq!(devices.only_one_of(5 << 20), Number::parse("252:0"));
        assert_eq!((devices.only_one_of(6 << 20), devices.only_one_of(1)), (None, None));
    }
}
