//! The operator's binary against a real Kubernetes API server and an emulated AWS. The tests share one
//! control plane. Each test has its own namespace and its own emulated AWS.

mod chart;
mod checkpoint_size;
mod claims;
mod conditions;
mod crash;
mod fixture;
mod manifests;
mod namespaces;
mod network;
mod readme_example;
mod starting_position;
