//! The obligations of a CSI driver, in the tank: any Rust driver through its factory, on modelled machines, in virtual time.
//!
//! ```text
//! wavetank-conform ──calls──► processes of the driver: one controller, one for each node
//!        └────────paths, marks──► modelled machines ◄── host, pool
//! ```
//!
//! Operations of the driver wait for their turn on an agenda, so that calls made at the same time really interleave, each time in the same way.
//! [`fuzz`] makes a driver's requests of random bytes.

mod machine;
mod storm;
mod world;

use std::sync::{Arc, Mutex};

use wavetank_conform::{Check, Report, Settings, UnderTest, Unreachable};

use crate::host::StorageShape;
use crate::link::Factory;
use crate::runtime::run;

pub use storm::{Trouble, fuzz};
use world::World;

/// What sits in the tank.
#[derive(Clone)]
pub struct Tank {
    /// Starts the driver's processes.
    pub factory: Factory,
    /// The driver's options.
    pub options: serde_json::Value,
    /// How many nodes.
    pub nodes: usize,
    /// Volumes that a node may have attached; 0: no limit.
    pub max_volumes: i64,
    /// A flaw of the storage system: a new volume shows what a deleted one left.
    pub forgets_to_discard: bool,
}

impl Tank {
    /// The reference driver on two nodes.
    pub fn reference() -> Tank {
        Tank {
            factory: crate::play::reference(),
            options: serde_json::json!({}),
            nodes: 2,
            max_volumes: 0,
            forgets_to_discard: false,
        }
    }

    /// Runs checks. `between` may stand between them and the driver, and tamper.
    ///
    /// # Errors
    /// [`Unreachable`] if the driver cannot be asked what it is.
    ///
    /// # Panics
    /// With a panic of the driver.
    pub fn check(
        self,
        settings: Settings,
        checks: Vec<&'static Check>,
        between: impl FnOnce(Arc<dyn UnderTest>) -> Arc<dyn UnderTest> + Send + 'static,
    ) -> Result<Report, Unreachable> {
        run(move || async move {
            let world = Arc::new(World::start(self).await);
            let driver = between(Arc::clone(&world) as Arc<dyn UnderTest>);
            let report = Arc::new(Mutex::new(None));
            let into = Arc::clone(&report);
            world
                .finish(async move {
                    let told = &mut |_: &wavetank_conform::Finding| {};
                    let done = wavetank_conform::run(driver, settings, &checks, told).await;
                    *into.lock().expect("nobody panics with it") = Some(done);
                })
                .await;
            let done = report.lock().expect("nobody panics with it").take();
            done.expect("the run has ended")
        })
    }

    fn storage(&self) -> StorageShape {
        let mut shape = StorageShape::everywhere(world::ROOM);
        shape.places[0].segments = world::segments();
        shape.forgets_to_discard = self.forgets_to_discard;
        shape
    }
}
