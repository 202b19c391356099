//! The storage system: the volumes of one driver, where they are, who may reach them, and how much room is left.
//!
//! It is another machine, so it survives every crash of processes and nodes, and what it has answered is durable. Copies and snapshots share
//! blocks with their source until written. A node reaches a volume only while it is exported to it: what a node sends after it was cut off never
//! arrives, not even when the volume is exported to it again (see [`super::volume`]).
//!
//! Blind spots: thin and thick volumes are both promised their whole size, so a thin pool never runs full under its users (give
//! [`PlaceShape::overcommit_percent`] to promise more than there is); snapshots and shared blocks take no room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use wavetank_driver::pool::{Capacity, Extent, NewSnapshot, NewVolume, PoolSnapshot, PoolVolume, Source};
use wavetank_driver::{
    Access, Bytes, NodeId, PoolError, PoolErrorKind, PoolResult, PublishContext, Segments, SnapshotId, VolumeId,
};

use super::cell::Found;
use super::deed::Deed;
use super::errno::Errno;
use super::extents;
use super::filesystem::FsImage;
use super::volume::{Content, Export, Through, Volume, header};

/// A part of the storage system: what lies together and is reached from the same places.
#[derive(Clone, Debug)]
pub struct PlaceShape {
    /// Where it can be reached from; empty: everywhere.
    pub segments: Segments,
    /// The storage types that it has; empty: all.
    pub kinds: BTreeSet<String>,
    /// Its room.
    pub room: Bytes,
    /// How much of its room it promises, in percent. 100: never more than there is.
    pub overcommit_percent: u64,
}

impl PlaceShape {
    /// A place of `room`, reached from everywhere that `segments` name.
    pub fn new(segments: Segments, room: Bytes) -> PlaceShape {
        PlaceShape {
            segments,
            kinds: BTreeSet::new(),
            room,
            overcommit_percent: 100,
        }
    }
}

/// What a storage system is like.
#[derive(Clone, Debug)]
pub struct StorageShape {
    /// Its parts.
    pub places: Vec<PlaceShape>,
    /// The largest volume it makes.
    pub largest: Bytes,
    /// A flaw to be found by an oracle: a new volume shows what a deleted one left in its place.
    pub forgets_to_discard: bool,
}

impl StorageShape {
    /// One place, reached from everywhere, of `room`.
    pub fn everywhere(room: Bytes) -> StorageShape {
        StorageShape {
            places: vec![PlaceShape::new(Segments::new(), room)],
            largest: Bytes(i64::MAX as u64),
            forgets_to_discard: false,
        }
    }
}

/// What is wrong with a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeTrouble {
    /// Said to whoever asks for its condition; empty: it is sound.
    pub condition: String,
    /// Every reading and writing of it fails.
    pub unreadable: bool,
}

/// What became of the bytes of a volume, beside what was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are in another volume now, too.
    Copied {
        /// The source: the handle of a volume or snapshot.
        source: String,
        /// The handle of the new volume or snapshot.
        copy: String,
    },
    /// A node was cut off while its machine had the device: what it held in memory never arrives.
    CutOff(VolumeId),
    /// They are gone, for ever.
    Deleted(String),
}

/// The storage system behind one driver. A clone is the same one.
#[derive(Clone)]
pub struct Storage(Arc<Mutex<State>>);

struct State {
    places: Vec<Place>,
    largest: Bytes,
    nodes: BTreeMap<NodeId, Reach>,
    volumes: BTreeMap<VolumeId, Volume>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    forgets_to_discard: bool,
    reachable: bool,
    /// It has no room for anything new.
    full: bool,
    /// What it lists while its lists lag.
    listed: Option<Vec<PoolVolume>>,
    /// Counts exports and mounts, so that each has a number of its own.
    generation: u64,
    /// What nobody has taken yet, oldest first.
    fates: Vec<Fate>,
    /// Everything that was done, oldest first.
    deeds: Vec<Deed>,
}

struct Place {
    shape: PlaceShape,
    promised: u64,
    /// What the last deleted volume left.
    scraps: Option<Arc<Content>>,
}

struct Reach {
    segments: Segments,
    slots: Option<usize>,
    volumes: BTreeSet<VolumeId>,
}

