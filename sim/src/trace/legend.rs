//! The legend of the trace, as `wavetank legend` prints it and `docs/trace.md` repeats it.

/// How to read the trace.
pub const LEGEND: &str = "\
One line for each effect: virtual time in seconds, process, sign, what happened, and the object's state after it.

  ──  a step of the scenario

  +   an object was created; its fields follow
  ~   an object was changed; what changed follows: `old → new`, +came, −went
  −   an object is gone: deleted, and no finalizer holds it any more
  =   a write that changed nothing: no watcher hears of it
  ✗   the API server refused, with code and reason; orange where the client just tries again

  ⇄   a CSI call and its answer, with the virtual time between them
  →   a CSI call whose answer comes later: something else happened in between
  ←   that answer, or the caller's own deadline

  ·   a Kubernetes event (×n: seen so often)
  !   a Kubernetes event of type Warning

  ▲   a process started, its informers filled
  ▼   a process exited, was killed, or could not start
  ↯   a fault or an injected answer struck here

`kubectl` is whoever writes the scenario. The verb `status` is a write to the status subresource, `bind` one to a pod's binding.
Behind a `·` in a line stands the object's state where the change does not say it.
UIDs, digests and volume ids show their first six digits; JSON (--format json) has them whole. `(pvc data)` behind an id: the claim it serves.
Questions (capabilities, info, statistics) are grey, and ×n in one line when the same is asked again and again.
--verbose adds what kubelet does on its node and whole messages; --follow pvc/data shows one object's life.
";
