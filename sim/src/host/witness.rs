//! The witness of what pods were told about their data: every acknowledged block, and whether it was synced. It judges what a reader finds.
//!
//! ```text
//!            wrote            synced
//! durable ──────► unsynced ───────────► durable
//!    ▲               │ may_have_lost (power failed, node cut off)
//!    └── any of ◄────┘
//! ```
//!
//! It belongs to the cluster and survives every crash. Blind spots: a write that a pod was never told about is not expected, and not forgiven
//! where something else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::cell::{Backing, Cell, Found, ReadBack, Stamp, VolumeKey};
use super::pods::Written;

/// What was acknowledged, of every volume.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    volumes: BTreeMap<VolumeKey, Witness>,
    retired: BTreeSet<VolumeKey>,
}

/// What was acknowledged of one volume.
#[derive(Clone, Debug, Default)]
struct Witness {
    sequence: u64,
    /// What it was copied from, and the last write to that before the copy.
    lineage: BTreeMap<VolumeKey, u64>,
    places: BTreeMap<Place, History>,
}

type Place = (Arc<str>, u64);

/// What may be in one block.
#[derive(Clone, Debug)]
struct History {
    /// What the device may hold without the unsynced writes; `None` is nothing.
    durable: Vec<Option<Stamp>>,
    /// A power loss may have torn it.
    torn: bool,
    /// Acknowledged since, oldest first.
    unsynced: Vec<Stamp>,
}

impl Default for History {
    fn default() -> Self {
        History {
            durable: vec![None],
            torn: false,
            unsynced: Vec::new(),
        }
    }
}

impl History {
    /// The last stamp that was acknowledged, if nothing went wrong.
    fn latest(&self) -> Option<&Stamp> {
        let durable = self.durable.iter().rev().find_map(Option::as_ref);
        self.unsynced.last().or(durable)
    }

    /// May a reader on a machine that lost nothing find this?
    fn allows(&self, found: Option<&Stamp>) -> bool {
        match self.unsynced.last() {
            Some(last) => found == Some(last),
            None => self.allows_durable(found),
        }
    }

    fn allows_durable(&self, found: Option<&Stamp>) -> bool {
        self.durable.iter().any(|stamp| stamp.as_ref() == found)
    }

    /// May this be on the device itself, whatever machines still hold in memory?
    fn allows_on_device(&self, found: Option<&Stamp>) -> bool {
        self.allows_durable(found) || self.unsynced.iter().any(|stamp| Some(stamp) == found)
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// An acknowledged write is not there.
    Lost,
    /// An older write is there.
    Stale,
    /// A write that belongs to another block is there.
    Doubled,
    /// A write to another volume is there.
    Foreign,
    /// A write to a deleted volume is there.
    Old,
    /// Half a write is there, although it was synced or no power failed.
    Torn,
    /// Bytes that are no pod's are there.
    Garbage,
    /// A write to this volume is there that nobody was told about.
    Unknown,
}

/// One block that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The file; empty for a raw device.
    pub file: Arc<str>,
    /// Which block of it.
    pub block: u64,
    /// The write that should be there.
    pub expected: Option<Stamp>,
    /// What is there.
    pub found: Option<Cell>,
    /// What should be there was written to the source of a copy, before it was made.
    pub inherited: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { kind, file, block, .. } = self;
        write!(f, "{kind:?} {file}[{block}]: expected ")?;
        match &self.expected {
            Some(stamp) => write!(f, "{stamp}")?,
            None => f.write_str("nothing")?,
        }
        match &self.found {
            Some(Cell::Stamp(stamp)) => write!(f, ", found {stamp}"),
            Some(Cell::Torn(stamp)) => write!(f, ", found half of {stamp}"),
            Some(Cell::Bytes(bytes)) => write!(f, ", found {} other bytes", bytes.len()),
            None => f.write_str(", found nothing"),
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the path led to; `None` if the volume itself was looked at.
    pub on: Option<Backing>,
    /// How many blocks hold what was acknowledged.
    pub intact: usize,
    /// The others, by file and block.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Is everything as it should be?
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// The first finding and how many more there are, as a sentence; nothing if all is sound.
    pub fn complaint(&self) -> Option<String> {
        let first = self.findings.first()?;
        Some(match self.findings.len() - 1 {
            0 => first.to_string(),
            more => format!("{first}; and {more} more"),
        })
    }
}

impl Witnesses {
    /// The sequence number of the next block written to a volume.
    pub fn next_sequence(&self, volume: &VolumeKey) -> u64 {
        self.volumes.get(volume).map_or(1, |witness| witness.sequence + 1)
    }

