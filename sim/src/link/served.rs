//! What one life of a driver's process is to a caller, whichever link leads there.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tower::util::BoxCloneService;

use super::inproc::{InProcess, Services};
use super::layers::Sleeper;
use super::socket;
use super::{CsiReply, CsiRequest, Wire};
use crate::runtime::{Chance, Tasks};

/// One life of a driver's process, as callers reach it.
#[derive(Clone)]
pub enum Served {
    /// Its services, on the tasks of the process.
    InProcess(Services),
    /// A process of its own, behind a socket.
    Outside(Arc<socket::Process>),
}

impl From<Services> for Served {
    fn from(services: Services) -> Served {
        Served::InProcess(services)
    }
}

impl Served {
    /// The way of one call. `name` is the process's, whose `tasks` these are.
    pub fn wire(
        &self,
        request: &CsiRequest,
        name: &str,
        tasks: &Tasks,
        chance: &Chance,
        clock: &Arc<dyn Sleeper>,
    ) -> Wire {
        match self {
            Served::InProcess(services) => BoxCloneService::new(InProcess {
                tasks: tasks.clone(),
                services: services.clone(),
            }),
            Served::Outside(process) => {
                let method = request.method();
                let drawn = chance.unit(&["link", "call", name, method], process.nth(method));
                let takes = typical(method).mul_f64(0.5 + drawn);
                BoxCloneService::new(process.wire(method, takes, Arc::clone(clock)))
            }
        }
    }

    /// The request as the driver gets it.
    pub fn request(&self, request: CsiRequest) -> CsiRequest {
        match self {
            Served::InProcess(_) => request,
            Served::Outside(process) => process.names().request(request),
        }
    }

    /// The answer as the caller gets it.
    pub fn answer(&self, answer: Result<CsiReply, Status>) -> Result<CsiReply, Status> {
        match self {
            Served::InProcess(_) => answer,
            Served::Outside(process) => answer.map(|reply| process.names().reply(reply)).map_err(|status| {
                Status::with_details(
                    status.code(),
                    process.names().sentence(status.message()),
                    bytes::Bytes::copy_from_slice(status.details()),
                )
            }),
        }
    }
}

/// How long a call to an outside driver takes in virtual time, on average: draws lie between half and one and a half of it.
fn typical(method: &str) -> Duration {
    Duration::from_millis(match method {
        "CreateVolume" | "DeleteVolume" | "CreateSnapshot" | "DeleteSnapshot" | "ControllerExpandVolume" => 50,
        "ControllerPublishVolume" | "ControllerUnpublishVolume" | "ControllerModifyVolume" => 30,
        "NodeStageVolume" | "NodeUnstageVolume" | "NodeExpandVolume" => 60,
        "NodePublishVolume" | "NodeUnpublishVolume" => 20,
        _ => 2,
    })
}
