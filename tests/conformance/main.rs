//! The obligations of a CSI driver in the tank: the reference driver keeps them all, wrong drivers are found out, random requests do no harm.

mod mutants;
mod random;
mod suite;
mod tamper;
mod wrong;