    /// The first block of a file (or raw device: empty) behind all that were written to it.
    pub fn next_block(&self, volume: &VolumeKey, file: &str) -> u64 {
        let places = self.volumes.get(volume).map(|witness| &witness.places);
        let blocks = places.into_iter().flat_map(|places| places.keys());
        blocks
            .filter(|(name, _)| **name == *file)
            .map(|(_, block)| block + 1)
            .max()
            .unwrap_or(0)
    }

    /// The volumes of which anything is known and that are not deleted, in order.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeKey> {
        self.volumes.keys()
    }

    /// A pod was told that these blocks were written.
    pub fn wrote(&mut self, volume: &VolumeKey, written: &Written) {
        let witness = self.volumes.entry(volume.clone()).or_default();
        for stamp in &written.stamps {
            let place = (Arc::clone(&stamp.file), stamp.block);
            let history = witness.places.entry(place).or_default();
            history.unsynced.push(stamp.clone());
            witness.sequence = witness.sequence.max(stamp.sequence);
        }
        if written.synced {
            self.synced(volume);
        }
    }

    /// A pod was told that everything it wrote to a volume is durable.
    pub fn synced(&mut self, volume: &VolumeKey) {
        for history in self.histories(volume) {
            if let Some(last) = history.unsynced.pop() {
                *history = History {
                    durable: vec![Some(last)],
                    ..History::default()
                };
            }
        }
    }

    /// A node with the volume lost its power or was cut off from it: each unsynced write may be there or not.
    pub fn may_have_lost(&mut self, volume: &VolumeKey) {
        for history in self.histories(volume) {
            history.torn |= !history.unsynced.is_empty();
            history.durable.extend(history.unsynced.drain(..).map(Some));
        }
    }

    /// A real machine lost its power: each write of its pods that was not synced may be there or not.
    pub fn node_lost_power(&mut self, node: &str) {
        let places = self
            .volumes
            .values_mut()
            .flat_map(|witness| witness.places.values_mut());
        for history in places.filter(|history| history.unsynced.iter().any(|stamp| stamp.origin.node == *node)) {
            history.torn = true;
            history.durable.extend(history.unsynced.drain(..).map(Some));
        }
    }

    fn histories(&mut self, volume: &VolumeKey) -> impl Iterator<Item = &mut History> {
        let witness = self.volumes.get_mut(volume);
        witness.into_iter().flat_map(|witness| witness.places.values_mut())
    }

    /// `copy` was made of `source` as it is now on its device: unsynced writes may be in it or not.
    pub fn copied(&mut self, source: &VolumeKey, copy: VolumeKey) {
        let Some(mut witness) = self.volumes.get(source).cloned() else {
            return;
        };
        for history in witness.places.values_mut() {
            history.durable.extend(history.unsynced.drain(..).map(Some));
        }
        witness.lineage.insert(source.clone(), witness.sequence);
        self.volumes.insert(copy, witness);
    }

    /// The volume is deleted: nobody may ever see its bytes again.
    pub fn retire(&mut self, volume: &VolumeKey) {
        self.volumes.remove(volume);
        self.retired.insert(volume.clone());
    }

    /// Judges what a pod read from a volume.
    pub fn verify(&self, volume: &VolumeKey, read: &ReadBack) -> Report {
        let found = match read.on {
            Backing::Volume { .. } | Backing::Mounted(_) => &read.found[..],
            // Whatever is there, it is not on the volume.
            Backing::NodeDisk => &[],
        };
        let mut report = self.judge(volume, found, History::allows);
        report.on = Some(read.on.clone());
        report
    }

    /// Judges what is on a volume's device, without what machines hold in memory.
    pub fn verify_device(&self, volume: &VolumeKey, found: &[Found]) -> Report {
        self.judge(volume, found, History::allows_on_device)
    }

