//! The steps of a scenario, one function each.

use std::time::Duration;

use tonic::Code as GrpcCode;

use super::judge::targets;
use super::{KUBECTL, Player};
use crate::api::{
    ApiError, Delete as DeleteWrite, Edit, Kind, ObjKey, ObjectRef, Patch as PatchWrite, Write as ApiWrite,
};
use crate::cluster::{Injection, PinnedBy};
use crate::faults::{Fault, Strike};
use crate::link::layers::Tamper;
use crate::scenario::{
    Apply, Condition, Crash, Delete, Healed, Inject, InjectPhase, ObjectCondition, Patch, PatchType, Process, Refusal,
    Role, Site, Step, Taint, Target, Times, Untaint,
};

type Outcome = Result<(), String>;

impl Player<'_> {
    /// Performs one step.
    pub(super) async fn step(&mut self, step: &Step) -> Outcome {
        self.books.catch_up(self.cluster.trace());
        self.look_at_data();
        // What pods write and read is noted when it is known what came of it.
        if !matches!(step, Step::Write(_) | Step::Verify(_)) {
            self.cluster.note_step(self.local(step).headline());
        }
        match step {
            Step::Apply(apply) => self.apply(apply).await,
            Step::Patch(patch) => self.patch(patch).await,
            Step::Delete(delete) => self.delete(delete).await,
            Step::Wait(wait) => self.wait(&wait.until, wait.within.get()).await,
            Step::Write(write) => self.pod_write(write).await,
            Step::Verify(verify) => self.pod_verify(verify).await,
            Step::Cordon(node) => self.schedulable(node, false).await,
            Step::Uncordon(node) => self.schedulable(node, true).await,
            Step::Taint(taint) => self.taint(taint).await,
            Step::Untaint(untaint) => self.untaint(untaint).await,
            Step::Run(duration) => {
                self.run_for(duration.get()).await;
                Ok(())
            }
            Step::Restart(process) => self.stop_then_start(process, Some(Duration::ZERO)).await,
            Step::Stop(process) => self.stop_then_start(process, None).await,
            Step::Start(process) => self.start(process),
            Step::Crash(crash) => self.crash(crash).await,
            Step::Strike(strike) => self.cluster.pin(self.local_strike(strike), PinnedBy::Scenario),
            Step::Inject(inject) => self.inject(inject),
            Step::Heal(healed) => self.heal(healed),
            Step::Expect(expectations) => {
                for expectation in expectations {
                    self.expect(expectation).await?;
                }
                Ok(())
            }
        }
    }

    async fn apply(&mut self, apply: &Apply) -> Outcome {
        apply.judge_reading()?;
        let mut refused: Option<ApiError> = None;
        for manifest in &apply.manifests {
            self.run_for(KUBECTL).await;
            self.want(manifest);
            if let Err(error) = self.cluster.create_or_merge(manifest) {
                refused = Some(error);
                break;
            }
        }
        let answer = refused.as_ref().map_or(Ok(()), |e| Err((e.code, e.message.as_str())));
        Refusal::judge(apply.refused.as_ref(), answer)
    }

    async fn patch(&mut self, patch: &Patch) -> Outcome {
        self.run_for(KUBECTL).await;
        let edit = match patch.type_ {
            PatchType::Json => Edit::Json(patch.patch.clone()),
            PatchType::Merge => Edit::Merge(patch.patch.clone()),
            PatchType::Strategic => Edit::Strategic(patch.patch.clone()),
        };
        let status = patch.subresource.is_some();
        for target in self.targets(&patch.target)? {
            let write = PatchWrite {
                status,
                ..PatchWrite::new(target, vec![edit.clone()])
            };
            judge(patch.refused.as_ref(), &self.cluster.apply(&ApiWrite::Patch(write)))?;
        }
        Ok(())
    }

    async fn delete(&mut self, delete: &Delete) -> Outcome {
        self.run_for(KUBECTL).await;
        self.want_no_longer(&delete.target);
        let targets = self.targets(&delete.target)?;
        for target in &targets {
            let grace_seconds = if delete.force {
                Some(0)
            } else {
                delete.grace_period_seconds
            };
            let write = DeleteWrite {
                grace_seconds,
                ..DeleteWrite::new(target.clone())
            };
            self.cluster.user_gives_up(target);
            judge(delete.refused.as_ref(), &self.cluster.apply(&ApiWrite::Delete(write)))?;
        }
        let Some(within) = delete.wait else { return Ok(()) };
        let gone = ObjectCondition {
            gone: true,
            ..ObjectCondition::on(delete.target.clone())
        };
        self.wait(&Condition::Object(gone), within.get()).await
    }

    fn targets(&self, target: &Target) -> Result<Vec<ObjectRef>, String> {
        let found = targets(&self.cluster, &self.books, target);
        if found.is_empty() {
            Err(format!("there is no {target}"))
        } else {
            Ok(found)
        }
    }

    fn node_edit(&mut self, node: &str, verb: &str, edit: Edit) -> Outcome {
        let target = ObjectRef::new(Kind::Node, ObjKey::cluster(node));
        let write = ApiWrite::Patch(PatchWrite::new(target, vec![edit]));
        self.cluster
            .apply(&write)
            .map(|_| ())
            .map_err(|e| format!("{verb} {node}: {}", e.message))
    }

    async fn schedulable(&mut self, node: &str, schedulable: bool) -> Outcome {
        self.run_for(KUBECTL).await;
        let verb = if schedulable { "uncordon" } else { "cordon" };
        self.node_edit(node, verb, Edit::Unschedulable(!schedulable))
    }

    async fn taint(&mut self, taint: &Taint) -> Outcome {
        self.run_for(KUBECTL).await;
        let mut taints = self.taints(&taint.node)?;
        let wanted = k8s_openapi::api::core::v1::Taint {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: taint.effect.as_str().to_owned(),
            time_added: None,
        };
        taints.retain(|t| t.key != wanted.key || t.effect != wanted.effect);
        taints.push(wanted);
        self.node_edit(&taint.node, "taint", Edit::Taints(taints))
    }

    async fn untaint(&mut self, untaint: &Untaint) -> Outcome {
        self.run_for(KUBECTL).await;
        let mut taints = self.taints(&untaint.node)?;
        taints.retain(|t| t.key != untaint.key || untaint.effect.is_some_and(|e| e.as_str() != t.effect));
        self.node_edit(&untaint.node, "untaint", Edit::Taints(taints))
    }

    fn taints(&self, node: &str) -> Result<Vec<k8s_openapi::api::core::v1::Taint>, String> {
        let found = self
            .cluster
            .get::<k8s_openapi::api::core::v1::Node>(&ObjKey::cluster(node));
        let node = found.ok_or_else(|| format!("there is no node {node}"))?;
        Ok(node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default())
    }

    async fn stop_then_start(&mut self, process: &Process, down: Option<Duration>) -> Outcome {
        self.cluster
            .stop_named(&self.name(process), process.role == Role::Node)?;
        match down {
            Some(down) => {
                self.run_for(down).await;
                self.cluster
                    .start_named(&self.name(process), process.role == Role::Node)
            }
            None => Ok(()),
        }
    }

    fn start(&mut self, process: &Process) -> Outcome {
        self.cluster
            .start_named(&self.name(process), process.role == Role::Node)
    }

    async fn crash(&mut self, crash: &Crash) -> Outcome {
        let victim = crash.victim().ok_or("a crash needs a process or a site")?;
        if let Some(site) = &crash.at {
            let strike = Strike {
                at: self.local_site(site),
                fault: Fault::Crash {
                    process: self.local_process(victim),
                    down: crash.down,
                },
            };
            return self.cluster.pin(strike, PinnedBy::Scenario);
        }
        let (name, node) = (self.name(victim), victim.role == Role::Node);
        let down = crash.down.map(|d| d.get());
        self.cluster.crash_named(&name, node)?;
        match (down, node) {
            (Some(down), _) => self.cluster.start_later(&name, node, down),
            (None, false) => self.cluster.start_later(&name, node, Duration::ZERO),
            (None, true) => {}
        }
        Ok(())
    }

    /// The process's name in the cluster.
    fn name(&self, process: &Process) -> String {
        self.local_process(process).to_string()
    }

    /// A process as the cluster and `wavetank sites` spell it: the driver is left out where there is only one.
    fn local_process(&self, process: &Process) -> Process {
        let alone = self.scenario.cluster.only_driver().is_some();
        Process {
            driver: process.driver.clone().filter(|_| !alone),
            ..process.clone()
        }
    }

    fn local_site(&self, site: &Site) -> Site {
        Site {
            process: self.local_process(&site.process),
            ..site.clone()
        }
    }

    /// A fault whose processes are spelled so.
    pub(super) fn local_strike(&self, strike: &Strike) -> Strike {
        let mut strike = strike.clone();
        strike.at = self.local_site(&strike.at);
        if let Some(process) = strike.fault.process_mut() {
            *process = self.local_process(process);
        }
        strike
    }

    /// A step whose processes are spelled so.
    fn local(&self, step: &Step) -> Step {
        match step {
            Step::Restart(process) => Step::Restart(self.local_process(process)),
            Step::Stop(process) => Step::Stop(self.local_process(process)),
            Step::Start(process) => Step::Start(self.local_process(process)),
            Step::Crash(crash) => Step::Crash(Crash {
                process: crash.process.as_ref().map(|process| self.local_process(process)),
                at: crash.at.as_ref().map(|site| self.local_site(site)),
                down: crash.down,
            }),
            Step::Strike(strike) => Step::Strike(self.local_strike(strike)),
            other => other.clone(),
        }
    }

    fn inject(&mut self, inject: &Inject) -> Outcome {
        let message = || {
            inject
                .message
                .clone()
                .unwrap_or_else(|| "injected by the scenario".to_owned())
        };
        let code = inject.code.map(|code| GrpcCode::from_i32(code.number()));
        let tamper = match (code, inject.delay.map(|d| d.get()), inject.phase) {
            (Some(code), None, InjectPhase::Before) => Tamper::Refuse(code, message()),
            (Some(code), None, InjectPhase::After) => Tamper::Replace(code, message()),
            (Some(code), Some(delay), InjectPhase::Before) => Tamper::RefuseLate(code, message(), delay),
            (Some(code), Some(delay), InjectPhase::After) => Tamper::ReplaceLate(code, message(), delay),
            (None, Some(delay), InjectPhase::Before) => Tamper::Delay(delay),
            (None, Some(delay), InjectPhase::After) => Tamper::Late(delay),
            (None, None, _) => return Err("an injection needs a code or a delay".into()),
        };
        self.cluster.inject(Injection {
            method: inject.call.as_str().to_owned(),
            node: inject.node.clone(),
            driver: inject.driver.clone(),
            claim: inject.claim.clone(),
            contains: inject.contains.clone(),
            times: match inject.times {
                Times::Count(times) => Some(times),
                Times::Always(_) => None,
            },
            struck: 0,
            tamper,
        });
        Ok(())
    }

    fn heal(&mut self, healed: &Healed) -> Outcome {
        self.cluster.heal(match healed {
            Healed::All(_) => None,
            Healed::Call(call) => Some(call.as_str()),
        });
        Ok(())
    }
}

fn judge(refused: Option<&Refusal>, answer: &Result<crate::api::Written, ApiError>) -> Outcome {
    let answer = answer.as_ref().map(|_| ()).map_err(|e| (e.code, e.message.as_str()));
    Refusal::judge(refused, answer)
}
