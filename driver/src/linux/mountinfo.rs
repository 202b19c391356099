//! The mount table, as `/proc/self/mountinfo` tells it (proc(5)).

use crate::host::{MountEntry, MountSource};
use crate::units::{Access, DevicePath, HostPath};

/// Every mount whose mount point is a plain path, with its number, oldest first.
pub(super) fn parse(text: &str) -> Vec<(u64, MountEntry)> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(u64, MountEntry)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (number, _parent, device) = (left.next()?.parse().ok()?, left.next()?, left.next()?);
    let root = unescape(left.next()?);
    let target = HostPath::parse(&unescape(left.next()?)).ok()?;
    let options = left.next()?;
    let mut right = right.split(' ');
    let fs = right.next()?;
    let source = unescape(right.next()?);
    let superblock = right.next().unwrap_or_default();
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let flags = options.split(',').chain(superblock.split(','));
    let mut flags: Vec<String> = flags
        .filter(|flag| !matches!(*flag, "ro" | "rw" | ""))
        .map(str::to_owned)
        .collect();
    flags.dedup();
    let entry = MountEntry {
        source: behind(fs, device, &root, source),
        root,
        target,
        fs: fs.to_owned(),
        flags,
        access: Access::from_readonly(is_read_only(options) || is_read_only(superblock)),
    };
    Some((number, entry))
}

/// A bind of a device node shows the file system that holds the node, with the node as its root.
fn behind(fs: &str, number: &str, root: &str, source: String) -> MountSource {
    // So it is written when the node is gone.
    let root = root.trim_end_matches("//deleted");
    if matches!(fs, "devtmpfs" | "tmpfs") && ["/loop", "/dm-", "/vd"].iter().any(|name| root.starts_with(name)) {
        return MountSource::Device(DevicePath::new(format!("/dev{root}")));
    }
    if source.starts_with("/dev/") {
        return MountSource::FileSystem(DevicePath::new(source));
    }
    // Without the number any two of them would be the same.
    MountSource::Other(format!("{fs} {number}"))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(u8::is_ascii_digit));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::host::MountSource;
    use crate::units::Access;

    #[test]
    fn a_table_is_read_with_its_escapes_and_bound_devices() {
        let table = "36 35 7:3 / /var/lib/kubelet/a\\040b rw,noatime shared:1 - xfs /dev/loop3 rw,attr2\n\
                     37 35 0:6 /loop4 /var/lib/kubelet/dev rw - devtmpfs udev rw\n\
                     38 35 0:22 / /run ro,nosuid - tmpfs tmpfs rw\n\
                     nonsense\n";
        let (numbers, entries): (Vec<_>, Vec<_>) = parse(table).into_iter().unzip();
        assert_eq!(numbers, [36, 37, 38]);
        assert_eq!(entries[0].target.as_str(), "/var/lib/kubelet/a b");
        assert_eq!(entries[0].source, MountSource::FileSystem("/dev/loop3".into()));
        assert_eq!(entries[0].flags, ["noatime", "attr2"]);
        assert_eq!(entries[1].source, MountSource::Device("/dev/loop4".into()));
        assert_eq!(entries[2].source, MountSource::Other("tmpfs 0:22".to_owned()));
        assert_eq!(entries[2].access, Access::ReadOnly);
    }

    #[test]
    fn directories_of_one_file_system_are_two_things_and_a_bind_of_one_is_the_same() {
        let table = "40 35 254:0 /vol/a /stage/a rw - ext4 /dev/vda rw\n\
                     41 35 254:0 /vol/b /stage/b rw - ext4 /dev/vda rw\n\
                     42 35 254:0 /vol/a /pod/a rw - ext4 /dev/vda rw\n\
                     43 35 7:3 / /stage/c rw - xfs /dev/loop3 rw\n\
                     44 35 0:50 / /pod/d rw - tmpfs tmpfs rw\n\
                     45 35 0:51 / /pod/e rw - tmpfs tmpfs rw\n";
        let shown: Vec<String> = parse(table).iter().map(|(_, entry)| entry.shown()).collect();
        assert_eq!(shown[0], "/dev/vda[/vol/a]");
        assert_ne!(shown[0], shown[1]);
        assert_eq!(shown[0], shown[2]);
        assert_eq!(shown[3], "/dev/loop3");
        assert_ne!(shown[4], shown[5]);
    }
}
