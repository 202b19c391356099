//! The in-process link: any Rust driver that gives tonic services, called with real gRPC frames on the driver's own tasks.
//!
//! This is the public door of the tank. A driver hands over a [`Factory`]; it is called at every start of one of its processes with a [`Seat`], which
//! holds what that process may touch. The answer of a call, body included, is produced on the driver's tasks and crosses to the caller through channels:
//! killing the process cuts the call in the middle, and the caller sees UNAVAILABLE.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneService;
use tower::{Service, ServiceExt};
use wavetank_driver::host::Host;
use wavetank_driver::pool::Pool;
use wavetank_driver::runtime::{Disk, Runtime};

use crate::cluster::Behalf;
use crate::runtime::Tasks;

/// What one process of a driver may touch. Every handle dies with the process.
#[derive(Clone)]
pub struct Seat {
    /// The driver's name.
    pub driver: String,
    /// The node it runs on, for a node process.
    pub node: Option<NodeSeat>,
    /// The machine of that node. `None` for a controller process.
    pub host: Option<Arc<dyn Host>>,
    /// The storage system behind the driver, shared by all its processes.
    pub pool: Arc<dyn Pool>,
    /// Tasks and time.
    pub runtime: Arc<dyn Runtime>,
    /// A disk of its own that survives a crash: unsynced writes do not survive a power loss.
    pub disk: Disk,
    /// The `options` of the driver in the scenario, as JSON.
    pub options: serde_json::Value,
}

/// The node of a node process.
#[derive(Clone, Debug)]
pub struct NodeSeat {
    /// Its name, also its node id unless the driver chooses another.
    pub name: String,
    /// Its topology segments for this driver.
    pub topology: BTreeMap<String, String>,
    /// The attach limit of the node, 0 for none.
    pub max_volumes: i64,
}

/// Starts a process of a driver: gives its services, or the reason why it cannot start.
pub type Factory = Arc<dyn Fn(Seat) -> BoxFuture<'static, Result<Services, String>> + Send + Sync>;

type Handler = BoxCloneService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The services that one process of a driver serves.
#[derive(Clone, Default)]
pub struct Services {
    handlers: BTreeMap<&'static str, Arc<Mutex<Handler>>>,
}

impl Services {
    /// No services yet.
    pub fn new() -> Services {
        Services::default()
    }

    /// Adds a generated server, e.g. `IdentityServer::new(driver)`.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Services
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        self.handlers
            .insert(S::NAME, Arc::new(Mutex::new(BoxCloneService::new(service))));
        self
    }

    fn handler(&self, path: &str) -> Option<Handler> {
        let service = path.trim_start_matches('/').split('/').next()?;
        let handler = self.handlers.get(service)?;
        Some(handler.lock().expect("cloning a service does not panic").clone())
    }
}

/// Carries frames to the services of one incarnation of a driver process.
#[derive(Clone)]
pub struct InProcess {
    /// The tasks of the driver's process.
    pub tasks: Tasks,
    /// What it serves.
    pub services: Services,
}

/// What a caller reads when the process behind the socket dies during its call.
pub const DISCONNECTED: &str = "error reading from server: EOF";

type Head = http::Response<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>>;

impl Service<http::Request<Body>> for InProcess {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (head, received) = oneshot::channel();
        let handler = self.services.handler(request.uri().path());
        let behalf: Option<Behalf> = request.extensions_mut().remove();
        let serving = serve(handler, request, head);
        match behalf {
            Some(behalf) => self
                .tasks
                .spawn(behalf.operations.on_behalf(behalf.call, serving.boxed())),
            None => self.tasks.spawn(serving),
        }
        async move {
            let lost = || Status::unavailable(DISCONNECTED);
            let response: Head = received.await.map_err(|_| lost())?;
            // A stream that ends without trailers was cut off: the generated client reports it as an error of its own.
            Ok(response.map(|frames| Body::new(StreamBody::new(frames))))
        }
        .boxed()
    }
}

/// Runs on the driver's tasks: the handler and the drain of its answer. Stops when the caller has gone, as tonic does.
async fn serve(handler: Option<Handler>, request: http::Request<Body>, mut head: oneshot::Sender<Head>) {
    let Some(handler) = handler else {
        let _ = head.send(unimplemented_response());
        return;
    };
    let answer = handler.oneshot(request);
    let gone = head.cancellation();
    let response = match futures::future::select(answer, gone).await {
        futures::future::Either::Left((Ok(response), _)) => response,
        futures::future::Either::Left((Err(never), _)) => match never {},
        futures::future::Either::Right(_) => return,
    };
    let (parts, mut body) = response.into_parts();
    let (frames, received) = mpsc::unbounded();
    if head.send(http::Response::from_parts(parts, received)).is_err() {
        return;
    }
    while let Some(frame) = body.frame().await {
        if frames.unbounded_send(frame).is_err() {
            return;
        }
    }
}

fn unimplemented_response() -> Head {
    let (_, received) = mpsc::unbounded();
    Status::unimplemented("the process does not serve this")
        .into_http::<()>()
        .map(|()| received)
}

/// Collects the frames of a body, for tests of streams.
pub async fn frames(body: Body) -> Vec<Result<Frame<Bytes>, Status>> {
    StreamExt::collect(http_body_util::BodyStream::new(body)).await
}
