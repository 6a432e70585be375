//! Keeps what is settled: never ahead of delivery, and written by one holder at a time.

pub mod checkpoint_loop;
pub mod config_map_store;
#[cfg(feature = "local")]
pub mod file_store;
pub mod format_v1;
pub mod positions;
pub mod problems;
pub mod shard_progress;
pub mod store;
pub mod watermark;
pub mod writer;

pub use self::checkpoint_loop::{run_checkpoint_loop, write_final_checkpoint};
pub use self::config_map_store::ConfigMapStore;
#[cfg(feature = "local")]
pub use self::file_store::FileStore;
pub use self::format_v1::{Checkpoint, StartKind, StartPoint};
pub use self::positions::Positions;
pub use self::problems::checkpoint_problem;
pub use self::shard_progress::ShardProgress;
pub use self::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};
pub use self::writer::{CheckpointWriter, ClaimError};