    fn judge(&self, volume: &VolumeKey, found: &[Found], allows: fn(&History, Option<&Stamp>) -> bool) -> Report {
        let none = Witness::default();
        let witness = self.volumes.get(volume).unwrap_or(&none);
        let mut found: Vec<(Place, &Cell)> = found
            .iter()
            .map(|found| ((Arc::clone(&found.file), found.block), &found.cell))
            .collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        let mut report = Report {
            on: None,
            intact: 0,
            findings: Vec::new(),
        };
        // Both are in order of place: one walk over the two meets every place of either.
        let mut found = found.iter().map(|(place, cell)| (place, *cell)).peekable();
        let mut known = witness.places.iter().peekable();
        loop {
            let (ours, theirs) = (
                known.peek().map(|(place, _)| *place),
                found.peek().map(|(place, _)| *place),
            );
            let (take_known, take_found) = match (ours, theirs) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(ours), Some(theirs)) => (ours <= theirs, theirs <= ours),
            };
            let history = known.next_if(|_| take_known);
            let cell = found.next_if(|_| take_found);
            let Some(place) = history.map(|(place, _)| place).or(cell.map(|(place, _)| place)) else {
                break;
            };
            let (history, cell) = (history.map(|(_, history)| history), cell.map(|(_, cell)| cell));
            match self.wrong(volume, witness, place, history, cell, allows) {
                None => report.intact += usize::from(history.is_some()),
                Some(kind) => report.findings.push(Finding {
                    kind,
                    file: Arc::clone(&place.0),
                    block: place.1,
                    expected: history.and_then(History::latest).cloned(),
                    found: cell.cloned(),
                    inherited: history
                        .and_then(History::latest)
                        .is_some_and(|stamp| stamp.origin.volume != *volume),
                }),
            }
        }
        report
    }

    fn wrong(
        &self,
        volume: &VolumeKey,
        witness: &Witness,
        place: &Place,
        history: Option<&History>,
        cell: Option<&Cell>,
        allows: fn(&History, Option<&Stamp>) -> bool,
    ) -> Option<FindingKind> {
        let stamp = match cell {
            Some(Cell::Stamp(stamp)) => Some(stamp),
            Some(Cell::Torn(stamp)) => {
                let forgiven =
                    history.is_some_and(|h| h.torn && h.unsynced.is_empty() && h.allows_durable(Some(stamp)));
                return (!forgiven).then_some(FindingKind::Torn);
            }
            // Files that no writer of ours made are nobody's business.
            Some(Cell::Bytes(_)) => return history.map(|_| FindingKind::Garbage),
            None => None,
        };
        if history.is_some_and(|history| allows(history, stamp)) {
            return None;
        }
        let Some(stamp) = stamp else {
            return history.map(|_| FindingKind::Lost);
        };
        let from = &stamp.origin.volume;
        let inherited = witness.lineage.get(from).is_some_and(|last| stamp.sequence <= *last);
        let latest = history.and_then(History::latest).map_or(0, |latest| latest.sequence);
        Some(if self.retired.contains(from) || is_older(from, volume) {
            FindingKind::Old
        } else if stamp.block != place.1 || stamp.file != place.0 {
            FindingKind::Doubled
        } else if (from == volume || inherited) && stamp.sequence < latest {
            FindingKind::Stale
        } else if from != volume {
            FindingKind::Foreign
        } else {
            FindingKind::Unknown
        })
    }
}

fn is_older(one: &VolumeKey, other: &VolumeKey) -> bool {
    one.name == other.name && one.generation < other.generation
}

#[cfg(test)]
mod tests {
    use super::super::cell::Origin;
    use super::{Arc, Backing, Cell, FindingKind, Found, ReadBack, Stamp, VolumeKey, Witnesses, Written};

    fn volume(name: &str) -> VolumeKey {
        VolumeKey::new(name, 1)
    }

    fn stamp(to: &VolumeKey, block: u64, sequence: u64) -> Stamp {
        Stamp {
            origin: Arc::new(Origin {
                pod: "default/writer".into(),
                uid: "u".into(),
                node: "n1".into(),
                volume: to.clone(),
            }),
            file: "data".into(),
            block,
            sequence,
        }
    }

    fn written(stamps: Vec<Stamp>, synced: bool) -> Written {
        Written {
            stamps,
            synced,
            stopped: None,
        }
    }

    fn read(cells: Vec<(u64, Cell)>) -> ReadBack {
        let found = cells.into_iter().map(|(block, cell)| Found {
            file: "data".into(),
            block,
            cell,
        });
        ReadBack {
            on: Backing::Volume {
                driver: "d".into(),
                id: "h".into(),
            },
            found: found.collect(),
        }
    }

    /// Block 0 was written as 1 (synced), then as 2 (not synced).
    fn witnesses() -> (Witnesses, VolumeKey) {
        let v = volume("v");
        let mut witnesses = Witnesses::default();
        witnesses.wrote(&v, &written(vec![stamp(&v, 0, 1)], true));
        witnesses.wrote(&v, &written(vec![stamp(&v, 0, 2)], false));
        (witnesses, v)
    }

