//! What the ledger holds, as the driver reads it, and one change of it, as memory and disk take it.

use std::collections::BTreeMap;

use redb::{TableDefinition, TableHandle};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LedgerError;
use crate::records::{GroupRecord, PublicationRecord, SnapshotRecord, StagedRecord, TargetRecord, VolumeRecord};
use crate::units::{GroupId, HostPath, NodeId, SnapshotId, VolumeId};

/// A table of the database.
pub(super) type Raw = TableDefinition<'static, &'static str, &'static [u8]>;

const VOLUMES: Raw = TableDefinition::new("volumes");
const PUBLICATIONS: Raw = TableDefinition::new("publications");
const STAGED: Raw = TableDefinition::new("staged");
const TARGETS: Raw = TableDefinition::new("targets");
const SNAPSHOTS: Raw = TableDefinition::new("snapshots");
const GROUPS: Raw = TableDefinition::new("groups");

/// Tables that every ledger has from the start. The others come with their first record.
pub(super) const FIRST: [Raw; 4] = [VOLUMES, PUBLICATIONS, STAGED, TARGETS];
/// Every table.
pub(super) const ALL: [Raw; 6] = [VOLUMES, PUBLICATIONS, STAGED, TARGETS, SNAPSHOTS, GROUPS];

/// Between the two halves of a publication's key: no identifier holds a control character.
const SEPARATOR: char = '\n';

/// The copy in memory.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) volumes: BTreeMap<VolumeId, VolumeRecord>,
    pub(crate) publications: BTreeMap<(VolumeId, NodeId), PublicationRecord>,
    pub(crate) staged: BTreeMap<VolumeId, StagedRecord>,
    pub(crate) targets: BTreeMap<HostPath, TargetRecord>,
    pub(crate) snapshots: BTreeMap<SnapshotId, SnapshotRecord>,
    pub(crate) groups: BTreeMap<GroupId, GroupRecord>,
}

impl Tables {
    /// The publications of one volume, by node.
    pub(crate) fn published(&self, volume: &VolumeId) -> impl Iterator<Item = (&NodeId, &PublicationRecord)> {
        let first = (volume.clone(), NodeId::default());
        self.publications
            .range(first..)
            .take_while(move |((id, _), _)| id == volume)
            .map(|((_, node), record)| (node, record))
    }

    /// The targets of one volume, by path.
    pub(crate) fn targets_of(&self, volume: &VolumeId) -> impl Iterator<Item = (&HostPath, &TargetRecord)> {
        self.targets.iter().filter(move |(_, record)| record.volume == *volume)
    }

    /// Is nothing remembered?
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
            && self.publications.is_empty()
            && self.staged.is_empty()
            && self.targets.is_empty()
            && self.snapshots.is_empty()
            && self.groups.is_empty()
    }

    /// Takes in one row that was read from the disk.
    pub(super) fn take(&mut self, table: &str, key: &str, value: &[u8]) -> Result<(), LedgerError> {
        match table {
            "volumes" => drop(self.volumes.insert(VolumeId::new(key), decode(table, key, value)?)),
            "publications" => {
                let (volume, node) = key.split_once(SEPARATOR).unwrap_or((key, ""));
                let key_of = (VolumeId::new(volume), NodeId::new(node));
                self.publications.insert(key_of, decode(table, key, value)?);
            }
            "staged" => drop(self.staged.insert(VolumeId::new(key), decode(table, key, value)?)),
            "targets" => {
                let path = HostPath::parse(key).map_err(|why| damaged(table, key, serde::de::Error::custom(why)))?;
                self.targets.insert(path, decode(table, key, value)?);
            }
            "snapshots" => drop(self.snapshots.insert(SnapshotId::new(key), decode(table, key, value)?)),
            "groups" => drop(self.groups.insert(GroupId::new(key), decode(table, key, value)?)),
            other => unreachable!("`{other}` is none of the tables in ALL"),
        }
        Ok(())
    }
}

fn damaged(table: &str, key: &str, source: serde_json::Error) -> LedgerError {
    LedgerError::Record {
        table: table.to_owned(),
        key: key.to_owned(),
        source,
    }
}