struct Snapshot {
    volume: VolumeId,
    size: Bytes,
    cut_at: Duration,
    place: usize,
    encrypted: bool,
    content: Arc<Content>,
}

impl Storage {
    /// An empty storage system.
    pub fn new(shape: StorageShape) -> Storage {
        let place = |shape| Place {
            shape,
            promised: 0,
            scraps: None,
        };
        Storage(Arc::new(Mutex::new(State {
            places: shape.places.into_iter().map(place).collect(),
            largest: shape.largest,
            nodes: BTreeMap::new(),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            forgets_to_discard: shape.forgets_to_discard,
            reachable: true,
            full: false,
            listed: None,
            generation: 0,
            fates: Vec::new(),
            deeds: Vec::new(),
        })))
    }

    /// Makes a node known. At most `slots` volumes are exported to it at once; `None`: any number. A node that is known already moves.
    pub fn add_node(&self, id: NodeId, segments: Segments, slots: Option<usize>) {
        let mut state = self.state();
        let volumes = state.nodes.remove(&id).map(|old| old.volumes).unwrap_or_default();
        let reach = Reach {
            segments,
            slots,
            volumes,
        };
        state.nodes.insert(id, reach);
    }

    /// Forgets a node, and cuts it off from every volume.
    pub fn remove_node(&self, id: &NodeId) {
        let mut state = self.state();
        let reach = state.nodes.remove(id);
        for volume in reach.map(|reach| reach.volumes).unwrap_or_default() {
            state.cut_off(&volume, id);
        }
    }

    /// What became of the bytes of volumes since the last time this was asked, oldest first.
    pub fn take_fates(&self) -> Vec<Fate> {
        std::mem::take(&mut self.state().fates)
    }

    /// What was done to it, without the first `known` deeds. For oracles.
    pub fn deeds_after(&self, known: usize) -> Vec<Deed> {
        self.state()
            .deeds
            .get(known..)
            .map(<[Deed]>::to_vec)
            .unwrap_or_default()
    }

    /// A machine has a device for an export from now on, or has it no longer.
    pub(super) fn set_in_use(&self, id: &VolumeId, node: &NodeId, generation: u64, in_use: bool) {
        let mut state = self.state();
        let export = state.volumes.get_mut(id).and_then(|v| v.exports.get_mut(node));
        if let Some(export) = export.filter(|e| e.generation == generation) {
            export.in_use = in_use;
        }
    }

