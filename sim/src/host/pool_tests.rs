//! The rules of the storage system, through the trait that a driver sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::executor::block_on;
use wavetank_driver::pool::{NewSnapshot, NewVolume, PoolErrorKind, Provisioning, Source};
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, NodeId, Pool, Segments, SnapshotId, VolumeId};

use super::super::cell::Cell;
use super::super::storage::{PlaceShape, Storage, StorageShape};
use super::super::turns::{AtOnce, Fence, Trouble, Turn, Turns};
use super::super::volume::Through;
use super::ModelPool;

fn pool(storage: &Storage) -> ModelPool {
    ModelPool::new(storage.clone(), Fence::new(), Arc::new(AtOnce))
}

fn zone(name: &str) -> Segments {
    Segments::from([("zone".to_owned(), name.to_owned())])
}

fn zones() -> Storage {
    let storage = Storage::new(StorageShape {
        places: vec![
            PlaceShape::new(zone("a"), Bytes::gi(10)),
            PlaceShape::new(zone("b"), Bytes::gi(20)),
        ],
        largest: Bytes::gi(15),
        forgets_to_discard: false,
    });
    storage.add_node("na".into(), zone("a"), Some(1));
    storage.add_node("nb".into(), zone("b"), None);
    storage
}

fn volume(id: &str, size: Bytes) -> NewVolume {
    NewVolume {
        id: id.into(),
        size,
        kind: "thin".to_owned(),
        provisioning: Provisioning::Thin,
        segments: Segments::new(),
        source: None,
        encrypted: false,
        shared_fs: None,
        settings: BTreeMap::new(),
    }
}

fn kind<T: std::fmt::Debug>(result: wavetank_driver::PoolResult<T>) -> PoolErrorKind {
    result.unwrap_err().kind
}

#[test]
fn the_same_request_makes_one_volume_and_a_different_one_is_refused() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        let new = volume("v", Bytes::gi(1));
        let first = pool.create(&new).await.unwrap();
        assert_eq!(pool.create(&new).await.unwrap(), first);
        assert_eq!(
            kind(pool.create(&volume("v", Bytes::gi(2))).await),
            PoolErrorKind::Exists
        );
        pool.grow(&"v".into(), Bytes::gi(3)).await.unwrap();
        let again = pool.create(&new).await.unwrap();
        assert_eq!(
            again.size,
            Bytes::gi(3),
            "a repeated request is no reason to refuse a volume that grew"
        );
        assert_eq!(storage.volumes().len(), 1);
    });
}

#[test]
fn room_is_counted_per_place_and_given_back() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        let mut new = volume("v", Bytes::gi(8));
        new.segments = zone("a");
        assert_eq!(pool.create(&new).await.unwrap().segments, zone("a"));
        let left = pool.capacity("thin", &zone("a")).await.unwrap();
        assert_eq!((left.available, left.largest), (Bytes::gi(2), Some(Bytes::gi(2))));
        let all = pool.capacity("thin", &Segments::new()).await.unwrap();
        assert_eq!((all.available, all.largest), (Bytes::gi(22), Some(Bytes::gi(15))));
        new.id = "w".into();
        new.size = Bytes::gi(3);
        assert_eq!(kind(pool.create(&new).await), PoolErrorKind::NoSpace);
        assert_eq!(
            kind(pool.grow(&"v".into(), Bytes::gi(11)).await),
            PoolErrorKind::NoSpace
        );
        assert_eq!(
            kind(pool.grow(&"v".into(), Bytes::gi(16)).await),
            PoolErrorKind::OutOfRange
        );
        assert_eq!(
            pool.grow(&"v".into(), Bytes::gi(1)).await.unwrap(),
            Bytes::gi(8),
            "never shrinks"
        );
        pool.delete(&"v".into()).await.unwrap();
        pool.delete(&"v".into()).await.expect("deleting twice is deleting");
        assert!(pool.create(&new).await.is_ok());
        assert_eq!(
            kind(pool.capacity("thin", &zone("c")).await),
            PoolErrorKind::NoSuchPlace
        );
    });
}

#[test]
fn without_a_wish_a_volume_goes_where_most_room_is() {
    block_on(async {
        let pool = pool(&zones());
        let made = pool.create(&volume("v", Bytes::gi(1))).await.unwrap();
        assert_eq!(made.segments, zone("b"));
        let both = Segments::from([("zone".into(), "a".into()), ("host".into(), "na".into())]);
        let mut new = volume("w", Bytes::gi(1));
        new.segments = both;
        let made = pool.create(&new).await.unwrap();
        assert_eq!(made.segments, zone("a"), "a place may be wider than what is asked");
    });
}

