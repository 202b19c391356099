//! The driver as a process: options, a socket, logs, an end that waits for calls under way.

mod options;
mod tokio_runtime;
mod watch;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use wavetank_proto::csi::v1::controller_server::ControllerServer;
use wavetank_proto::csi::v1::group_controller_server::GroupControllerServer;
use wavetank_proto::csi::v1::identity_server::IdentityServer;
use wavetank_proto::csi::v1::node_server::NodeServer;
use wavetank_proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;

use crate::host::Host;
use crate::linux::{LinuxHost, LinuxPool, Store, StoreError};
use crate::memory::{Memory, MemoryHost, MemoryPool};
use crate::pool::Pool;
use crate::quirk::Quirk;
use crate::runtime::{Disk, Runtime};
use crate::seat::{Driver, NodeSeat, OpenError, Seat};

pub use options::{Backend, BadOption, Options, Role};
use tokio_runtime::TokioRuntime;
use watch::Watch;

/// How long callers may take to hear their answers once the process is asked to stop.
const GRACE: Duration = Duration::from_secs(30);

/// How long a tool that a killed process was about to start may hold the socket and the ledger before it is gone too.
const HEIRS: Duration = Duration::from_secs(5);

/// Why the process could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An option makes no sense.
    #[error("wrong option")]
    Option(#[source] BadOption),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    Store(#[source] StoreError),
    /// The ledger's file cannot be opened.
    #[error("the ledger {path} cannot be opened")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: redb::DatabaseError,
    },
    /// The driver could not start.
    #[error("the driver cannot start")]
    Open(#[source] OpenError),
    /// The socket, a log or a signal cannot be had.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The server ended with an error.
    #[error("the server failed")]
    Serve(#[source] tonic::transport::Error),
}

impl ServeError {
    /// Is it the caller's mistake?
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Option(_) | Self::Open(OpenError::Config(_)))
    }

    fn is_taken(&self) -> bool {
        let Self::Ledger { source, .. } = self else {
            return false;
        };
        matches!(source, redb::DatabaseError::DatabaseAlreadyOpen)
    }
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let doing = doing.into();
    move |source| ServeError::Io { doing, source }
}

/// An error and its causes, on one line.
pub fn spell(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {}", spell(cause)))
}

/// Serves until a signal asks to stop, and then until the calls under way are answered.
///
/// # Errors
/// [`ServeError`].
pub fn run(options: &Options) -> Result<(), ServeError> {
    run_wrongly(options, None)
}

/// The same with a mistake, for test binaries: `wavetank-driver` has no way to it.
///
/// # Errors
/// [`ServeError`].
pub fn run_wrongly(options: &Options, quirk: Option<Quirk>) -> Result<(), ServeError> {
    let socket = options.socket().map_err(ServeError::Option)?;
    options.log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed("starting the threads"))?;
    let result = runtime.block_on(serve(options, &socket, quirk));
    // Work that still blocks is not waited for: whatever it does is recorded, and the next start settles it.
    runtime.shutdown_background();
    result
}

async fn serve(options: &Options, socket: &Path, quirk: Option<Quirk>) -> Result<(), ServeError> {
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::here());
    let driver = open(options, &runtime, quirk).await?;
    let watch =
        Watch::open(&options.driver_name, options.audit_log.as_deref()).map_err(failed("opening the audit log"))?;
    if let Some(address) = options.metrics_address {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(failed(format!("listening on {address}")))?;
        tokio::spawn(watch::serve_metrics(listener, Arc::clone(&watch)));
    }
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminate, interrupt] = &mut ends;
    let (terminate, interrupt) = match (terminate, interrupt) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            let error = io::Error::new(error.kind(), error.to_string());
            return Err(failed("listening for signals")(error));
        }
    };
    let (stop, stopped) = oneshot::channel();
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new calls");
        let _ = stop.send(());
    };
    let listener = patiently(|| listen(socket), |error| error.kind() == io::ErrorKind::AddrInUse).await;
    let listener = listener.map_err(failed(format!("listening on {}", socket.display())))?;
    tracing::info!(socket = %socket.display(), backend = ?options.backend, "serving");
    let mut server = Server::builder().layer(watch::Layer(Arc::clone(&watch)));
    let router = server
        .add_service(IdentityServer::new(driver.identity))
        .add_optional_service(driver.controller.map(ControllerServer::new))
        .add_optional_service(driver.group.map(GroupControllerServer::new))
        .add_optional_service(driver.metadata.map(SnapshotMetadataServer::new))
        .add_optional_service(driver.node.map(NodeServer::new));
    let serving = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), end);
    let too_long = async {
        let _ = stopped.await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = too_long => {
            tracing::warn!("a caller did not hear its answer in time");
            Ok(())
        }
    };
    let _ = std::fs::remove_file(socket);
    served.map_err(ServeError::Serve)
}

/// Opens the driver over the backend that the options choose.
async fn open(options: &Options, runtime: &Arc<dyn Runtime>, quirk: Option<Quirk>) -> Result<Driver, ServeError> {
    let config = options.config().map_err(ServeError::Option)?;
    let segments = options.segments();
    let (pool, host, disk): (Arc<dyn Pool>, Arc<dyn Host>, Disk) = match options.backend {
        Backend::Memory => {
            let memory = Memory::new(options.node(), segments.clone(), options.memory_room());
            (
                Arc::new(MemoryPool::new(memory.clone(), Arc::clone(runtime))),
                Arc::new(MemoryHost::new(memory)),
                Disk::new(redb::backends::InMemoryBackend::new()),
            )
        }
        Backend::Loop | Backend::Array => {
            let shape = options.store_shape().map_err(ServeError::Option)?;
            let store = Arc::new(Store::open(shape).map_err(ServeError::Store)?);
            (
                Arc::new(LinuxPool::new(Arc::clone(&store), Arc::clone(runtime))),
                Arc::new(LinuxHost::new(store, Arc::clone(runtime))),
                patiently(|| ledger(&options.state_dir.join("ledger.redb")), ServeError::is_taken).await?,
            )
        }
    };
    let seat = Seat {
        runtime: Arc::clone(runtime),
        pool,
        disk,
        controller: options.role != Role::Node,
        node: (options.role != Role::Controller).then(|| NodeSeat {
            id: options.node(),
            segments,
            host,
        }),
        quirk,
    };
    Driver::open(config, seat).await.map_err(ServeError::Open)
}

/// Tries again while what is wanted is taken: between fork and exec, the child of a process that was killed has all that it had open.
async fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>, is_taken: impl Fn(&E) -> bool) -> Result<T, E> {
    let give_up = tokio::time::Instant::now() + HEIRS;
    loop {
        match attempt() {
            Err(error) if is_taken(&error) && tokio::time::Instant::now() < give_up => {
                tokio::time::sleep(HEIRS / 500).await;
            }
            ended => return ended,
        }
    }
}

fn ledger(path: &Path) -> Result<Disk, ServeError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.map_err(failed(format!("opening {}", path.display())))?;
    let backend = redb::backends::FileBackend::new(file);
    backend.map(Disk::new).map_err(|source| ServeError::Ledger {
        path: path.to_owned(),
        source,
    })
}

/// A socket that a dead process left is taken over; one that somebody answers is not.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    if socket.exists() {
        if UnixStream::connect(socket).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves there"));
        }
        std::fs::remove_file(socket)?;
    }
    UnixListener::bind(socket)
}
