//! Compiles a spec and evaluates records against it. Pure, except for the pool of evaluation
//! threads.

pub mod cel;
pub mod compiled_spec;
pub mod error;
pub mod evaluator_pool;
pub mod key_filter;
pub mod message;
pub mod page_evaluator;
pub mod pattern;
pub mod required_images;

pub use self::compiled_spec::{CompiledSpec, Decision, Notification};
pub use self::error::InvalidSpec;
pub use self::evaluator_pool::EvaluatorPool;
pub use self::page_evaluator::{EvaluatedSlice, PageEvaluation, PageEvaluator};
