//! The operator's real binary on a real API server, against an emulated AWS: one control plane for
//! all, a namespace and an AWS of its own for each test.

mod beginnings;
mod capacity;
mod chart;
mod crash;
mod fixture;
mod manifests;
mod origin;
mod troubles;
mod writers;
