//! What a spec means for one record: judge a change, and say who is told what. Pure: no clock, no
//! I/O, and no record can make it fail or panic.
use crate::record::{AttributeValue, Change, KeyNames};
use bytes::Bytes;
#[derive(Debug)]
pub struct Notifier;
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    pub field: String,
    pub problem: String,
}
pub enum Verdict {
    Skip,
    Notify(Notification),
    Invalid(InvalidRecord),
}
pub struct InvalidRecord {
    pub field: String,
    pub problem: String,
}
pub struct Notification {
    pub lookup: AttributeValue,
    pub body: Bytes,
}
impl Notifier {
    pub fn new(_: &crate::api::StreamNotifierSpec) -> Result<Self, InvalidSpec> {
        Ok(Self)
    }
    pub fn check_view(
        &self,
        _has_old: bool,
        _has_new: bool,
        _view: &str,
    ) -> Result<(), InvalidSpec> {
        Ok(())
    }
    pub fn judge(&self, _keys: &KeyNames, _change: &Change) -> Verdict {
        Verdict::Skip
    }
}