    /// Switches whether its management can be reached. Reading and writing go on.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().reachable = reachable;
    }

    /// Switches whether it has room for anything new.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Switches whether its lists stay as they are.
    pub fn set_lagging(&self, lagging: bool) {
        let now = lagging.then(|| self.volumes());
        self.state().listed = now;
    }

    /// Breaks a volume, or mends it. There is none of that handle: nothing happens.
    pub fn set_trouble(&self, id: &VolumeId, trouble: VolumeTrouble) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.trouble = trouble.condition;
            volume.unreadable = trouble.unreadable;
        }
    }

    /// Puts another's signature on a volume (`LVM2_member`, `gpt`).
    pub fn sign(&self, id: &VolumeId, name: &str) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            Arc::make_mut(&mut volume.content).foreign = Some(name.to_owned());
        }
    }

    /// Every volume, for oracles.
    pub fn volumes(&self) -> Vec<PoolVolume> {
        let state = self.state();
        state.volumes.iter().map(|(id, v)| state.shown(id, v)).collect()
    }

    /// One volume, for oracles.
    pub fn volume(&self, id: &VolumeId) -> Option<PoolVolume> {
        let state = self.state();
        state.volumes.get(id).map(|volume| state.shown(id, volume))
    }

    /// Every snapshot's handle, for oracles.
    pub fn snapshots(&self) -> Vec<SnapshotId> {
        self.state().snapshots.keys().cloned().collect()
    }

    /// What is on a volume now: every block that reached it, whoever may still hold others in memory; of one behind an encryption layer the
    /// ciphertext. For oracles.
    pub fn contents(&self, id: &VolumeId) -> Option<Vec<Found>> {
        self.state().volumes.get(id).map(|volume| volume.found(Through::Bare))
    }

    /// What was written to a volume, on it or behind its encryption layer, as far as it reached it. For oracles.
    pub fn written(&self, id: &VolumeId) -> Option<Vec<Found>> {
        let state = self.state();
        let volume = state.volumes.get(id)?;
        let through = match volume.content.layer {
            Some(_) => Through::Layer,
            None => Through::Bare,
        };
        Some(volume.found(through))
    }

    /// The file system on a volume, or behind its encryption layer, without what machines hold in memory. For oracles.
    pub fn file_system(&self, id: &VolumeId) -> Option<FsImage> {
        let state = self.state();
        state.volumes.get(id)?.content.fs.clone()
    }

    /// The settings of a volume. For oracles.
    pub fn settings(&self, id: &VolumeId) -> Option<BTreeMap<String, String>> {
        self.state().volumes.get(id).map(|volume| volume.settings.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no operation on the storage system panics")
    }

    /// As a process manages it; refused while it cannot be reached.
    pub(super) fn manage<T>(&self, operation: impl FnOnce(&mut Managed<'_>) -> PoolResult<T>) -> PoolResult<T> {
        let mut state = self.state();
        if !state.reachable {
            return Err(PoolError::new(
                PoolErrorKind::Unavailable,
                "the storage system cannot be reached",
            ));
        }
        operation(&mut Managed(&mut state))
    }

    /// How a node reaches a volume now.
    pub(super) fn export_to(&self, id: &VolumeId, node: &NodeId) -> Option<(Export, Bytes)> {
        let state = self.state();
        let volume = state.volumes.get(id)?;
        Some((volume.exports.get(node)?.clone(), volume.bare_size()))
    }

    /// Reads or writes a volume as a node to which it was exported with that generation. `Io` if that export has ended.
    pub(super) fn reach<T>(
        &self,
        id: &VolumeId,
        node: &NodeId,
        generation: u64,
        io: impl FnOnce(&mut Volume) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.state();
        let volume = state.volumes.get_mut(id).ok_or(Errno::Io)?;
        let alive = volume.exports.get(node).is_some_and(|e| e.generation == generation);
        if !alive {
            return Err(Errno::Io);
        }
        let done = io(volume);
        if let Some(over) = volume.formatted.take() {
            let volume = id.clone();
            state.deeds.push(Deed::Formatted { volume, over });
        }
        done
    }

    /// A number that no other mount of this storage system has.
    pub(super) fn mount_number(&self) -> u64 {
        self.state().next_generation()
    }
}

impl State {
    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Ends a node's way to a volume.
    fn cut_off(&mut self, id: &VolumeId, node: &NodeId) {
        let Some(ended) = self.volumes.get_mut(id).and_then(|v| v.exports.remove(node)) else {
            return;
        };
        let in_use = ended.in_use;
        self.deeds.push(Deed::CutOff {
            volume: id.clone(),
            node: node.clone(),
            in_use,
        });
        if in_use {
            self.fates.push(Fate::CutOff(id.clone()));
        }
    }

    fn shown(&self, id: &VolumeId, volume: &Volume) -> PoolVolume {
        volume.shown(id, &self.places[volume.place].shape.segments)
    }
}

impl Place {
    fn left(&self) -> u64 {
        let promise = u128::from(self.shape.room.0) * u128::from(self.shape.overcommit_percent) / 100;
        u64::try_from(promise).unwrap_or(u64::MAX).saturating_sub(self.promised)
    }

    fn serves(&self, kind: &str, asked: &Segments) -> bool {
        let kinds = &self.shape.kinds;
        (kinds.is_empty() || kinds.contains(kind)) && agree(&self.shape.segments, asked)
    }
}

/// Do two sets of segments name places that overlap: nothing in one contradicts the other?
fn agree(one: &Segments, other: &Segments) -> bool {
    one.iter()
        .all(|(key, value)| other.get(key).is_none_or(|found| found == value))
}

fn refused<T>(kind: PoolErrorKind, text: impl Into<String>) -> PoolResult<T> {
    Err(PoolError::new(kind, text))
}

/// The storage system as its management sees it: one operation at a time, each whole or not at all.
pub(super) struct Managed<'a>(&'a mut State);

