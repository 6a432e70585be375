//! The interface to the connections table, which production and tests implement.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::BoxFuture;

use crate::model::{AttributeValue, Item, KeySchema};

/// The connections table and its indexes, as DescribeTable shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDescription {
    /// Key of the table, by which a row is deleted.
    pub keys: KeySchema,
    /// Name and key of each index that can be queried.
    pub indexes: Vec<(String, KeySchema)>,
    /// Type of each key attribute: `S`, `N` or `B`.
    pub types: BTreeMap<String, String>,
}

/// A segment of a parallel scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From 0 to `total` - 1.
    pub number: u32,
    pub total: u32,
}

/// One page of rows.
#[derive(Clone, Debug, Default)]
pub struct RowPage {
    /// The rows, with only the requested attributes.
    pub rows: Vec<Item>,
    /// Start of the next page. `None` on the last page.
    pub next_key: Option<Item>,
}

/// The table that stores the connections.
pub trait ConnectionsTable: fmt::Debug + Send + Sync + 'static {
    /// Describes the table and its indexes.
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>>;

    /// Reads one page of the rows whose partition key has this value.
    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>>;

    /// Reads one page of all rows of a segment.
    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>>;

    /// Reads all attributes of the row with this key, consistently.
    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>>;

    /// Deletes a row if every attribute is still the same as in `row`. Returns `false` if the row
    /// was deleted or written since.
    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>>;
}

/// A failed request to the connections table.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {kind}")]
pub struct ConnectionsError {
    /// IAM action of the request, such as `dynamodb:Query`.
    pub action: &'static str,
    pub kind: ConnectionsErrorKind,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Why a request to the connections table failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionsErrorKind {
    #[error("table or index not found")]
    NotFound,
    #[error("access denied")]
    AccessDenied,
    #[error("no AWS credentials")]
    NoCredentials,
    #[error("untrusted certificate")]
    UntrustedCertificate,
    /// A wrong request, such as a value of the wrong type. Also a query of a deleted index.
    #[error("request rejected as invalid")]
    Invalid,
    /// A problem that can pass by itself: throttling, the network, or an error of the service.
    #[error("no usable response")]
    Unavailable,
}