fn decode<R: DeserializeOwned>(table: &str, key: &str, value: &[u8]) -> Result<R, LedgerError> {
    serde_json::from_slice(value).map_err(|source| damaged(table, key, source))
}

/// One change of one record; `None` removes it.
pub(super) enum Change {
    Volume(VolumeId, Option<Box<VolumeRecord>>),
    Publication(VolumeId, NodeId, Option<PublicationRecord>),
    Staged(VolumeId, Option<StagedRecord>),
    Target(HostPath, Option<TargetRecord>),
    Snapshot(SnapshotId, Option<Box<SnapshotRecord>>),
    Group(GroupId, Option<GroupRecord>),
}

/// The same, as the disk takes it.
pub(super) struct Row {
    pub(super) table: Raw,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

impl Change {
    pub(super) fn to_row(&self) -> Row {
        let (table, key, value) = match self {
            Self::Volume(id, record) => (VOLUMES, id.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Publication(volume, node, record) => (
                PUBLICATIONS,
                format!("{volume}{SEPARATOR}{node}"),
                record.as_ref().map(encode),
            ),
            Self::Staged(id, record) => (STAGED, id.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Target(path, record) => (TARGETS, path.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Snapshot(id, record) => (SNAPSHOTS, id.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Group(id, record) => (GROUPS, id.as_str().to_owned(), record.as_ref().map(encode)),
        };
        Row { table, key, value }
    }

    /// Changes the copy in memory, and returns what takes that back.
    pub(super) fn apply(self, tables: &mut Tables) -> Change {
        fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> Option<V> {
            match value {
                Some(value) => map.insert(key.clone(), value),
                None => map.remove(key),
            }
        }
        match self {
            Self::Volume(id, record) => {
                let old = set(&mut tables.volumes, &id, record.map(|record| *record));
                Self::Volume(id, old.map(Box::new))
            }
            Self::Publication(volume, node, record) => {
                let old = set(&mut tables.publications, &(volume.clone(), node.clone()), record);
                Self::Publication(volume, node, old)
            }
            Self::Staged(id, record) => {
                let old = set(&mut tables.staged, &id, record);
                Self::Staged(id, old)
            }
            Self::Target(path, record) => {
                let old = set(&mut tables.targets, &path, record);
                Self::Target(path, old)
            }
            Self::Snapshot(id, record) => {
                let old = set(&mut tables.snapshots, &id, record.map(|record| *record));
                Self::Snapshot(id, old.map(Box::new))
            }
            Self::Group(id, record) => {
                let old = set(&mut tables.groups, &id, record);
                Self::Group(id, old)
            }
        }
    }
}

fn encode<R: Serialize>(record: &R) -> Vec<u8> {
    serde_json::to_vec(record).expect("records hold nothing that JSON cannot: string keys, no floats")
}

/// A change in the making: reads see the state before it.
pub(crate) struct Draft<'a> {
    pub(crate) tables: &'a Tables,
    pub(super) changes: Vec<Change>,
}

impl Draft<'_> {
    pub(crate) fn volume(&mut self, id: &VolumeId, record: Option<VolumeRecord>) {
        self.changes.push(Change::Volume(id.clone(), record.map(Box::new)));
    }

    pub(crate) fn publication(&mut self, volume: &VolumeId, node: &NodeId, record: Option<PublicationRecord>) {
        self.changes
            .push(Change::Publication(volume.clone(), node.clone(), record));
    }

    pub(crate) fn staged(&mut self, id: &VolumeId, record: Option<StagedRecord>) {
        self.changes.push(Change::Staged(id.clone(), record));
    }

    pub(crate) fn target(&mut self, path: &HostPath, record: Option<TargetRecord>) {
        self.changes.push(Change::Target(path.clone(), record));
    }

    pub(crate) fn snapshot(&mut self, id: &SnapshotId, record: Option<SnapshotRecord>) {
        self.changes.push(Change::Snapshot(id.clone(), record.map(Box::new)));
    }

    pub(crate) fn group(&mut self, id: &GroupId, record: Option<GroupRecord>) {
        self.changes.push(Change::Group(id.clone(), record));
    }
}

/// The name of a table.
pub(super) fn name(table: Raw) -> String {
    table.name().to_owned()
}
