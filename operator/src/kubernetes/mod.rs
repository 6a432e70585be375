//! The Kubernetes objects that the operator keeps beside the resource.

mod checkpoint;
mod events;

pub use checkpoint::ConfigMapStore;
pub use events::{EventError, Events};
