//! Which shard follows which: parents and children, and the streams of a table one after another.

pub mod child_discovery;
pub mod lineage_resolver;
pub mod parent_probe;
pub mod shard_graph;
pub mod stream_rollover;