#[test]
fn exports_follow_topology_slots_and_access() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        let (na, nb) = (NodeId::from("na"), NodeId::from("nb"));
        for id in ["v", "w"] {
            let mut new = volume(id, Bytes::gi(1));
            new.segments = zone("a");
            pool.create(&new).await.unwrap();
        }
        let v = VolumeId::from("v");
        let context = pool.export(&v, &na, Access::ReadWrite).await.unwrap();
        assert_eq!(pool.export(&v, &na, Access::ReadWrite).await.unwrap(), context);
        assert_eq!(
            kind(pool.export(&v, &na, Access::ReadOnly).await),
            PoolErrorKind::Exists
        );
        assert_eq!(
            kind(pool.export(&v, &nb, Access::ReadWrite).await),
            PoolErrorKind::NoSuchPlace
        );
        assert_eq!(
            kind(pool.export(&v, &"nc".into(), Access::ReadWrite).await),
            PoolErrorKind::NoSuchNode
        );
        assert_eq!(
            kind(pool.export(&"w".into(), &na, Access::ReadWrite).await),
            PoolErrorKind::NoSpace
        );
        assert_eq!(kind(pool.delete(&v).await), PoolErrorKind::InUse);
        pool.unexport(&v, &na).await.unwrap();
        pool.unexport(&v, &na).await.expect("cutting off twice is cutting off");
        pool.export(&"w".into(), &na, Access::ReadWrite).await.unwrap();
        storage.remove_node(&na);
        pool.delete(&"w".into())
            .await
            .expect("a node that is gone holds nothing");
    });
}

#[test]
fn a_copy_lies_beside_its_source_and_is_at_least_as_large() {
    block_on(async {
        let pool = pool(&zones());
        let mut source = volume("v", Bytes::gi(2));
        source.segments = zone("a");
        pool.create(&source).await.unwrap();
        let cut = NewSnapshot {
            id: SnapshotId::from("s"),
            volume: "v".into(),
        };
        let snapshot = pool.cut(std::slice::from_ref(&cut)).await.unwrap();
        assert_eq!(pool.cut(&[cut]).await.unwrap(), snapshot);
        for source in [Source::Volume("v".into()), Source::Snapshot("s".into())] {
            let mut new = volume("w", Bytes::gi(1));
            new.source = Some(source);
            assert_eq!(kind(pool.create(&new).await), PoolErrorKind::OutOfRange);
            new.size = Bytes::gi(2);
            assert_eq!(pool.create(&new).await.unwrap().segments, zone("a"));
            pool.delete(&"w".into()).await.unwrap();
        }
        let mut lost = volume("x", Bytes::gi(1));
        lost.source = Some(Source::Volume("gone".into()));
        assert_eq!(kind(pool.create(&lost).await), PoolErrorKind::NoSuchSource);
        let other = NewSnapshot {
            id: SnapshotId::from("s"),
            volume: "x".into(),
        };
        assert_eq!(kind(pool.cut(&[other]).await), PoolErrorKind::Exists);
    });
}

#[test]
fn a_snapshot_keeps_its_bytes_and_tells_which_differ_from_an_earlier_one() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        pool.create(&volume("v", Bytes::gi(1))).await.unwrap();
        pool.export(&"v".into(), &"nb".into(), Access::ReadWrite).await.unwrap();
        let generation = storage.export_to(&"v".into(), &"nb".into()).unwrap().0.generation;
        let write = |block: u64, text: &str| {
            let cell = Cell::Bytes(text.as_bytes().into());
            let write = |volume: &mut super::super::volume::Volume| volume.write(Through::Bare, block, cell.clone());
            storage.reach(&"v".into(), &"nb".into(), generation, write).unwrap();
        };
        let cut = |id: &str| NewSnapshot {
            id: id.into(),
            volume: "v".into(),
        };
        for (block, text) in [(1, "one"), (2, "two"), (9, "nine")] {
            write(block, text);
        }
        pool.cut(&[cut("s1")]).await.unwrap();
        write(2, "new two");
        write(5, "five");
        pool.cut(&[cut("s2")]).await.unwrap();
        let extents = async |base: Option<&str>, target: &str, offset: u64, limit: usize| {
            let base = base.map(SnapshotId::from);
            let found = pool.extents(base.as_ref(), &target.into(), Bytes(offset), limit).await;
            let found = found.unwrap().into_iter();
            found
                .map(|extent| (extent.offset.0 / 4096, extent.len.0 / 4096))
                .collect::<Vec<_>>()
        };
        assert_eq!(extents(None, "s1", 0, 10).await, [(1, 2), (9, 1)]);
        assert_eq!(extents(Some("s1"), "s2", 0, 10).await, [(2, 1), (5, 1)]);
        assert_eq!(extents(Some("s1"), "s2", 3 * 4096, 10).await, [(5, 1)]);
        assert_eq!(extents(None, "s2", 0, 1).await, [(1, 2)]);
        assert_eq!(extents(Some("s2"), "s2", 0, 10).await, []);
        let beyond = pool.extents(None, &"s1".into(), Bytes::gi(2), 1).await;
        assert_eq!(kind(beyond), PoolErrorKind::OutOfRange);
        assert_eq!(
            kind(pool.extents(None, &"no".into(), Bytes(0), 1).await),
            PoolErrorKind::NotFound
        );
    });
}

