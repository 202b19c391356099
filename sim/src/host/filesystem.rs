//! A file system as it lies on a device: directories, files of 4 KiB blocks, room, and whether it is sound.
//!
//! The same type serves as what a machine sees of a mounted file system (see [`super::cache`]). Numbers of inodes are never used again.
//!
//! Blind spots: no owners and modes except the group of the whole, no hard links, renames or quotas; directories and inodes take no blocks; what mkfs itself takes is a fixed share.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_driver::units::FsKind;
use wavetank_driver::{Bytes, DevicePath};

use super::cell::{BLOCK, Cell, Found};
use super::errno::Errno;

/// The number of an inode.
pub(super) type Ino = u64;

/// The root directory.
pub(super) const ROOT: Ino = 2;

/// A file system on a device, or in memory as its machine sees it.
#[derive(Clone, Debug)]
pub struct FsImage {
    /// Which.
    pub kind: FsKind,
    /// Its UUID, as text.
    pub uuid: String,
    /// Its label.
    pub label: String,
    /// Its own size by its superblock.
    pub size: Bytes,
    /// Several machines may write to it at once: a cluster file system, which the storage system itself makes.
    pub shared: bool,
    /// Damaged beyond what a check mends: two machines wrote to it at once, or somebody wrote below it.
    pub damaged: bool,
    /// It was not unmounted properly: its journal must be replayed.
    pub unclean: bool,
    /// The group to which everything in it was given.
    pub group: Option<u32>,
    /// The mount that may write to it.
    pub(super) owner: Option<u64>,
    inodes: BTreeMap<Ino, Inode>,
    next: Ino,
    used_blocks: u64,
}

#[derive(Clone, Debug)]
struct Inode {
    parent: Ino,
    name: Arc<str>,
    node: Node,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A directory.
    Dir(BTreeMap<Arc<str>, Ino>),
    /// A regular file.
    File(Arc<FileData>),
    /// A symbolic link.
    Link(Arc<str>),
    /// A block device.
    Device(DevicePath),
}

impl Node {
    /// An empty directory.
    pub(super) fn dir() -> Node {
        Node::Dir(BTreeMap::new())
    }

    /// An empty file.
    pub(super) fn file() -> Node {
        Node::File(Arc::default())
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileData {
    len: u64,
    blocks: BTreeMap<u64, Cell>,
}

impl FsImage {
    /// A new file system that fills a device of `size`.
    ///
    /// # Errors
    /// `NoSpace` if the device is too small for its kind.
    pub(super) fn make(kind: FsKind, label: &str, uuid: &str, size: Bytes) -> Result<FsImage, Errno> {
        if size < smallest(kind) {
            return Err(Errno::NoSpace);
        }
        let root = Inode {
            parent: ROOT,
            name: Arc::from("/"),
            node: Node::dir(),
        };
        Ok(FsImage {
            kind,
            uuid: uuid.to_owned(),
            label: label.to_owned(),
            size,
            shared: false,
            damaged: false,
            unclean: false,
            group: None,
            owner: None,
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            used_blocks: 0,
        })
    }

    /// Blocks that files may take.
    fn capacity_blocks(&self) -> u64 {
        (self.size.0 - overhead(self.kind, self.size.0)) / BLOCK
    }

    /// Bytes that files may take, and how many they do.
    pub fn room(&self) -> (Bytes, Bytes) {
        (Bytes(self.capacity_blocks() * BLOCK), Bytes(self.used_blocks * BLOCK))
    }

    /// Inodes altogether (0: not counted), and in use.
    pub fn inode_counts(&self) -> (u64, u64) {
        let total = match self.kind {
            FsKind::Ext4 => self.size.0 / 16384,
            FsKind::Xfs => self.size.0 / 2048,
            FsKind::Btrfs => 0,
        };
        (total, self.inodes.len() as u64)
    }

    /// Fills a device that has grown to `size`. Never shrinks.
    pub(super) fn grow(&mut self, size: Bytes) {
        self.size = self.size.max(size);
    }

    pub(super) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.inodes.get(&ino).map(|inode| &inode.node).ok_or(Errno::Missing)
    }

    /// The entry `name` of a directory.
    pub(super) fn lookup(&self, dir: Ino, name: &str) -> Result<Ino, Errno> {
        match self.node(dir)? {
            Node::Dir(entries) => entries.get(name).copied().ok_or(Errno::Missing),
            Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::NotDirectory),
        }
    }

