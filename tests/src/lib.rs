//! Library of the test suites: fakes, the simulation, real servers, and the operator's binary.
//!
//! Servers listen on free ports of 127.0.0.1 and end with the test process. Every wait has a
//! timeout and a condition; no test sleeps for a fixed time instead.

mod certificates;
pub mod chart;
mod command;
pub mod connect_proxy;
pub mod control_plane;
pub mod fakes;
mod guard;
pub mod helm;
pub mod http;
pub mod kubectl;
pub mod ministack;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod port;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod scratch;
pub mod sigv4;
pub mod simulator;
pub mod streams_model;
pub mod tls_server;
pub mod tools;
pub mod wait;
pub mod watch;
pub mod web_socket_api;
pub mod websocket;
pub mod wscat;
