//! Stands between the checks and an honest driver, and makes of it a wrong one: changes requests on their way and answers on theirs back.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;
use tower::service_fn;
use tower::util::BoxCloneService;
use wavetank_conform::{Machine, Side, UnderTest, Wire, descriptors, frame, read, unframe};

/// An answer on its way back.
pub(crate) type Answer = Result<DynamicMessage, Status>;

/// What is wrong with a driver.
#[derive(Clone)]
pub(crate) struct Flaw {
    /// The one method that is wrong.
    pub method: &'static str,
    /// Changes a request before the driver sees it.
    pub ask: fn(&mut DynamicMessage),
    /// Changes an answer; the request is as it was asked.
    pub answer: fn(&DynamicMessage, &mut Answer),
    /// Never answers a request of which this is true.
    pub hang: fn(&DynamicMessage) -> bool,
}

impl Flaw {
    /// None yet.
    pub fn of(method: &'static str) -> Flaw {
        Flaw {
            method,
            ask: |_| {},
            answer: |_, _| {},
            hang: |_| false,
        }
    }
}

/// A driver with a flaw.
pub(crate) struct Wrong {
    pub inner: Arc<dyn UnderTest>,
    pub flaw: Flaw,
}

/// The empty answer of a method, for one that should have been refused.
pub(crate) fn empty(method: &str) -> DynamicMessage {
    DynamicMessage::new(message_of(method, false))
}

fn message_of(method: &str, input: bool) -> MessageDescriptor {
    let services = descriptors().services();
    let found = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .find(|one| one.name() == method);
    let method = found.expect("CSI has this method");
    if input { method.input() } else { method.output() }
}

fn respond(answer: Answer) -> http::Response<Body> {
    match answer {
        Err(status) => status.into_http(),
        Ok(message) => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let frames = [
                Ok::<_, Status>(http_body::Frame::data(frame(&message.encode_to_vec()))),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
            http::Response::builder()
                .header("content-type", "application/grpc")
                .body(body)
                .expect("a well-formed answer")
        }
    }
}

async fn carry(wire: Wire, flaw: Flaw, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
    if request.uri().path().rsplit('/').next() != Some(flaw.method) {
        return wire.oneshot(request).await;
    }
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let bytes = unframe(&bytes).pop().unwrap_or_default();
    let asked = DynamicMessage::decode(message_of(flaw.method, true), bytes.as_slice())
        .expect("the checks send well-formed requests");
    if (flaw.hang)(&asked) {
        return std::future::pending().await;
    }
    let mut changed = asked.clone();
    (flaw.ask)(&mut changed);
    let body = Full::new(frame(&changed.encode_to_vec())).map_err(|never| match never {});
    let response = wire.oneshot(http::Request::from_parts(parts, Body::new(body))).await?;
    let mut answer = read(response).await.map(|messages| {
        let bytes = messages.into_iter().next().unwrap_or_default();
        DynamicMessage::decode(message_of(flaw.method, false), bytes.as_slice())
            .expect("the driver sends well-formed answers")
    });
    (flaw.answer)(&asked, &mut answer);
    Ok(respond(answer))
}

#[async_trait::async_trait]
impl UnderTest for Wrong {
    fn wire(&self, side: Side) -> Wire {
        let (wire, flaw) = (self.inner.wire(side), self.flaw.clone());
        let carry = move |request| carry(wire.clone(), flaw.clone(), request).boxed();
        BoxCloneService::new(service_fn(carry))
    }

    fn nodes(&self) -> usize {
        self.inner.nodes()
    }

    fn machine(&self, node: usize) -> &dyn Machine {
        self.inner.machine(node)
    }

    fn can_restart(&self) -> Result<(), String> {
        self.inner.can_restart()
    }

    async fn restart(&self) -> Result<(), String> {
        self.inner.restart().await
    }

    async fn ended(&self) -> Option<String> {
        self.inner.ended().await
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn inventory(&self) -> Option<Vec<String>> {
        self.inner.inventory()
    }
}

/// Is the answer this refusal?
pub(crate) fn is(answer: &Answer, code: Code) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == code)
}
