//! One volume of the storage system: its size, its content and the nodes that may reach it.
//!
//! An encrypted volume keeps what lies behind its layer as plain data; whoever looks without the layer is shown ciphertext.
//!
//! Blind spots: a volume carries one file system or raw blocks; writing raw blocks below a file system damages it.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_driver::host::{LAYER_HEADER, Probe};
use wavetank_driver::pool::{PoolVolume, Source};
use wavetank_driver::{Access, Bytes, Key, NodeId, PublishContext, VolumeId};

use super::cell::{BLOCK, Cell, Found};
use super::errno::Errno;
use super::filesystem::{FsImage, ROOT};

/// What a volume holds. Copies share it until one of them is written.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The file system on it.
    pub fs: Option<FsImage>,
    /// Blocks written to the bare device, by number.
    pub raw: BTreeMap<u64, Cell>,
    /// A signature that is nobody's here (`LVM2_member`, `gpt`).
    pub foreign: Option<String>,
    /// The encryption layer behind which everything above lies: whoever reads the volume without it finds ciphertext.
    pub layer: Option<Layer>,
}

/// The header of an encryption layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its UUID, as text.
    pub uuid: String,
    /// By what its key is known again.
    check: [u8; 32],
}

impl Layer {
    /// A new layer that `key` opens.
    pub(super) fn new(uuid: &str, key: &Key) -> Layer {
        let mut hasher = blake3::Hasher::new_derive_key("wavetank modelled machine: the key of a layer");
        hasher.update(uuid.as_bytes()).update(key.bytes());
        Layer {
            uuid: uuid.to_owned(),
            check: *hasher.finalize().as_bytes(),
        }
    }

    /// Does the key open it?
    pub(super) fn opens_with(&self, key: &Key) -> bool {
        Layer::new(&self.uuid, key) == *self
    }

    /// What a reader without the layer finds where `cell` lies.
    fn ciphertext(&self, found: &Found) -> Found {
        let mut hasher = blake3::Hasher::new_keyed(&self.check);
        hasher.update(found.file.as_bytes()).update(&found.block.to_le_bytes());
        hasher.update(&found.cell.bytes());
        Found {
            file: "".into(),
            block: found.block,
            cell: Cell::Bytes(hasher.finalize().as_bytes()[..].into()),
        }
    }
}

/// How one looks at a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// At the bytes that the storage system keeps.
    Bare,
    /// Through its encryption layer.
    Layer,
}

impl Content {
    fn probe(&self, through: Through) -> Probe {
        if let (Through::Bare, Some(layer)) = (through, &self.layer) {
            let uuid = layer.uuid.clone();
            return Probe::Encrypted { uuid };
        }
        if let Some(name) = &self.foreign {
            return Probe::Foreign(name.clone());
        }
        match &self.fs {
            Some(fs) => Probe::FileSystem {
                kind: fs.kind,
                size: fs.size,
                uuid: fs.uuid.clone(),
                label: fs.label.clone(),
            },
            None if self.raw.is_empty() => Probe::Blank,
            None => Probe::Foreign("data".to_owned()),
        }
    }

    fn write(&mut self, through: Through, block: u64, cell: Cell) {
        if self.layer.is_some() && through == Through::Bare {
            // The header is gone, and with it every way to what lies behind it.
            *self = Content::default();
        }
        // The superblock lies in the first block; what else a block belongs to is not modelled, so any other write is damage.
        match &mut self.fs {
            Some(_) if block == 0 => self.fs = None,
            Some(fs) => fs.damaged = true,
            None => {}
        }
        self.raw.insert(block, cell);
    }
}

/// How one node reaches a volume.
#[derive(Clone, Debug)]
pub(super) struct Export {
    pub access: Access,
    /// Different for every time the volume was exported: a device of an earlier time is dead.
    pub generation: u64,
    pub context: PublishContext,
    /// The node's machine has a device for it.
    pub in_use: bool,
}

/// What the header of a layer takes.
pub(super) fn header(encrypted: bool) -> Bytes {
    if encrypted { LAYER_HEADER } else { Bytes(0) }
}

/// A volume of the storage system.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub size: Bytes,
    /// The size it was made with.
    pub made: Bytes,
    pub place: usize,
    pub source: Option<Source>,
    /// Room for the header of an encryption layer lies in front.
    pub encrypted: bool,
    pub settings: BTreeMap<String, String>,
    pub exports: BTreeMap<NodeId, Export>,
    pub content: Arc<Content>,
    pub trouble: String,
    pub unreadable: bool,
    /// A file system was made on it just now, and whether there was something before.
    pub formatted: Option<bool>,
}

