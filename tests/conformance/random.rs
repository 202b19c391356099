//! Requests of random bytes against every service of the reference driver; and drivers with a planted fault, which these requests must find.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tonic::{Request, Response, Status};
use wavetank_driver::{Host, HostPath, Pool};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::identity_server::{Identity, IdentityServer};
use wavetank_sim::conform::{Tank, Trouble, fuzz};
use wavetank_sim::link::{Factory, METHODS};

/// Bytes from a seed, the same everywhere.
fn bytes(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn random_requests_do_no_harm() {
    let mut methods = BTreeSet::new();
    let (mut good, mut all) = (0, 0);
    for seed in 0..40 {
        let tally =
            fuzz(&Tank::reference(), "", &bytes(seed)).unwrap_or_else(|trouble| panic!("seed {seed}: {trouble}"));
        for ((method, code), count) in tally {
            methods.insert(method);
            all += count;
            good += if code == "OK" { count } else { 0 };
        }
    }
    // Otherwise the requests would be too wild, or too tame.
    assert!(
        good * 10 > all && good * 10 < all * 9,
        "{good} of {all} were answered OK"
    );
    assert_eq!(methods.len(), METHODS.len() + 2, "with both streams: {methods:?}");
}

#[test]
fn so_do_those_of_each_service_and_kind_of_driver() {
    let services = ["Identity", "Controller", "GroupController", "SnapshotMetadata", "Node"];
    let kinds = [
        serde_json::json!({}),
        serde_json::json!({"stage": false}),
        serde_json::json!({"attach": false}),
    ];
    for (nth, service) in services.into_iter().enumerate() {
        for (kind, options) in kinds.iter().enumerate() {
            let tank = Tank {
                options: options.clone(),
                ..Tank::reference()
            };
            for seed in 0..3 {
                let seed = 1000 + 100 * nth as u64 + 10 * kind as u64 + seed;
                fuzz(&tank, service, &bytes(seed))
                    .unwrap_or_else(|trouble| panic!("{service}, {options}, seed {seed}: {trouble}"));
            }
        }
    }
}

/// What is planted into the Identity service.
#[derive(Clone, Copy, Debug)]
enum Plant {
    Panic,
    Hang,
    Code,
    Change,
    Leak,
}

struct Planted {
    plant: Plant,
    host: Option<Arc<dyn Host>>,
    pool: Arc<dyn Pool>,
}

#[tonic::async_trait]
impl Identity for Planted {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        let path = HostPath::parse("/var/lib/kubelet/planted").expect("a plain path");
        match self.plant {
            Plant::Panic => panic!("planted"),
            Plant::Hang => std::future::pending().await,
            Plant::Code => Err(Status::unknown("planted")),
            Plant::Change | Plant::Leak => {
                if let Some(host) = &self.host {
                    let _ = host.create_dir(&path).await;
                }
                for volume in self.pool.list().await.unwrap_or_default() {
                    let settings = [("tier".to_owned(), "planted".to_owned())].into();
                    let _ = self.pool.modify(&volume.id, &settings).await;
                    let _ = self
                        .pool
                        .grow(&volume.id, wavetank_driver::Bytes(volume.size.0 + 4096))
                        .await;
                }
                match self.plant {
                    Plant::Change => Err(Status::not_found("planted")),
                    _ => Ok(Response::new(Default::default())),
                }
            }
        }
    }
}

fn planted(plant: Plant) -> Tank {
    let reference = Tank::reference().factory;
    let factory: Factory = Arc::new(move |seat| {
        let identity = Planted {
            plant,
            host: seat.host.clone(),
            pool: Arc::clone(&seat.pool),
        };
        let services = reference(seat);
        async move { Ok(services.await?.with(IdentityServer::new(identity))) }.boxed()
    });
    Tank {
        factory,
        ..Tank::reference()
    }
}

#[test]
fn what_is_planted_is_found() {
    let found = |plant| fuzz(&planted(plant), "Identity", &bytes(7));
    assert!(matches!(found(Plant::Panic), Err(Trouble::Panic(text)) if text.contains("planted")));
    assert!(matches!(found(Plant::Hang), Err(Trouble::Hang(_))));
    assert!(matches!(found(Plant::Code), Err(Trouble::Code { code: "UNKNOWN", .. })));
    assert!(matches!(
        found(Plant::Change),
        Err(Trouble::Changed { code: "NOT_FOUND", .. })
    ));
    assert!(matches!(found(Plant::Leak), Err(Trouble::Left(text)) if text.contains("/var/lib/kubelet/planted")));
}
