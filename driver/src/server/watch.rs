//! What is said of every call: a line in the log with its number, a line in the audit log if it may change something, and
//! counts for Prometheus. Of a request only what it is about is told ([`crate::note`]): requests carry secrets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::Code;
use tower::Service;
use tracing::Instrument;
use wavetank_proto::code::go_name;

use crate::note::Note;

use super::tokio_runtime::{Moment, now, wall};

/// Upper ends of the buckets, in seconds, as the sidecars have them.
const BUCKETS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];
/// Calls whose names begin so change nothing.
const LOOKING: [&str; 7] = [
    "ControllerGet",
    "Get",
    "GroupControllerGet",
    "List",
    "NodeGet",
    "Probe",
    "Validate",
];

/// All calls so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    calls: AtomicU64,
    counts: Mutex<BTreeMap<(String, &'static str), Count>>,
    /// The driver's name.
    driver: String,
    /// When the process started, in seconds since the Unix epoch.
    start: f64,
    audit: Option<Mutex<File>>,
}

#[derive(Debug, Default)]
struct Count {
    buckets: [u64; BUCKETS.len()],
    calls: u64,
    seconds: f64,
}

impl Watch {
    pub(super) fn open(driver: &str, audit: Option<&Path>) -> io::Result<Arc<Self>> {
        let audit = audit.map(|path| OpenOptions::new().append(true).create(true).open(path));
        Ok(Arc::new(Self {
            audit: audit.transpose()?.map(Mutex::new),
            driver: driver.to_owned(),
            start: wall().as_secs_f64(),
            ..Self::default()
        }))
    }

    fn over(&self, call: &Call) {
        let Call { number, path, code, .. } = call;
        let (about, spelled) = (call.note.text(), go_name(*code));
        let took = call.start.elapsed();
        let method = path.rsplit('/').next().unwrap_or(path);
        let milliseconds = took.as_secs_f64() * 1000.0;
        match code {
            Code::Ok => tracing::info!(request = number, method, about, milliseconds, "answered"),
            Code::Cancelled => tracing::warn!(request = number, method, about, milliseconds, "the caller went away"),
            _ => tracing::warn!(request = number, method, about, milliseconds, code = spelled, "refused"),
        }
        if let Some(audit) = &self.audit
            && !LOOKING.iter().any(|prefix| method.starts_with(prefix))
        {
            let at = wall().as_millis();
            let about = serde_json::Value::from(about);
            let line = format!(
                "{{\"at\":{at},\"request\":{number},\"method\":\"{method}\",\"about\":{about},\"code\":\"{spelled}\"}}\n"
            );
            let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = audit.write_all(line.as_bytes()) {
                tracing::error!("the audit log cannot be written: {error}");
            }
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((path.clone(), spelled)).or_default();
        count.calls += 1;
        count.seconds += took.as_secs_f64();
        for (bucket, end) in count.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took.as_secs_f64() <= end);
        }
    }

    /// In Prometheus' text format, under the name that the sidecars' library gives a plugin's calls.
    fn metrics(&self) -> String {
        const NAME: &str = "csi_plugin_operations_seconds";
        let mut text = format!(
            "# HELP {NAME} Duration of calls to this driver, by method and gRPC code.\n# TYPE {NAME} histogram\n"
        );
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for ((path, code), count) in counts.iter() {
            let labels = format!(
                "driver_name=\"{}\",method_name=\"{path}\",grpc_status_code=\"{code}\"",
                self.driver
            );
            for (bucket, end) in count.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(text, "{NAME}_bucket{{{labels},le=\"{end}\"}} {bucket}");
            }
            let _ = writeln!(text, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", count.calls);
            let _ = writeln!(text, "{NAME}_sum{{{labels}}} {}", count.seconds);
            let _ = writeln!(text, "{NAME}_count{{{labels}}} {}", count.calls);
        }
        let _ = writeln!(
            text,
            "# HELP process_start_time_seconds Start time of the process since the Unix epoch."
        );
        let _ = writeln!(
            text,
            "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}",
            self.start
        );
        text
    }
}

