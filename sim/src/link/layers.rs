//! What stands between a caller and the wire, as tower layers: the caller's deadline, and whatever a scenario does to the answer.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Something that completes after a virtual duration. Dropping the future forgets it.
pub trait Sleeper: Send + Sync + 'static {
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Gives up after the caller's timeout with DEADLINE_EXCEEDED and drops the call, as a gRPC client does.
#[derive(Clone)]
pub struct DeadlineLayer {
    /// The caller's timeout.
    pub timeout: Duration,
    /// The clock.
    pub clock: Arc<dyn Sleeper>,
}

/// See [`DeadlineLayer`].
#[derive(Clone)]
pub struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, R> Service<R> for Deadline<S>
where
    S: Service<R, Error = Status>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = Status;
    type Future = BoxFuture<'static, Result<S::Response, Status>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let answer = self.inner.call(request);
        let limit = self.layer.clock.sleep(self.layer.timeout);
        async move {
            match select(Box::pin(answer), limit).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), _)) => Err(Status::deadline_exceeded("context deadline exceeded")),
            }
        }
        .boxed()
    }
}

/// What happens to one call on its way.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Tamper {
    /// Nothing.
    #[default]
    Pass,
    /// The caller gets this code; the driver never sees the call.
    Refuse(Code, String),
    /// The same, but the code arrives this much later.
    RefuseLate(Code, String, Duration),
    /// The driver executes the call; the caller gets this code.
    Replace(Code, String),
    /// The same, but the code arrives this much later.
    ReplaceLate(Code, String, Duration),
    /// The driver executes the call; its answer arrives this much later.
    Late(Duration),
    /// The driver executes the call; no answer ever arrives.
    Lose,
    /// The driver sees the call this much later.
    Delay(Duration),
}

/// Does to a call what its [`Tamper`] says.
#[derive(Clone)]
pub struct TamperLayer {
    /// What to do.
    pub tamper: Tamper,
    /// The clock.
    pub clock: Arc<dyn Sleeper>,
}

/// See [`TamperLayer`].
#[derive(Clone)]
pub struct Tampered<S> {
    inner: S,
    layer: TamperLayer,
}

impl<S> Layer<S> for TamperLayer {
    type Service = Tampered<S>;

    fn layer(&self, inner: S) -> Tampered<S> {
        Tampered {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, R> Service<R> for Tampered<S>
where
    S: Service<R, Error = Status> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = Status;
    type Future = BoxFuture<'static, Result<S::Response, Status>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let TamperLayer { tamper, clock } = self.layer.clone();
        if let Tamper::Refuse(code, message) = tamper {
            return futures::future::ready(Err(Status::new(code, message))).boxed();
        }
        if let Tamper::RefuseLate(code, message, delay) = tamper {
            let late = clock.sleep(delay);
            return late.map(move |()| Err(Status::new(code, message))).boxed();
        }
        // The service that was polled ready takes the call; its clone stays behind.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        async move {
            if let Tamper::Delay(delay) = tamper {
                clock.sleep(delay).await;
            }
            let answer = inner.call(request).await;
            match tamper {
                Tamper::Replace(code, message) => Err(Status::new(code, message)),
                Tamper::ReplaceLate(code, message, delay) => {
                    clock.sleep(delay).await;
                    Err(Status::new(code, message))
                }
                Tamper::Late(delay) => {
                    clock.sleep(delay).await;
                    answer
                }
                Tamper::Lose => never(answer).await,
                Tamper::Pass | Tamper::Delay(_) | Tamper::Refuse(..) | Tamper::RefuseLate(..) => answer,
            }
        }
        .boxed()
    }
}

fn never<T: Send + 'static>(answer: T) -> impl Future<Output = T> + Send {
    drop(answer);
    std::future::pending()
}

#[cfg(test)]
mod tests {
    use super::{DeadlineLayer, Sleeper, Tamper, TamperLayer};
    use futures::FutureExt;
    use futures::channel::oneshot;
    use futures::future::BoxFuture;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tonic::{Code, Status};
    use tower::{Layer, Service, ServiceExt};

    /// A clock whose sleeps end when the test says so.
    #[derive(Default)]
    struct Bell(Mutex<Vec<(Duration, oneshot::Sender<()>)>>);

