//! Rules in a running worker.

mod expressions;
