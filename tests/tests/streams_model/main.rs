//! The simulated table: its rules, its faults, and its two interfaces, the trait and HTTP.

mod clients;
mod faults;
mod fixture;
mod model;
