//! The AWS clients, against HTTP servers of this process with fixed responses.

mod connections;
mod contract;
mod gateway;
mod get_records;
mod scripted_service;
mod streams;
