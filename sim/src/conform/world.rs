//! The processes of a driver, the machines of its nodes and the storage system behind them, without a cluster.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::channel::oneshot;
use tower::util::BoxCloneService;
use wavetank_conform::{Machine as NodeMachine, Side, UnderTest, Wire};
use wavetank_driver::{Bytes, Disk, NodeId, Segments};

use super::Tank;
use super::machine::TankMachine;
use crate::cluster::Due;
use crate::host::{Fence, HostSeat, Machine, ModelDisk, ModelPool, Storage, Turn, Turns};
use crate::link::{EPOCH_SECONDS, Factory, InProcess, NodeSeat, Seat, Services, TankRuntime};
use crate::runtime::{Board, Entry, Lane, Tasks, Time, settle};

/// Room of the storage system.
pub(super) const ROOM: Bytes = Bytes(1 << 40);
/// What the driver is called.
const NAME: &str = "csi.wavetank.dev";
/// How long an operation of the driver on its machine or its storage takes.
const STEP: Duration = Duration::from_micros(100);

/// Where every node is.
pub(super) fn segments() -> Segments {
    Segments::from([("topology.wavetank.dev/zone".to_owned(), "a".to_owned())])
}

/// The name of the nth node.
pub(super) fn node_name(nth: usize) -> String {
    format!("node-{}", nth + 1)
}

/// The name of the nth process: the controller's for 0.
fn process_name(nth: usize) -> String {
    if nth == 0 {
        "controller".to_owned()
    } else {
        node_name(nth - 1)
    }
}

/// Everything behind the checks.
pub(super) struct World {
    board: Arc<Board<Due>>,
    lane: Lane,
    tank: Tank,
    pub storage: Storage,
    pub machines: Vec<TankMachine>,
    /// The controller's first.
    disks: Vec<ModelDisk>,
    /// Where the operations of each process wait.
    lanes: Vec<Lane>,
    lives: Mutex<Vec<Life>>,
}

/// One process.
#[derive(Clone)]
struct Life {
    tasks: Tasks,
    fence: Fence,
    services: Services,
}

struct StepByStep {
    board: Arc<Board<Due>>,
    lane: Lane,
    fence: Fence,
}

#[async_trait]
impl Turns for StepByStep {
    async fn turn(&self, _: &'static str, _: &str) -> Turn {
        self.board.turn(self.lane, STEP).await;
        if self.fence.is_frozen() {
            Turn::Fenced
        } else {
            Turn::Proceed
        }
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(EPOCH_SECONDS) + self.board.now().since(Time::ZERO)
    }
}

impl World {
    /// Starts every process. Only inside [`crate::runtime::run`].
    pub async fn start(tank: Tank) -> World {
        let board: Arc<Board<Due>> = Arc::default();
        let storage = Storage::new(tank.storage());
        let machines: Vec<TankMachine> = (0..tank.nodes)
            .map(|nth| TankMachine::new(Machine::new(node_name(nth)), Arc::clone(&board)))
            .collect();
        for nth in 0..tank.nodes {
            storage.add_node(NodeId::from(node_name(nth).as_str()), segments(), None);
        }
        let world = World {
            lane: board.lane("checks"),
            lanes: (0..=tank.nodes).map(|nth| board.lane(&process_name(nth))).collect(),
            board,
            storage,
            machines,
            disks: (0..=tank.nodes).map(|_| ModelDisk::new()).collect(),
            lives: Mutex::default(),
            tank,
        };
        let mut starting = Box::pin(world.start_all());
        loop {
            settle().await;
            if futures::poll!(&mut starting).is_ready() {
                break;
            }
            world.step();
        }
        drop(starting);
        world
    }

    /// Releases the next entry of the agenda.
    fn step(&self) {
        if let Some(Entry::Turn(release)) = self.board.pop() {
            // Whoever waited may have given up.
            let _ = release.send(());
        }
    }

    /// Lets `work` and the driver run until `work` has ended.
    pub async fn finish(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (done, mut ended) = oneshot::channel();
        let tasks = Tasks::new("checks");
        tasks.spawn(async move {
            work.await;
            let _ = done.send(());
        });
        loop {
            settle().await;
            match ended.try_recv() {
                Ok(None) => {}
                Ok(Some(())) | Err(_) => break,
            }
            assert!(!self.board.is_empty(), "the checks wait for something that never comes");
            self.step();
        }
        for life in self.lives() {
            life.fence.freeze();
            life.tasks.kill();
        }
        settle().await;
    }