impl Volume {
    /// What a signature scan finds. Not readable: an error, never blank.
    pub(super) fn probe(&self, through: Through) -> Result<Probe, Errno> {
        if self.unreadable || !self.can_be_seen(through) {
            return Err(Errno::Io);
        }
        Ok(self.content.probe(through))
    }

    /// A mapping whose header was overwritten leads nowhere.
    fn can_be_seen(&self, through: Through) -> bool {
        through == Through::Bare || self.content.layer.is_some()
    }

    /// Its size as a machine sees it that looks at the bare volume.
    pub(super) fn bare_size(&self) -> Bytes {
        Bytes(self.size.0 + header(self.encrypted).0)
    }

    /// The file system that one finds.
    pub(super) fn fs_through(&self, through: Through) -> Result<&FsImage, Errno> {
        if through == Through::Bare && self.content.layer.is_some() {
            return Err(Errno::Invalid);
        }
        self.fs()
    }

    /// The file system on it.
    pub(super) fn fs(&self) -> Result<&FsImage, Errno> {
        if self.unreadable {
            return Err(Errno::Io);
        }
        self.content.fs.as_ref().ok_or(Errno::Invalid)
    }

    /// The file system on it, to be changed. Copies are left as they are.
    pub(super) fn fs_mut(&mut self) -> Result<&mut FsImage, Errno> {
        if self.unreadable {
            return Err(Errno::Io);
        }
        Arc::make_mut(&mut self.content).fs.as_mut().ok_or(Errno::Io)
    }

    /// Puts a file system on it.
    pub(super) fn format(&mut self, image: FsImage) {
        let through = match self.content.layer {
            Some(_) => Through::Layer,
            None => Through::Bare,
        };
        self.formatted = Some(self.content.probe(through) != Probe::Blank);
        Arc::make_mut(&mut self.content).fs = Some(image);
    }

    /// Writes one block of the bare device.
    pub(super) fn write(&mut self, through: Through, block: u64, cell: Cell) -> Result<(), Errno> {
        if self.unreadable || !self.can_be_seen(through) {
            return Err(Errno::Io);
        }
        if block.saturating_add(1).saturating_mul(BLOCK) > self.size.0 {
            return Err(Errno::NoSpace);
        }
        Arc::make_mut(&mut self.content).write(through, block, cell);
        Ok(())
    }

    /// The content for a copy as it is now: nobody has mounted that.
    pub(super) fn copy(&self) -> Arc<Content> {
        if self.content.fs.as_ref().is_none_or(|fs| fs.owner.is_none()) {
            return Arc::clone(&self.content);
        }
        let mut copy = Content::clone(&self.content);
        if let Some(fs) = &mut copy.fs {
            fs.owner = None;
        }
        Arc::new(copy)
    }

    /// Puts the header of a layer on it, which is blank behind it.
    pub(super) fn encrypt(&mut self, layer: Layer) {
        // The layer alone is no file system: one is made behind it.
        self.formatted = (self.content.probe(Through::Bare) != Probe::Blank).then_some(true);
        Arc::make_mut(&mut self.content).layer = Some(layer);
    }

    /// Every block ever written that is still there.
    pub(super) fn found(&self, through: Through) -> Vec<Found> {
        let plain = self.plain();
        match (through, &self.content.layer) {
            (Through::Bare, Some(layer)) => plain.iter().map(|found| layer.ciphertext(found)).collect(),
            _ => plain,
        }
    }

    fn plain(&self) -> Vec<Found> {
        let raw = self.content.raw.iter().map(|(block, cell)| Found {
            file: "".into(),
            block: *block,
            cell: cell.clone(),
        });
        let files = self.content.fs.as_ref().map(|fs| fs.blocks_below(ROOT));
        raw.chain(files.unwrap_or_default()).collect()
    }

    /// As the pool shows it.
    pub(super) fn shown(&self, id: &VolumeId, segments: &wavetank_driver::Segments) -> PoolVolume {
        PoolVolume {
            id: id.clone(),
            size: self.size,
            segments: segments.clone(),
            source: self.source.clone(),
            encrypted: self.encrypted,
            exports: self.exports.iter().map(|(n, e)| (n.clone(), e.access)).collect(),
            trouble: self.trouble.clone(),
        }
    }
}