    fn kinds(witnesses: &Witnesses, v: &VolumeKey, cells: Vec<(u64, Cell)>) -> Vec<FindingKind> {
        let report = witnesses.verify(v, &read(cells));
        report.findings.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn what_was_acknowledged_last_must_be_there() {
        let (witnesses, v) = witnesses();
        let holds = |sequence| vec![(0, Cell::Stamp(stamp(&v, 0, sequence)))];
        assert_eq!(kinds(&witnesses, &v, holds(2)), []);
        assert_eq!(kinds(&witnesses, &v, holds(1)), [FindingKind::Stale]);
        assert_eq!(kinds(&witnesses, &v, vec![]), [FindingKind::Lost]);
        assert_eq!(kinds(&witnesses, &v, holds(3)), [FindingKind::Unknown]);
        assert_eq!(witnesses.next_sequence(&v), 3);
    }

    #[test]
    fn after_a_power_loss_only_the_synced_must_be_there() {
        let (mut witnesses, v) = witnesses();
        witnesses.may_have_lost(&v);
        let torn = vec![(0, Cell::Torn(stamp(&v, 0, 2)))];
        for sequence in [1, 2] {
            assert_eq!(
                kinds(&witnesses, &v, vec![(0, Cell::Stamp(stamp(&v, 0, sequence)))]),
                []
            );
        }
        assert_eq!(kinds(&witnesses, &v, torn.clone()), []);
        assert_eq!(kinds(&witnesses, &v, vec![]), [FindingKind::Lost], "1 was synced");
        witnesses.wrote(&v, &written(vec![stamp(&v, 0, 3)], true));
        assert_eq!(
            kinds(&witnesses, &v, torn),
            [FindingKind::Torn],
            "a synced write mends the tear"
        );
    }

    #[test]
    fn the_device_may_lag_behind_what_a_machine_holds_in_memory() {
        let (witnesses, v) = witnesses();
        let on_device = read(vec![(0, Cell::Stamp(stamp(&v, 0, 1)))]).found;
        assert!(witnesses.verify_device(&v, &on_device).is_sound());
        assert!(!witnesses.verify_device(&v, &[]).is_sound());
    }

    #[test]
    fn writes_of_others_are_told_apart() {
        let (mut witnesses, v) = witnesses();
        let good = (0, Cell::Stamp(stamp(&v, 0, 2)));
        let with = |cell| vec![good.clone(), (1, cell)];
        let elsewhere = Cell::Stamp(stamp(&v, 0, 2));
        assert_eq!(kinds(&witnesses, &v, with(elsewhere)), [FindingKind::Doubled]);
        let other = Cell::Stamp(stamp(&volume("w"), 1, 1));
        assert_eq!(kinds(&witnesses, &v, with(other.clone())), [FindingKind::Foreign]);
        witnesses.retire(&volume("w"));
        assert_eq!(kinds(&witnesses, &v, with(other)), [FindingKind::Old]);
        let namesake = Cell::Stamp(stamp(&VolumeKey::new("v", 0), 1, 1));
        assert_eq!(kinds(&witnesses, &v, with(namesake)), [FindingKind::Old]);
        let bytes = Cell::Bytes(b"x".as_slice().into());
        assert_eq!(kinds(&witnesses, &v, with(bytes.clone())), []);
        assert_eq!(kinds(&witnesses, &v, vec![(0, bytes)]), [FindingKind::Garbage]);
    }

    #[test]
    fn what_lies_on_the_nodes_own_disk_is_lost_to_the_volume() {
        let (witnesses, v) = witnesses();
        let mut read = read(vec![(0, Cell::Stamp(stamp(&v, 0, 2)))]);
        read.on = Backing::NodeDisk;
        let report = witnesses.verify(&v, &read);
        assert_eq!(report.findings[0].kind, FindingKind::Lost);
    }

    #[test]
    fn a_copy_holds_what_was_synced_and_goes_its_own_way() {
        let (mut witnesses, v) = witnesses();
        let copy = volume("copy");
        witnesses.copied(&v, copy.clone());
        witnesses.synced(&v);
        for sequence in [1, 2] {
            let held = vec![(0, Cell::Stamp(stamp(&v, 0, sequence)))];
            assert_eq!(kinds(&witnesses, &copy, held), []);
        }
        assert_eq!(kinds(&witnesses, &copy, vec![]), [FindingKind::Lost]);
        assert_eq!(witnesses.next_sequence(&copy), 3, "numbers stay unique along the line");
        let own = stamp(&copy, 0, 3);
        witnesses.wrote(&copy, &written(vec![own.clone()], true));
        assert_eq!(kinds(&witnesses, &copy, vec![(0, Cell::Stamp(own))]), []);
        for (of_source, kind) in [(2, FindingKind::Stale), (3, FindingKind::Foreign)] {
            let held = vec![(0, Cell::Stamp(stamp(&v, 0, of_source)))];
            assert_eq!(
                kinds(&witnesses, &copy, held),
                [kind],
                "3 was written to the source after the cut"
            );
        }
    }
}