    fn lives(&self) -> Vec<Life> {
        self.lives.lock().expect("nobody panics with it").clone()
    }

    async fn start_all(&self) {
        let mut lives = Vec::new();
        for nth in 0..self.disks.len() {
            lives.push(self.launch(nth).await);
        }
        *self.lives.lock().expect("nobody panics with it") = lives;
    }

    /// Starts a process: the controller for 0, a node for any other number.
    async fn launch(&self, nth: usize) -> Life {
        let name = process_name(nth);
        let (fence, tasks) = (Fence::new(), Tasks::new(&name));
        let lane = self.lanes[nth];
        let turns: Arc<dyn Turns> = Arc::new(StepByStep {
            board: Arc::clone(&self.board),
            lane,
            fence: fence.clone(),
        });
        let node = (nth > 0).then(|| NodeSeat {
            name: name.clone(),
            topology: segments(),
            max_volumes: self.tank.max_volumes,
        });
        let host = node.as_ref().map(|node| {
            let seat = HostSeat {
                driver: NAME.into(),
                node: NodeId::from(node.name.as_str()),
                storage: self.storage.clone(),
                fence: fence.clone(),
                turns: Arc::clone(&turns),
            };
            Arc::new(self.machines[nth - 1].machine.host(seat)) as Arc<dyn wavetank_driver::Host>
        });
        let mut options = self.tank.options.clone();
        if self.tank.max_volumes > 0 {
            options["maxVolumesPerNode"] = self.tank.max_volumes.into();
        }
        let seat = Seat {
            driver: NAME.to_owned(),
            node,
            host,
            pool: Arc::new(ModelPool::new(self.storage.clone(), fence.clone(), turns)),
            runtime: Arc::new(TankRuntime {
                tasks: tasks.clone(),
                board: Arc::clone(&self.board),
                lane,
            }),
            disk: Disk::new(self.disks[nth].open(fence.clone(), None)),
            options,
        };
        let services = started(&self.tank.factory, seat, &tasks).await;
        Life { tasks, fence, services }
    }
}

/// Runs a factory on the tasks of its process.
async fn started(factory: &Factory, seat: Seat, tasks: &Tasks) -> Services {
    let (send, receive) = oneshot::channel();
    let start = factory(seat);
    tasks.spawn(async move {
        let _ = send.send(start.await);
    });
    let services = receive.await.unwrap_or_else(|_| Err("it was killed".to_owned()));
    // A driver that cannot start serves nothing, and every check says so.
    services.unwrap_or_default()
}

#[async_trait]
impl UnderTest for World {
    fn wire(&self, side: Side) -> Wire {
        let nth = match side {
            Side::Controller => 0,
            Side::Node(nth) => nth + 1,
        };
        let lives = self.lives();
        let services = lives.get(nth).map(|life| (life.tasks.clone(), life.services.clone()));
        let (tasks, services) = services.unwrap_or_else(|| (Tasks::new("nobody"), Services::new()));
        BoxCloneService::new(InProcess { tasks, services })
    }

    fn nodes(&self) -> usize {
        self.tank.nodes
    }

    fn machine(&self, node: usize) -> &dyn NodeMachine {
        &self.machines[node]
    }

    fn can_restart(&self) -> Result<(), String> {
        Ok(())
    }

    async fn restart(&self) -> Result<(), String> {
        for life in self.lives() {
            life.fence.freeze();
            life.tasks.kill();
        }
        self.start_all().await;
        Ok(())
    }

    async fn ended(&self) -> Option<String> {
        None
    }

    async fn sleep(&self, duration: Duration) {
        self.board.turn(self.lane, duration).boxed().await;
    }

    fn now(&self) -> Duration {
        self.board.now().since(Time::ZERO)
    }

    fn inventory(&self) -> Option<Vec<String>> {
        let mut all: Vec<String> = self
            .storage
            .volumes()
            .iter()
            .map(|volume| format!("{volume:?}"))
            .collect();
        all.extend(
            self.storage
                .snapshots()
                .iter()
                .map(|snapshot| format!("snapshot {snapshot}")),
        );
        for machine in &self.machines {
            all.extend(machine.inventory());
        }
        Some(all)
    }
}