/// Answers every request with the counts so far: there is one page.
pub(super) async fn serve_metrics(listener: TcpListener, watch: Arc<Watch>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let body = watch.metrics();
        tokio::spawn(async move {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// A call under way. It is over when this is dropped: also if its caller went away before the whole answer, and then what it started goes on.
struct Call {
    watch: Arc<Watch>,
    number: u64,
    path: String,
    note: Note,
    start: Moment,
    code: Code,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.watch.over(self);
    }
}

/// Puts a [`Watch`] around the services.
#[derive(Clone)]
pub(super) struct Layer(pub(super) Arc<Watch>);

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        let watch = Arc::clone(&self.0);
        Watched { inner, watch }
    }
}

/// Services with a [`Watch`] around them.
#[derive(Clone)]
pub(super) struct Watched<S> {
    inner: S,
    watch: Arc<Watch>,
}

impl<S, B, R> Service<http::Request<B>> for Watched<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = http::Response<Answer<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let watch = Arc::clone(&self.watch);
        let number = watch.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.uri().path().to_owned();
        let note = Note::default();
        request.extensions_mut().insert(note.clone());
        let span = tracing::info_span!("call", request = number);
        let answering = self.inner.call(request).instrument(span);
        let call = Call {
            watch,
            number,
            path,
            note,
            start: now(),
            code: Code::Cancelled,
        };
        Box::pin(async move {
            let mut call = call;
            let answer = answering.await?;
            // A refusal has its code in the headers; after an answer, or what there was of one, it follows in the trailers.
            let call = match code(answer.headers()) {
                Some(code) => {
                    call.code = code;
                    None
                }
                None => Some(call),
            };
            Ok(answer.map(|body| Answer { body, call }))
        })
    }
}

fn code(headers: &http::HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// The body of an answer. Its call is over when it has ended: its code comes last.
pub(super) struct Answer<R> {
    body: R,
    call: Option<Call>,
}

impl<R: Body + Unpin> Body for Answer<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(code) = frame.trailers_ref().and_then(code)
            && let Some(mut call) = self.call.take()
        {
            call.code = code;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::poll_fn;

    use tower_layer::Layer as _;

    use super::*;

    /// Frames that are there already.
    struct Ready(VecDeque<Frame<&'static [u8]>>);

    impl Body for Ready {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<&'static [u8]>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn status(code: Code) -> http::HeaderMap {
        let code = i32::from(code).into();
        [(http::HeaderName::from_static("grpc-status"), code)]
            .into_iter()
            .collect()
    }

    /// How an answer is counted of which the caller takes so many frames: two pages, then this code.
    async fn counted(last: Code, frames: usize) -> Vec<&'static str> {
        let watch = Watch::open("d", None).unwrap();
        let mut watched = Layer(Arc::clone(&watch)).layer(tower::service_fn(move |_: http::Request<()>| {
            let pages = [b"one", b"two"].map(|page| Frame::data(&page[..]));
            let body = Ready(pages.into_iter().chain([Frame::trailers(status(last))]).collect());
            std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
        }));
        let mut answer = watched.call(http::Request::new(())).await.unwrap().into_body();
        for nth in 0..frames {
            assert!(watch.counts.lock().unwrap().is_empty(), "not over after {nth} frames");
            poll_fn(|context| Pin::new(&mut answer).poll_frame(context)).await;
        }
        // Whoever has heard the end finds it counted.
        assert_eq!(watch.counts.lock().unwrap().is_empty(), frames < 3);
        drop(answer);
        let counts = watch.counts.lock().unwrap();
        counts.keys().map(|(_, code)| *code).collect()
    }

    #[tokio::test]
    async fn a_stream_is_counted_with_its_last_code() {
        assert_eq!(counted(Code::Ok, 3).await, ["OK"]);
        assert_eq!(counted(Code::Unavailable, 3).await, ["Unavailable"]);
        assert_eq!(counted(Code::Ok, 1).await, ["Canceled"], "its caller went away");
    }

    #[tokio::test]
    async fn a_refusal_is_counted_at_once() {
        let watch = Watch::open("d", None).unwrap();
        let mut watched = Layer(Arc::clone(&watch)).layer(tower::service_fn(|_: http::Request<()>| {
            let mut answer = http::Response::new(Ready(VecDeque::new()));
            *answer.headers_mut() = status(Code::NotFound);
            std::future::ready(Ok::<_, Infallible>(answer))
        }));
        let answer = watched.call(http::Request::new(())).await.unwrap();
        let counts = watch.counts.lock().unwrap();
        assert_eq!(counts.keys().map(|(_, code)| *code).collect::<Vec<_>>(), ["NotFound"]);
        drop(answer);
    }
}
