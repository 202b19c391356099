//! People, who change their mind at the worst moment.
//!
//! **Recreated.** *May break:* whoever knows an object by its name alone: the new pod or claim has another UID and none of the old one's state.
//! *Why it must survive:* controllers and people delete pods and create them again all the time.
//!
//! **Taken back.** *May break:* an expansion whose driver is already at work: the volume may be larger than anybody still asks for.
//! *Why:* `RecoverVolumeExpansionFailure`: a request may be lowered again, to anything above what the claim has.
//!
//! **Deleted.** *May break:* creation that is under way: whatever comes of it must not be left over. A scenario may pin it; no menu has it, because what a
//! scenario does next needs its objects. For the same reason no menu recreates claims: their data would be gone, as it should.

use super::Fault;

/// `pods`: those that use the claim of the site and belong to nobody, as sites spell them; `growing`: the claim of the site if it is being expanded.
pub fn offer(pods: Vec<String>, growing: Option<&str>, menu: &mut Vec<Fault>) {
    menu.extend(pods.into_iter().map(|object| Fault::Recreate { object }));
    menu.extend(growing.map(|claim| Fault::ShrinkBack {
        object: claim.to_owned(),
    }));
}
