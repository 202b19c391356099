//! What the API server keeps, and how its clients queue, retry and tell.

use std::time::Duration;

/// The API server. Sources: `pkg/controlplane/apiserver/options`, `staging/src/k8s.io/apiserver/pkg/storage/cacher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// `defaultLowerBoundCapacity` of a watch cache, in events.
    pub watch_cache_least: usize,
    /// `defaultUpperBoundCapacity` of a watch cache, in events.
    pub watch_cache_most: usize,
    /// `eventFreshDuration`: events younger than this are kept while the cache can grow.
    pub watch_cache_fresh: Duration,
}

/// Work queues of controllers. Source: client-go `util/workqueue/default_rate_limiters.go`.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkQueue {
    /// First wait of a failing key; it doubles.
    pub backoff: Duration,
    /// Longest wait of a failing key.
    pub backoff_cap: Duration,
    /// Retries a second of a whole queue.
    pub rate: f64,
    /// Retries saved up.
    pub burst: u32,
}

/// Operations that are refused while they back off. Source: `pkg/util/goroutinemap/exponentialbackoff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operations {
    /// `initialDurationBeforeRetry`.
    pub backoff: Duration,
    /// `maxDurationBeforeRetry`.
    pub backoff_cap: Duration,
}

/// The event recorder. Source: client-go `tools/record/events_cache.go`, `tools/events/event_broadcaster.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// `defaultAggregateMaxEvents`: from so many different messages on, alike remarks are one event.
    pub aggregate_from: usize,
    /// `defaultAggregateIntervalInSeconds`: aggregation starts anew after so long without a remark.
    pub aggregate_quiet: Duration,
    /// `finishTime`: a series starts anew after so long without a remark.
    pub series_quiet: Duration,
    /// `defaultSpamBurst`: events about one object at once.
    pub burst: u32,
    /// `defaultSpamQPS`: the time for each further one.
    pub refill: Duration,
    /// `maxLruCacheEntries`.
    pub cache: usize,
}

impl ApiServer {
    pub(super) const V1_36: ApiServer = ApiServer {
        watch_cache_least: 100,
        watch_cache_most: 102_400,
        watch_cache_fresh: Duration::from_secs(75),
    };
}

impl WorkQueue {
    pub(super) const V1_36: WorkQueue = WorkQueue {
        backoff: Duration::from_millis(5),
        backoff_cap: Duration::from_secs(1000),
        rate: 10.0,
        burst: 100,
    };
}

impl Operations {
    pub(super) const V1_36: Operations = Operations {
        backoff: Duration::from_millis(500),
        backoff_cap: Duration::from_secs(122),
    };
}

impl Events {
    pub(super) const V1_36: Events = Events {
        aggregate_from: 10,
        aggregate_quiet: Duration::from_secs(600),
        series_quiet: Duration::from_secs(360),
        burst: 25,
        refill: Duration::from_secs(300),
        cache: 4096,
    };
}