#[test]
fn a_new_volume_shows_no_old_bytes_unless_the_storage_forgets_to_discard() {
    block_on(async {
        for forgets in [false, true] {
            let storage = Storage::new(StorageShape {
                forgets_to_discard: forgets,
                ..StorageShape::everywhere(Bytes::gi(10))
            });
            storage.add_node("n".into(), Segments::new(), None);
            let pool = pool(&storage);
            pool.create(&volume("old", Bytes::gi(1))).await.unwrap();
            pool.export(&"old".into(), &"n".into(), Access::ReadWrite)
                .await
                .unwrap();
            let (export, _) = storage.export_to(&"old".into(), &"n".into()).unwrap();
            storage
                .reach(&"old".into(), &"n".into(), export.generation, |volume| {
                    volume.write(Through::Bare, 0, Cell::Bytes(b"secret".as_slice().into()))
                })
                .unwrap();
            pool.unexport(&"old".into(), &"n".into()).await.unwrap();
            pool.delete(&"old".into()).await.unwrap();
            pool.create(&volume("new", Bytes::gi(1))).await.unwrap();
            let found = storage.contents(&"new".into()).unwrap();
            assert_eq!(!found.is_empty(), forgets);
        }
    });
}

#[test]
fn a_node_cut_off_never_reaches_the_volume_through_its_old_export() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        let (v, nb) = (VolumeId::from("v"), NodeId::from("nb"));
        pool.create(&volume("v", Bytes::gi(1))).await.unwrap();
        pool.export(&v, &nb, Access::ReadWrite).await.unwrap();
        let (old, _) = storage.export_to(&v, &nb).unwrap();
        let write = |generation| {
            storage.reach(&v, &nb, generation, |volume| {
                volume.write(Through::Bare, 0, Cell::Bytes(b"late".as_slice().into()))
            })
        };
        pool.unexport(&v, &nb).await.unwrap();
        assert!(write(old.generation).is_err());
        pool.export(&v, &nb, Access::ReadWrite).await.unwrap();
        assert!(
            write(old.generation).is_err(),
            "what was sent before the fence stays out"
        );
        assert!(storage.contents(&v).unwrap().is_empty());
    });
}

#[test]
fn a_shared_file_system_is_there_before_anybody_sees_the_volume() {
    block_on(async {
        let storage = zones();
        let mut new = volume("v", Bytes::gi(1));
        new.shared_fs = Some(FsKind::Ext4);
        pool(&storage).create(&new).await.unwrap();
        let fs = storage.file_system(&"v".into()).unwrap();
        assert!(fs.shared && fs.size == Bytes::gi(1) && fs.uuid.len() == 36);
    });
}

#[test]
fn an_outage_refuses_everything_and_changes_nothing() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        storage.set_reachable(false);
        let new = volume("v", Bytes::gi(1));
        assert_eq!(kind(pool.create(&new).await), PoolErrorKind::Unavailable);
        assert_eq!(kind(pool.health().await), PoolErrorKind::Unavailable);
        storage.set_reachable(true);
        assert_eq!(pool.get(&"v".into()).await.unwrap(), None);
    });
}

#[test]
fn settings_change_together_or_not_at_all() {
    block_on(async {
        let storage = zones();
        let pool = pool(&storage);
        pool.create(&volume("v", Bytes::gi(1))).await.unwrap();
        let good = BTreeMap::from([("iops".to_owned(), "500".to_owned())]);
        pool.modify(&"v".into(), &good).await.unwrap();
        let bad = BTreeMap::from([("iops".into(), "many".into()), ("tier".into(), "gold".into())]);
        assert_eq!(kind(pool.modify(&"v".into(), &bad).await), PoolErrorKind::Invalid);
        assert_eq!(storage.settings(&"v".into()), Some(good));
    });
}

/// Says the same at every turn.
struct Always(Turn);

#[async_trait]
impl Turns for Always {
    async fn turn(&self, _: &'static str, _: &str) -> Turn {
        self.0
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_turn_decides_whether_an_operation_happens_and_what_it_reports() {
    let new = volume("v", Bytes::gi(1));
    for (turn, reported, happened) in [
        (Turn::Fail(Trouble::TimedOut), PoolErrorKind::TimedOut, false),
        (Turn::Pretend(Trouble::TimedOut), PoolErrorKind::TimedOut, true),
        (Turn::Fenced, PoolErrorKind::Fenced, false),
    ] {
        let storage = zones();
        let pool = ModelPool::new(storage.clone(), Fence::new(), Arc::new(Always(turn)));
        assert_eq!(kind(block_on(pool.create(&new))), reported);
        assert_eq!(storage.volumes().len(), usize::from(happened), "{turn:?}");
    }
}

#[test]
fn a_dead_process_changes_nothing() {
    let storage = zones();
    let fence = Fence::new();
    let pool = ModelPool::new(storage.clone(), fence.clone(), Arc::new(AtOnce));
    fence.freeze();
    assert_eq!(
        kind(block_on(pool.create(&volume("v", Bytes::gi(1))))),
        PoolErrorKind::Fenced
    );
    assert!(storage.volumes().is_empty());
}
