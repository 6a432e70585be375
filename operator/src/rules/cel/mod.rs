//! CEL expressions with DynamoDB's numbers, within a cost budget for each record.

pub mod cost;
pub mod expression;
pub mod functions;
pub mod instrument;
pub mod key_value;
pub mod number;
pub mod strings;
pub mod value;