    /// The path of an inode within this file system.
    pub(super) fn path(&self, ino: Ino) -> String {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT
            && let Some(inode) = self.inodes.get(&at)
        {
            names.push(&*inode.name);
            at = inode.parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    fn entries_mut(&mut self, dir: Ino) -> Result<&mut BTreeMap<Arc<str>, Ino>, Errno> {
        match self.inodes.get_mut(&dir).map(|inode| &mut inode.node) {
            Some(Node::Dir(entries)) => Ok(entries),
            Some(Node::File(_) | Node::Link(_) | Node::Device(_)) => Err(Errno::NotDirectory),
            None => Err(Errno::Missing),
        }
    }

    /// Makes an entry in a directory.
    pub(super) fn add(&mut self, dir: Ino, name: &str, node: Node) -> Result<Ino, Errno> {
        let (total, used) = self.inode_counts();
        let name: Arc<str> = name.into();
        let ino = self.next;
        let entries = self.entries_mut(dir)?;
        if entries.contains_key(&name) {
            return Err(Errno::Exists);
        }
        if total > 0 && used >= total {
            return Err(Errno::NoSpace);
        }
        entries.insert(Arc::clone(&name), ino);
        self.inodes.insert(
            ino,
            Inode {
                parent: dir,
                name,
                node,
            },
        );
        self.next += 1;
        Ok(ino)
    }

    /// Removes an entry; of a directory only if it is empty.
    pub(super) fn remove(&mut self, dir: Ino, name: &str) -> Result<(), Errno> {
        let ino = self.lookup(dir, name)?;
        if let Node::Dir(entries) = self.node(ino)?
            && !entries.is_empty()
        {
            return Err(Errno::NotEmpty);
        }
        self.entries_mut(dir)?.remove(name);
        if let Some(Inode {
            node: Node::File(data), ..
        }) = self.inodes.remove(&ino)
        {
            self.used_blocks -= data.blocks.len() as u64;
        }
        Ok(())
    }

    fn file(&self, ino: Ino) -> Result<&FileData, Errno> {
        match self.node(ino)? {
            Node::File(data) => Ok(data),
            Node::Dir(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Invalid),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut FileData, Errno> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.node) {
            Some(Node::File(data)) => Ok(Arc::make_mut(data)),
            Some(Node::Dir(_) | Node::Link(_) | Node::Device(_)) => Err(Errno::Invalid),
            None => Err(Errno::Missing),
        }
    }

    /// The length of a file in bytes.
    pub(super) fn len(&self, ino: Ino) -> Result<u64, Errno> {
        Ok(self.file(ino)?.len)
    }

    /// Empties a file.
    pub(super) fn truncate(&mut self, ino: Ino) -> Result<(), Errno> {
        let data = self.file_mut(ino)?;
        data.len = 0;
        let freed = std::mem::take(&mut data.blocks).len() as u64;
        self.used_blocks -= freed;
        Ok(())
    }

    /// Writes one block of a file, which then is at least `end` bytes long.
    pub(super) fn write(&mut self, ino: Ino, block: u64, cell: Cell, end: u64) -> Result<(), Errno> {
        let full = self.used_blocks >= self.capacity_blocks();
        let data = self.file_mut(ino)?;
        let fresh = !data.blocks.contains_key(&block);
        if fresh && full {
            return Err(Errno::NoSpace);
        }
        data.blocks.insert(block, cell);
        data.len = data.len.max(end);
        self.used_blocks += u64::from(fresh);
        Ok(())
    }

    /// The bytes of a file.
    pub(super) fn read_bytes(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        let data = self.file(ino)?;
        let len = usize::try_from(data.len).map_err(|_| Errno::Invalid)?;
        let mut bytes = Vec::new();
        for (block, cell) in &data.blocks {
            bytes.resize((*block * BLOCK) as usize, 0);
            bytes.extend(cell.bytes());
        }
        bytes.resize(len, 0);
        Ok(bytes)
    }

    /// Every file, directory and link below a directory, with what its entry says of it.
    pub(super) fn names_below(&self, ino: Ino) -> Vec<String> {
        let Ok(Node::Dir(entries)) = self.node(ino) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for (name, child) in entries {
            names.push(match self.node(*child) {
                Ok(Node::Dir(_)) => format!("{child} {name}/"),
                Ok(Node::File(data)) => format!("{child} {name} {}", data.len),
                Ok(Node::Link(to)) => format!("{child} {name} -> {to}"),
                Ok(Node::Device(device)) => format!("{child} {name} {device}"),
                Err(_) => format!("{child} {name}?"),
            });
            names.extend(self.names_below(*child));
        }
        names
    }

    /// Every block of every file below a directory, or of one file.
    pub(super) fn blocks_below(&self, ino: Ino) -> Vec<Found> {
        let mut found = Vec::new();
        self.collect(ino, "", &mut found);
        found
    }

    fn collect(&self, ino: Ino, path: &str, found: &mut Vec<Found>) {
        match self.node(ino) {
            Ok(Node::Dir(entries)) => {
                for (name, child) in entries {
                    let path = if path.is_empty() {
                        name.to_string()
                    } else {
                        format!("{path}/{name}")
                    };
                    self.collect(*child, &path, found);
                }
            }
            Ok(Node::File(data)) => {
                let file: Arc<str> = path.into();
                found.extend(data.blocks.iter().map(|(block, cell)| Found {
                    file: Arc::clone(&file),
                    block: *block,
                    cell: cell.clone(),
                }));
            }
            Ok(Node::Link(_) | Node::Device(_)) | Err(_) => {}
        }
    }
}

/// The smallest device on which mkfs makes such a file system, as mke2fs, xfsprogs and btrfs-progs of today do.
fn smallest(kind: FsKind) -> Bytes {
    match kind {
        FsKind::Ext4 => Bytes(256 << 10),
        FsKind::Xfs => Bytes::mi(300),
        FsKind::Btrfs => Bytes::mi(109),
    }
}

/// What inode tables, journal and the like take of a device.
fn overhead(kind: FsKind, size: u64) -> u64 {
    match kind {
        FsKind::Ext4 => size / 32,
        FsKind::Xfs => size / 50,
        FsKind::Btrfs => size / 16,
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Errno, FsImage, Node, ROOT};
    use wavetank_driver::Bytes;
    use wavetank_driver::units::FsKind;

    fn image(size: Bytes) -> FsImage {
        FsImage::make(FsKind::Ext4, "", "uuid", size).unwrap()
    }

    fn bytes(text: &str) -> Cell {
        Cell::Bytes(text.as_bytes().into())
    }

    #[test]
    fn a_full_file_system_says_so_and_has_room_after_it_grew() {
        let mut fs = image(Bytes::MI);
        let file = fs.add(ROOT, "data", Node::file()).unwrap();
        let (total, _) = fs.room();
        let blocks = total.0 / 4096;
        for block in 0..blocks {
            fs.write(file, block, bytes("x"), 1).unwrap();
        }
        assert_eq!(fs.write(file, blocks, bytes("x"), 1), Err(Errno::NoSpace));
        fs.write(file, 0, bytes("over"), 1).expect("overwriting takes no room");
        fs.grow(Bytes::mi(2));
        fs.write(file, blocks, bytes("x"), 1).expect("growth gives room");
        fs.grow(Bytes::MI);
        assert_eq!(fs.size, Bytes::mi(2), "growing never shrinks");
    }

    #[test]
    fn removing_and_truncating_give_the_room_back() {
        let mut fs = image(Bytes::MI);
        let file = fs.add(ROOT, "data", Node::file()).unwrap();
        fs.write(file, 7, bytes("x"), 8).unwrap();
        assert_eq!(fs.room().1, Bytes(4096), "a sparse file takes what it holds");
        fs.truncate(file).unwrap();
        assert_eq!((fs.room().1, fs.len(file).unwrap()), (Bytes(0), 0));
        fs.write(file, 0, bytes("x"), 1).unwrap();
        fs.remove(ROOT, "data").unwrap();
        assert_eq!(fs.room().1, Bytes(0));
    }

    #[test]
    fn directories_are_removed_only_empty_and_know_their_path() {
        let mut fs = image(Bytes::MI);
        let a = fs.add(ROOT, "a", Node::dir()).unwrap();
        let b = fs.add(a, "b", Node::dir()).unwrap();
        assert_eq!(fs.path(b), "/a/b");
        assert_eq!(fs.path(ROOT), "/");
        assert_eq!(fs.remove(ROOT, "a"), Err(Errno::NotEmpty));
        assert_eq!(fs.add(a, "b", Node::file()), Err(Errno::Exists));
        fs.remove(a, "b").unwrap();
        fs.remove(ROOT, "a").unwrap();
        assert_eq!(fs.lookup(ROOT, "a"), Err(Errno::Missing));
    }

    #[test]
    fn a_clone_is_independent_of_its_source() {
        let mut source = image(Bytes::MI);
        let file = source.add(ROOT, "data", Node::file()).unwrap();
        source.write(file, 0, bytes("old"), 3).unwrap();
        let clone = source.clone();
        source.write(file, 0, bytes("new"), 3).unwrap();
        assert_eq!(clone.read_bytes(file).unwrap(), b"old");
        assert_eq!(source.read_bytes(file).unwrap(), b"new");
    }

    #[test]
    fn devices_too_small_for_their_kind_are_refused() {
        assert!(FsImage::make(FsKind::Xfs, "", "u", Bytes::mi(299)).is_err());
        assert!(FsImage::make(FsKind::Btrfs, "", "u", Bytes::mi(100)).is_err());
        assert!(FsImage::make(FsKind::Ext4, "", "u", Bytes::MI).is_ok());
    }
}
