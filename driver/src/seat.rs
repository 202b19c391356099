//! Where a driver sits: the public door through which anyone starts it.
//!
//! A process of the driver has the role of the controller, of a node, or both. Starting it opens the ledger, finishes
//! or undoes what an earlier life of the process left half done, and only then hands out the services.

use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::controller::{Controller, GroupController, SnapshotMetadata};
use crate::host::Host;
use crate::identity::Identity;
use crate::ledger::{Ledger, LedgerError};
use crate::node::Node;
use crate::pool::Pool;
use crate::quirk::Quirk;
use crate::runtime::{Disk, Runtime};
use crate::units::{NodeId, Segments};

/// Everything one process of the driver is given.
#[derive(Clone)]
pub struct Seat {
    /// Tasks and time.
    pub runtime: Arc<dyn Runtime>,
    /// The storage system.
    pub pool: Arc<dyn Pool>,
    /// Where this process keeps its ledger. Never shared with another process.
    pub disk: Disk,
    /// Does it have the role of the controller?
    pub controller: bool,
    /// The node it serves, if it has the role of a node.
    pub node: Option<NodeSeat>,
    /// A mistake that the driver is to make. `None`: the honest driver.
    pub quirk: Option<Quirk>,
}

/// The machine that a node driver serves.
#[derive(Clone)]
pub struct NodeSeat {
    /// Its name, as `NodeGetInfo` reports it.
    pub id: NodeId,
    /// Its place in the topology.
    pub segments: Segments,
    /// The machine.
    pub host: Arc<dyn Host>,
}

/// A driver that could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error("the driver's configuration is wrong")]
    Config(#[source] ConfigError),
    /// The ledger cannot be opened.
    #[error("the driver's ledger cannot be opened")]
    Ledger(#[source] LedgerError),
    /// An earlier life left something unfinished. Only with a [`Quirk`]: a driver settles that.
    #[error("an earlier life of the driver left something unfinished")]
    Unfinished,
}

/// A driver that has started: its gRPC services. Each is cheap to clone and implements the server trait of
/// `wavetank_proto::csi::v1`.
#[derive(Clone)]
pub struct Driver {
    /// The Identity service.
    pub identity: Identity,
    /// The Controller service, if the seat has that role.
    pub controller: Option<Controller>,
    /// The GroupController service, if the seat has the controller's role and the configuration offers it.
    pub group: Option<GroupController>,
    /// The SnapshotMetadata service, likewise.
    pub metadata: Option<SnapshotMetadata>,
    /// The Node service, if the seat has that role.
    pub node: Option<Node>,
}

impl Driver {
    /// Starts a driver: opens its ledger and settles what an earlier life left half done. What cannot be settled now
    /// (the storage system is away) stays recorded, is tried again in the background, and is refused with `ABORTED`
    /// or settled first when a call touches it.
    ///
    /// # Errors
    /// [`OpenError`]: a wrong configuration, or a ledger that cannot be read.
    pub async fn open(config: Config, seat: Seat) -> Result<Self, OpenError> {
        config.validate().map_err(OpenError::Config)?;
        if let Some(node) = &seat.node {
            Config::validate_segments(&node.segments).map_err(OpenError::Config)?;
            if !crate::check::is_node_id(node.id.as_str()) {
                return Err(OpenError::Config(ConfigError::NodeId(node.id.as_str().to_owned())));
            }
        }
        let late = seat.quirk == Some(Quirk::RecordWrittenLate);
        let ledger = Ledger::open(seat.disk, Arc::clone(&seat.runtime), late)
            .await
            .map_err(OpenError::Ledger)?;
        if seat.quirk == Some(Quirk::LeftoversStopStart) && ledger.read(crate::controller::unfinished) {
            return Err(OpenError::Unfinished);
        }
        let config = Arc::new(config);
        let identity = Identity::new(Arc::clone(&config), Arc::clone(&ledger), Arc::clone(&seat.pool));
        let controller = seat.controller.then(|| {
            Controller::new(
                Arc::clone(&config),
                Arc::clone(&seat.pool),
                Arc::clone(&seat.runtime),
                Arc::clone(&ledger),
                seat.quirk,
            )
        });
        let node = seat.node.map(|node| {
            Node::new(
                Arc::clone(&config),
                node,
                Arc::clone(&seat.pool),
                Arc::clone(&seat.runtime),
                ledger,
                seat.quirk,
            )
        });
        if let Some(controller) = &controller {
            controller.settle_all().await;
        }
        if let Some(node) = &node {
            node.settle_all().await;
        }
        let beside = controller.as_ref();
        Ok(Self {
            identity,
            group: beside.filter(|_| config.group_snapshots).map(GroupController::beside),
            metadata: beside
                .filter(|_| config.snapshot_metadata)
                .map(SnapshotMetadata::beside),
            controller,
            node,
        })
    }
}