    impl Sleeper for Bell {
        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            let (ring, rung) = oneshot::channel();
            self.0.lock().unwrap().push((duration, ring));
            rung.map(|_| ()).boxed()
        }
    }

    impl Bell {
        fn ring(&self) -> Duration {
            let (duration, ring) = self.0.lock().unwrap().remove(0);
            ring.send(()).unwrap();
            duration
        }
    }

    type Mock = tower_test::mock::Mock<&'static str, &'static str>;
    type Handle = tower_test::mock::Handle<&'static str, &'static str>;

    fn mocked() -> (
        impl Service<&'static str, Response = &'static str, Error = Status, Future: Send> + Clone + Send,
        Handle,
    ) {
        let (mock, handle): (Mock, Handle) = tower_test::mock::pair();
        (
            mock.map_err(|e| *e.downcast::<Status>().expect("the test answers with a status")),
            handle,
        )
    }

    async fn accept(handle: &mut Handle) -> (&'static str, tower_test::mock::SendResponse<&'static str>) {
        handle.next_request().await.expect("the call reaches the driver")
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        futures::executor::block_on(future)
    }

    #[test]
    fn an_answer_in_time_wins_over_the_deadline() {
        block(async {
            let (service, mut handle) = mocked();
            let bell = Arc::new(Bell::default());
            let clock: Arc<dyn Sleeper> = Arc::clone(&bell) as _;
            let timeout = Duration::from_secs(10);
            let service = DeadlineLayer { timeout, clock }.layer(service);
            let call = service.oneshot("create");
            let driver = async {
                accept(&mut handle).await.1.send_response("made");
            };
            assert_eq!(futures::join!(call, driver).0.unwrap(), "made");
        });
    }

    #[test]
    fn the_deadline_ends_the_call_with_deadline_exceeded_although_the_driver_has_it() {
        block(async {
            let (service, mut handle) = mocked();
            let bell = Arc::new(Bell::default());
            let clock: Arc<dyn Sleeper> = Arc::clone(&bell) as _;
            let service = DeadlineLayer {
                timeout: Duration::from_secs(10),
                clock,
            }
            .layer(service);
            let call = service.oneshot("create");
            let driver = async {
                let (_, answer) = accept(&mut handle).await;
                assert_eq!(bell.ring(), Duration::from_secs(10));
                answer
            };
            let (outcome, answer) = futures::join!(call, driver);
            assert_eq!(outcome.unwrap_err().code(), Code::DeadlineExceeded);
            answer.send_response("too late to matter");
        });
    }

    #[test]
    fn a_refused_call_never_reaches_the_driver() {
        block(async {
            let (service, mut handle) = mocked();
            let tamper = Tamper::Refuse(Code::Unavailable, "injected".into());
            let service = TamperLayer {
                tamper,
                clock: Arc::new(Bell::default()),
            }
            .layer(service);
            assert_eq!(service.oneshot("create").await.unwrap_err().code(), Code::Unavailable);
            assert!(handle.next_request().await.is_none(), "the driver saw nothing");
        });
    }

    #[test]
    fn a_replaced_answer_is_one_whose_effect_happened() {
        block(async {
            let (service, mut handle) = mocked();
            let tamper = Tamper::Replace(Code::Internal, "injected".into());
            let service = TamperLayer {
                tamper,
                clock: Arc::new(Bell::default()),
            }
            .layer(service);
            let call = service.oneshot("create");
            let driver = async {
                let (request, answer) = accept(&mut handle).await;
                answer.send_response("made");
                request
            };
            let (outcome, seen) = futures::join!(call, driver);
            assert_eq!((outcome.unwrap_err().code(), seen), (Code::Internal, "create"));
        });
    }

    #[test]
    fn a_late_answer_waits_after_the_driver_has_done_its_work() {
        block(async {
            let (service, mut handle) = mocked();
            let bell = Arc::new(Bell::default());
            let clock: Arc<dyn Sleeper> = Arc::clone(&bell) as _;
            let service = TamperLayer {
                tamper: Tamper::Late(Duration::from_secs(11)),
                clock,
            }
            .layer(service);
            let mut call = Box::pin(service.oneshot("create"));
            assert!(futures::poll!(&mut call).is_pending());
            accept(&mut handle).await.1.send_response("made");
            assert!(futures::poll!(&mut call).is_pending(), "the answer is on its way");
            assert_eq!(bell.ring(), Duration::from_secs(11));
            assert_eq!(call.await.unwrap(), "made");
        });
    }
}
