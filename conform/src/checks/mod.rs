//! Every check, by service. The order is the one in which they are run: what is simple first.

mod capacity;
mod concurrency;
mod contents;
mod create;
mod delete;
mod expand;
mod group;
mod identity;
mod leftovers;
mod lifecycle;
mod list;
mod metadata;
mod modify;
mod node;
mod paging;
mod publish;
mod repeats;
mod restart;
mod snapshot;
mod stage;
mod stats;
mod target;
mod validate;

use crate::check::Check;

/// Declares checks: weight, name, obligation, source, needs, function.
macro_rules! checks {
    ($service:ident: $($weight:ident $name:literal, $obligation:literal, $source:literal, [$($need:expr),* $(,)?], $function:path;)*) => {
        pub(crate) const CHECKS: &[crate::check::Check] = &[$(crate::check::Check {
            name: $name,
            service: crate::check::Service::$service,
            weight: crate::check::Weight::$weight,
            obligation: $obligation,
            source: $source,
            needs: &[$($need),*],
            run: |lab| Box::pin($function(lab)),
        }),*];
    };
}
use checks;

/// What most checks name.
mod prelude {
    pub(super) use tonic::Code::{
        Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted,
    };
    pub(super) use wavetank_proto::csi::v1 as csi;
    pub(super) use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
    pub(super) use wavetank_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;

    pub(super) use super::checks;
    pub(super) use crate::check::{Need, Outcome, Stop, broken, expect};
    pub(super) use crate::lab::{Lab, range};

    /// An id that no driver has given.
    pub(super) const NOBODY: &str = "wavetank-no-such-thing";
}

/// Every check, in the order in which they are run.
pub fn all() -> Vec<&'static Check> {
    let groups = [
        identity::CHECKS,
        capacity::CHECKS,
        create::CHECKS,
        delete::CHECKS,
        publish::CHECKS,
        validate::CHECKS,
        list::CHECKS,
        paging::CHECKS,
        expand::CHECKS,
        modify::CHECKS,
        snapshot::CHECKS,
        group::CHECKS,
        metadata::CHECKS,
        node::CHECKS,
        stage::CHECKS,
        target::CHECKS,
        stats::CHECKS,
        lifecycle::CHECKS,
        repeats::CHECKS,
        concurrency::CHECKS,
        restart::CHECKS,
        contents::CHECKS,
        leftovers::CHECKS,
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_everything_is_said() {
        let all = super::all();
        let names: BTreeSet<&str> = all.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), all.len(), "two checks have one name");
        for check in all {
            assert!(check.name.contains('/') && check.name.len() <= 48, "{}", check.name);
            assert!(
                check.obligation.ends_with('.') && !check.source.is_empty(),
                "{}",
                check.name
            );
        }
    }
}
