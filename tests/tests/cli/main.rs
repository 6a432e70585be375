//! The operator's commands, as processes of the real binary.

mod local;
mod run;
