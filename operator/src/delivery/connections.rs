//! The connections table, whichever client reads it.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::BoxFuture;

use crate::model::{AttributeValue, Item, KeySchema};

/// A table or index of connections, as DescribeTable shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDescription {
    /// The table's own key, by which a row is deleted.
    pub keys: KeySchema,
    /// Each index that can be asked: its name and its key.
    pub indexes: Vec<(String, KeySchema)>,
    /// The type of each key attribute, as AWS spells it: `S`, `N` or `B`.
    pub types: BTreeMap<String, String>,
}

/// One of the parts in which all rows are read side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which, from 0 on.
    pub number: u32,
    /// How many there are.
    pub total: u32,
}

/// One page of a lookup.
#[derive(Clone, Debug, Default)]
pub struct RowPage {
    /// The rows, with the attributes asked for.
    pub rows: Vec<Item>,
    /// Where the next page begins, if there is one.
    pub next_key: Option<Item>,
}

/// The table where connections are stored.
pub trait ConnectionsTable: fmt::Debug + Send + Sync + 'static {
    /// The table's key and indexes.
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>>;

    /// One page of the rows whose partition key has this value, from `start` on.
    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>>;

    /// One page of all rows of a segment, from `start` on.
    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>>;

    /// The row of this key of the table, whole and as it is now.
    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>>;

    /// Deletes the row of this key if every attribute of `row` is still as it was; `false` if the
    /// row is gone or was written again.
    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>>;
}

/// Why a call to the connections table failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {kind}")]
pub struct ConnectionsError {
    /// The call, by its IAM name, such as `dynamodb:Query`.
    pub action: &'static str,
    /// What it means.
    pub kind: ConnectionsErrorKind,
    /// What the client said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a failed call to the connections table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionsErrorKind {
    /// There is no such table or index.
    #[error("there is no such table or index")]
    NotFound,
    /// The identity lacks the right.
    #[error("access denied")]
    AccessDenied,
    /// The process has no identity.
    #[error("no AWS credentials")]
    NoCredentials,
    /// The request itself is wrong, as with a value of the wrong type.
    #[error("the request was refused as invalid")]
    Invalid,
    /// Anything that may pass: throttling, the network, a fault of the service.
    #[error("no usable answer")]
    Unavailable,
}
