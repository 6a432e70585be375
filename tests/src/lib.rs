//! What the suites in `tests/` are made of: real neighbours of the operator, started on this machine
//! for one test run and gone after it, and the operator's real binary.
//!
//! Everything listens on 127.0.0.1 and on a free port, everything that waits has a limit, and
//! nothing sleeps in the hope that something has happened meanwhile.

mod certificates;
mod command;
pub mod control_plane;
pub mod fakes;
mod guard;
pub mod helm;
pub mod http;
pub mod kubectl;
pub mod ministack;
pub mod namespace;
pub mod operator;
pub mod port;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod scratch;
pub mod sigv4;
pub mod simulator;
pub mod streams_model;
pub mod tools;
pub mod wait;
pub mod watch;
pub mod web_socket_api;
pub mod websocket;
