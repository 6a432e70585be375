//! The Kubernetes objects that the operator keeps beside the resource.

mod checkpoint;

pub use checkpoint::ConfigMapStore;
