//! A call on its way out: sent at once, answered at its drawn moment, however long the driver really takes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use super::flights::Flight;
use super::process::Process;
use crate::link::inproc::DISCONNECTED;
use crate::link::layers::Sleeper;

/// The way to one life of an outside process. Its answers come after `takes` of virtual time.
#[derive(Clone)]
pub struct Wire {
    pub(super) process: Arc<Process>,
    /// The call, for what is said of it.
    pub(super) method: &'static str,
    pub(super) takes: Duration,
    pub(super) clock: Arc<dyn Sleeper>,
}

/// What came back: an answer, or why there is none.
pub(super) enum Back {
    Answer(http::Response<Body>),
    /// The connection broke.
    Broken(String),
    /// The watchdog's time is over.
    Hung,
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(life) = self.process.life() else {
            return futures::future::ready(Err(Status::unavailable(DISCONNECTED))).boxed();
        };
        // A deadline in virtual time means nothing to the driver.
        request.headers_mut().remove("grpc-timeout");
        let (answer, answered) = channel();
        let patience = self.process.patience();
        let flight = self.process.takes_off(self.method);
        self.process
            .threads()
            .spawn(carry(life.channel, request, patience, answer, flight));
        let mut pending = Pending {
            answered: Some(answered),
            process: Arc::clone(&self.process),
            method: self.method,
        };
        pending.process.departs(self.method);
        let due = self.clock.sleep(self.takes);
        async move {
            match select(due, life.death).await {
                Either::Left(_) => pending.take(),
                Either::Right(_) => {
                    pending.forget();
                    Err(Status::unavailable(DISCONNECTED))
                }
            }
        }
        .boxed()
    }
}

/// On the real threads: sends the request, gathers the whole answer.
async fn carry(
    mut channel: Channel,
    request: http::Request<Body>,
    patience: Duration,
    answer: Sender<Back>,
    mut flight: Flight,
) {
    flight.queue().await;
    let exchange = async {
        let channel = channel.ready().await.map_err(|error| spell(&error))?;
        let response = channel.call(request).await.map_err(|error| spell(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|status| status.message().to_owned())?;
        let trailers = body.trailers().cloned();
        let data: Option<Result<Frame<Bytes>, Status>> = Some(Ok(Frame::data(body.to_bytes())));
        let frames = data.into_iter().chain(trailers.map(|t| Ok(Frame::trailers(t))));
        let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
        Ok::<_, String>(http::Response::from_parts(head, body))
    };
    let back = match tokio::time::timeout(patience, exchange).await {
        Ok(Ok(response)) => Back::Answer(response),
        Ok(Err(why)) => Back::Broken(why),
        Err(_) => Back::Hung,
    };
    // Nobody waits any more when the run is over.
    let _ = answer.send(back);
    drop(flight);
}

fn spell(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {}", spell(cause)))
}

/// A call that is under way. One whose caller gave up is let finish before virtual time goes on.
struct Pending {
    answered: Option<Receiver<Back>>,
    process: Arc<Process>,
    method: &'static str,
}

impl Pending {
    fn take(&mut self) -> Result<http::Response<Body>, Status> {
        match self.wait() {
            Some(Back::Answer(response)) => Ok(response),
            Some(Back::Broken(_) | Back::Hung) | None => Err(Status::unavailable(DISCONNECTED)),
        }
    }

    /// Waits in real time; the answer's own time has come.
    fn wait(&mut self) -> Option<Back> {
        let answered = self.answered.take()?;
        let back = answered.recv().ok()?;
        self.process.arrives(self.method, &back);
        Some(back)
    }

    fn forget(&mut self) {
        self.answered = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.process.life().is_some() {
            self.wait();
        }
    }
}
