//! What the socket link costs: a call through it beside one of a plain client on the same socket, and whole runs around a driver outside. `docs/speed.md` has
//! the table.
//!
//! Run with `cargo build --release --workspace --bins && cargo bench -p wavetank-tests --bench socket`: the agent and the driver are the commands that lie beside the
//! benchmark.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tower::util::BoxCloneService;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::identity_client::IdentityClient;
use wavetank_sim::link::layers::Sleeper;
use wavetank_sim::link::socket::{Outside, Process, Profile, Program, Run, scratch};
use wavetank_sim::link::{CsiReply, CsiRequest};
use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario;

/// As in the `wavetank` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A command that lies beside the benchmark.
fn command(name: &str) -> std::path::PathBuf {
    let file = Path::new(env!("CARGO_BIN_EXE_newcomer-driver")).with_file_name(name);
    assert!(
        file.is_file(),
        "{} is missing: build the workspace's commands first",
        file.display()
    );
    file
}

/// The reference driver with its volumes in memory.
fn outside() -> Arc<Outside> {
    let driver = command("wavetank-driver");
    let text = format!(
        "name: csi.wavetank.dev\nnodes: 1\nmounts: false\nkeepsState: false\ncombined:\n  command: ['{}', --endpoint, '{{endpoint}}', --node-id, '{{node}}', \
         --backend, memory, --state-dir, '{{state_dir}}', --root, '{{kubelet_dir}}']\n",
        driver.display()
    );
    let profile = Profile::read("bench.yaml", text).expect("a profile");
    let program = Program {
        file: command("wavetank"),
        prefix: vec!["agent".to_owned()],
    };
    Outside::open(profile, program, &scratch("bench")).expect("the driver can be asked")
}

/// A driver that runs, and the directory of its node.
fn running(outside: &Arc<Outside>) -> (Arc<Run>, Arc<Process>, String) {
    let run = outside.begin();
    let shape = outside.profile().combined.clone().expect("one process");
    let process = run.process("node-1", &shape, "csi.wavetank.dev", true);
    process.start().expect("the driver starts");
    let socket = run.place("node-1").directory.join("csi.sock");
    let socket = format!("unix://{}", socket.display());
    (run, process, socket)
}

/// Virtual time that passes at once.
struct AtOnce;

impl Sleeper for AtOnce {
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        futures::future::ready(()).boxed()
    }
}

fn main() {
    divan::main();
}

/// A call of a plain client: the bare cost.
#[divan::bench(sample_count = 50, sample_size = 200)]
fn plain_call(bencher: Bencher<'_, '_>) {
    let outside = outside();
    let (run, _process, socket) = running(&outside);
    let threads = Runtime::new().expect("threads");
    let endpoint = Endpoint::from_shared(socket).expect("an address");
    let channel: Channel = threads.block_on(endpoint.connect()).expect("the driver serves");
    bencher.bench_local(|| {
        let mut client = IdentityClient::new(channel.clone());
        threads.block_on(client.probe(csi::ProbeRequest {})).expect("an answer")
    });
    run.end();
    run.clear();
}

/// The same call through the link, in virtual time that passes at once.
#[divan::bench(sample_count = 50, sample_size = 200)]
fn call_through_the_link(bencher: Bencher<'_, '_>) {
    let outside = outside();
    let (run, process, _) = running(&outside);
    let clock: Arc<dyn Sleeper> = Arc::new(AtOnce);
    bencher.bench_local(|| {
        let wire = BoxCloneService::new(process.wire("Probe", Duration::ZERO, Arc::clone(&clock)));
        let call = CsiRequest::from(csi::ProbeRequest {}).send(wire, Duration::from_secs(1));
        let answer = futures::executor::block_on(call).expect("an answer");
        assert!(matches!(answer, CsiReply::Probe(_)));
    });
    run.end();
    run.clear();
}

/// Whole runs of `errors/create-answers-lost` around the reference driver: agent, driver and cluster start and end with each.
#[divan::bench(sample_count = 20)]
fn whole_runs(bencher: Bencher<'_, '_>) {
    let outside = outside();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/errors/create-answers-lost.yaml");
    let scenario = scenario::load_file(&file).expect("a scenario");
    let options = Options {
        outside: Some(Arc::clone(&outside)),
        ..Options::default()
    };
    bencher.bench_local(|| assert!(play(&scenario, &options).verdict.held()));
}
