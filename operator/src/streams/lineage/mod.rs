//! Order of shards: parents and children, and the successive streams of a table.

pub mod child_discovery;
pub mod lineage_resolver;
pub mod parent_probe;
pub mod shard_graph;
pub mod stream_rollover;
