//! Delivery by one worker on fakes and a paused clock.

mod account_throttling;
mod dead_letters;
mod delivery_policies;
mod dispatch;
mod fairness;
mod fan_out;
mod lookup;
mod support;