impl Managed<'_> {
    pub(super) fn create(&mut self, new: &NewVolume) -> PoolResult<PoolVolume> {
        if let Some(volume) = self.0.volumes.get(&new.id) {
            let same = volume.made == new.size
                && volume.source == new.source
                && agree(&self.0.places[volume.place].shape.segments, &new.segments);
            return if same {
                Ok(self.0.shown(&new.id, volume))
            } else {
                refused(
                    PoolErrorKind::Exists,
                    format!("volume {} is there, and differs", new.id),
                )
            };
        }
        if new.size.0 == 0 || new.size > self.0.largest {
            return refused(PoolErrorKind::OutOfRange, format!("no volume can have {}", new.size));
        }
        let source = self.source(new)?;
        let place = self.choose(new, source.as_ref().map(|(place, _)| *place))?;
        let content = match source {
            Some((_, content)) => content,
            None => self.blank(new, place)?,
        };
        let at = &mut self.0.places[place];
        at.promised += new.size.0 + header(new.encrypted).0;
        let volume = Volume {
            size: new.size,
            made: new.size,
            place,
            source: new.source.clone(),
            encrypted: new.encrypted,
            settings: new.settings.clone(),
            exports: BTreeMap::new(),
            content,
            trouble: String::new(),
            unreadable: false,
            formatted: None,
        };
        let shown = self.0.shown(&new.id, &volume);
        self.0.volumes.insert(new.id.clone(), volume);
        self.0.deeds.push(Deed::Created {
            volume: new.id.clone(),
            size: new.size,
            source: new.source.clone(),
        });
        if let Some(source) = &new.source {
            let source = match source {
                Source::Volume(id) => id.to_string(),
                Source::Snapshot(id) => id.to_string(),
            };
            let copy = new.id.to_string();
            self.0.fates.push(Fate::Copied { source, copy });
        }
        Ok(shown)
    }

    fn source(&self, new: &NewVolume) -> PoolResult<Option<(usize, Arc<Content>)>> {
        let found = match &new.source {
            None => return Ok(None),
            Some(Source::Volume(id)) => self.0.volumes.get(id).map(|v| (v.place, v.size, v.encrypted, v.copy())),
            Some(Source::Snapshot(id)) => {
                let snapshot = self.0.snapshots.get(id);
                snapshot.map(|s| (s.place, s.size, s.encrypted, Arc::clone(&s.content)))
            }
        };
        let Some((place, size, encrypted, content)) = found else {
            return refused(PoolErrorKind::NoSuchSource, format!("volume {} has no source", new.id));
        };
        if new.size < size {
            return refused(PoolErrorKind::OutOfRange, format!("a copy is at least {size} large"));
        }
        if encrypted != new.encrypted {
            return refused(PoolErrorKind::Invalid, "a copy is encrypted if its source is");
        }
        Ok(Some((place, content)))
    }

    /// A copy lies beside its source; anything else where most room is left, the first of equals.
    fn choose(&self, new: &NewVolume, beside: Option<usize>) -> PoolResult<usize> {
        let places = self.0.places.iter().enumerate();
        if self.0.full {
            return refused(PoolErrorKind::NoSpace, format!("no room for {}", new.size));
        }
        let mut serving = places
            .filter(|(nth, place)| beside.is_none_or(|b| b == *nth) && place.serves(&new.kind, &new.segments))
            .map(|(nth, place)| (place.left(), nth))
            .peekable();
        if serving.peek().is_none() {
            return refused(
                PoolErrorKind::NoSuchPlace,
                format!("nothing of type `{}` in {:?}", new.kind, new.segments),
            );
        }
        let best = serving
            .filter(|(left, _)| *left >= new.size.0 + header(new.encrypted).0)
            .max_by_key(|(left, nth)| (*left, std::cmp::Reverse(*nth)));
        match best {
            Some((_, place)) => Ok(place),
            None => refused(PoolErrorKind::NoSpace, format!("no room for {}", new.size)),
        }
    }

    fn blank(&mut self, new: &NewVolume, place: usize) -> PoolResult<Arc<Content>> {
        if self.0.forgets_to_discard
            && let Some(scraps) = self.0.places[place].scraps.take()
        {
            return Ok(scraps);
        }
        let Some(kind) = new.shared_fs else {
            return Ok(Arc::default());
        };
        let made = FsImage::make(kind, "", &uuid_of(new.id.as_str()), new.size);
        let mut image = made.map_err(|_| PoolError::new(PoolErrorKind::OutOfRange, "too small for a file system"))?;
        image.shared = true;
        Ok(Arc::new(Content {
            fs: Some(image),
            ..Content::default()
        }))
    }

    pub(super) fn delete(&mut self, id: &VolumeId) -> PoolResult<()> {
        let Some(volume) = self.0.volumes.get(id) else {
            return Ok(());
        };
        if let Some(node) = volume.exports.keys().next() {
            return refused(PoolErrorKind::InUse, format!("volume {id} is exported to node {node}"));
        }
        if let Some(volume) = self.0.volumes.remove(id) {
            self.0.fates.push(Fate::Deleted(id.to_string()));
            self.0.deeds.push(Deed::Deleted(id.clone()));
            let place = &mut self.0.places[volume.place];
            place.promised -= volume.bare_size().0;
            if self.0.forgets_to_discard {
                place.scraps = Some(volume.content);
            }
        }
        Ok(())
    }

    fn volume_mut(&mut self, id: &VolumeId) -> PoolResult<&mut Volume> {
        let volume = self.0.volumes.get_mut(id);
        volume.ok_or_else(|| PoolError::new(PoolErrorKind::NotFound, format!("no volume {id}")))
    }

    pub(super) fn grow(&mut self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        let largest = self.0.largest;
        let volume = self.volume_mut(id)?;
        let (old, place) = (volume.size, volume.place);
        if size <= old {
            return Ok(old);
        }
        if size > largest {
            return refused(PoolErrorKind::OutOfRange, format!("no volume can have {size}"));
        }
        let full = self.0.full;
        let at = &mut self.0.places[place];
        if full || at.left() < size.0 - old.0 {
            return refused(PoolErrorKind::NoSpace, format!("no room to grow volume {id} to {size}"));
        }
        at.promised += size.0 - old.0;
        self.volume_mut(id)?.size = size;
        self.0.deeds.push(Deed::Resized {
            volume: id.clone(),
            from: old,
            to: size,
        });
        Ok(size)
    }

    pub(super) fn modify(&mut self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        let volume = self.volume_mut(id)?;
        let iops = settings.get("iops");
        if iops.is_some_and(|value| value.parse::<u64>().is_err()) {
            return refused(PoolErrorKind::Invalid, "`iops` is not a whole number");
        }
        volume.settings.extend(settings.clone());
        Ok(())
    }

    pub(super) fn get(&mut self, id: &VolumeId) -> Option<PoolVolume> {
        self.0.volumes.get(id).map(|volume| self.0.shown(id, volume))
    }

    pub(super) fn list(&mut self) -> Vec<PoolVolume> {
        if let Some(listed) = &self.0.listed {
            return listed.clone();
        }
        let volumes = self.0.volumes.iter();
        volumes.map(|(id, volume)| self.0.shown(id, volume)).collect()
    }

    pub(super) fn capacity(&mut self, kind: &str, segments: &Segments) -> PoolResult<Capacity> {
        let serving = self.0.places.iter().filter(|place| place.serves(kind, segments));
        let left: Vec<u64> = serving.map(Place::left).collect();
        let Some(most) = left.iter().max() else {
            return refused(
                PoolErrorKind::NoSuchPlace,
                format!("nothing of type `{kind}` in {segments:?}"),
            );
        };
        Ok(Capacity {
            available: Bytes(left.iter().fold(0, |sum, left| sum.saturating_add(*left))),
            largest: Some(Bytes(*most).min(self.0.largest)),
        })
    }

    pub(super) fn export(&mut self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        let generation = self.0.next_generation();
        let place = self.volume_mut(id)?.place;
        let State {
            nodes, places, volumes, ..
        } = &mut *self.0;
        let Some(reach) = nodes.get_mut(node) else {
            return refused(PoolErrorKind::NoSuchNode, format!("no node {node}"));
        };
        let segments = &places[place].shape.segments;
        if segments
            .iter()
            .any(|(key, value)| reach.segments.get(key) != Some(value))
        {
            return refused(
                PoolErrorKind::NoSuchPlace,
                format!("node {node} cannot reach volume {id}, which is in {segments:?}"),
            );
        }
        let exports = volumes.get_mut(id).map(|volume| &mut volume.exports);
        let exports = exports.expect("the volume was found above");
        if let Some(export) = exports.get(node) {
            return if export.access == access {
                Ok(export.context.clone())
            } else {
                refused(
                    PoolErrorKind::Exists,
                    format!("volume {id} is exported to node {node} with other access"),
                )
            };
        }
        if reach.slots.is_some_and(|slots| reach.volumes.len() >= slots) {
            return refused(PoolErrorKind::NoSpace, format!("node {node} has no free slot"));
        }
        let context = PublishContext::from([("export".to_owned(), format!("{node}/{id}"))]);
        reach.volumes.insert(id.clone());
        exports.insert(
            node.clone(),
            Export {
                access,
                generation,
                context: context.clone(),
                in_use: false,
            },
        );
        self.0.deeds.push(Deed::Exported {
            volume: id.clone(),
            node: node.clone(),
            access,
        });
        Ok(context)
    }

    pub(super) fn unexport(&mut self, id: &VolumeId, node: &NodeId) {
        self.0.cut_off(id, node);
        if let Some(reach) = self.0.nodes.get_mut(node) {
            reach.volumes.remove(id);
        }
    }

    /// All or none: the first refusal leaves nothing behind.
    pub(super) fn cut(&mut self, new: &[NewSnapshot], now: Duration) -> PoolResult<Vec<PoolSnapshot>> {
        for cut in new {
            match self.0.snapshots.get(&cut.id) {
                Some(there) if there.volume != cut.volume => {
                    return refused(
                        PoolErrorKind::Exists,
                        format!("snapshot {} is of another volume", cut.id),
                    );
                }
                Some(_) => {}
                None => drop(self.volume_mut(&cut.volume)?),
            }
        }
        for cut in new {
            let State {
                snapshots,
                volumes,
                fates,
                deeds,
                ..
            } = &mut *self.0;
            if let (None, Some(volume)) = (snapshots.get(&cut.id), volumes.get(&cut.volume)) {
                let snapshot = Snapshot {
                    volume: cut.volume.clone(),
                    size: volume.size,
                    cut_at: now,
                    place: volume.place,
                    encrypted: volume.encrypted,
                    content: volume.copy(),
                };
                snapshots.insert(cut.id.clone(), snapshot);
                fates.push(Fate::Copied {
                    source: cut.volume.to_string(),
                    copy: cut.id.to_string(),
                });
                deeds.push(Deed::Cut {
                    snapshot: cut.id.clone(),
                    volume: cut.volume.clone(),
                });
            }
        }
        Ok(new.iter().filter_map(|cut| self.snapshot(&cut.id)).collect())
    }

    pub(super) fn delete_snapshot(&mut self, id: &SnapshotId) {
        if self.0.snapshots.remove(id).is_some() {
            self.0.fates.push(Fate::Deleted(id.to_string()));
            self.0.deeds.push(Deed::SnapshotDeleted(id.clone()));
        }
    }

    pub(super) fn snapshot(&mut self, id: &SnapshotId) -> Option<PoolSnapshot> {
        self.0.snapshots.get(id).map(|snapshot| PoolSnapshot {
            id: id.clone(),
            volume: snapshot.volume.clone(),
            size: snapshot.size,
            cut_at: snapshot.cut_at,
            ready: true,
        })
    }
}

impl Managed<'_> {
    pub(super) fn extents(
        &mut self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let find = |id: &SnapshotId| {
            let snapshot = self.0.snapshots.get(id);
            snapshot.ok_or_else(|| PoolError::new(PoolErrorKind::NotFound, format!("no snapshot {id}")))
        };
        let target = find(target)?;
        let base = base.map(find).transpose()?;
        if offset > target.size {
            return refused(
                PoolErrorKind::OutOfRange,
                format!("the snapshot ends at {}", target.size),
            );
        }
        let base = base.map(|base| &*base.content);
        Ok(extents::between(base, &target.content, offset, limit))
    }
}

/// A UUID that belongs to a name, the same in every run.
fn uuid_of(name: &str) -> String {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let hex = digest.as_str();
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}
