//! Implements the trait `ConnectionsTable` with DynamoDB.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue as Sdk, IndexStatus, KeySchemaElement};
use aws_smithy_runtime_api::client::result::SdkError;
use futures::future::BoxFuture;

use super::attribute::{item_from_sdk, item_to_sdk, value_to_sdk};
use super::config::AwsConfig;
use super::error::connections_error;
use crate::delivery::{
    ConnectionsConfig, ConnectionsError, ConnectionsErrorKind, ConnectionsTable, RowPage, Segment,
    TableDescription,
};
use crate::model::{AttributeValue, Item, KeySchema};

const DESCRIBE: &str = "dynamodb:DescribeTable";
const QUERY: &str = "dynamodb:Query";
const SCAN: &str = "dynamodb:Scan";
const GET: &str = "dynamodb:GetItem";
const DELETE: &str = "dynamodb:DeleteItem";

/// A connections table in DynamoDB.
#[derive(Debug)]
pub struct DynamoDbConnections {
    client: Client,
    config: ConnectionsConfig,
}

impl DynamoDbConnections {
    /// A client of the table that `config` names.
    pub fn new(aws: &AwsConfig, config: ConnectionsConfig) -> Self {
        Self { client: Client::new(&aws.in_region(&config.region)), config }
    }
}

impl ConnectionsTable for DynamoDbConnections {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        Box::pin(async move {
            let response = self
                .client
                .describe_table()
                .table_name(&self.config.table)
                .send()
                .await
                .map_err(|error| connections_error(DESCRIBE, error))?;
            let table = response.table.ok_or_else(|| malformed_response(DESCRIBE, "no table"))?;
            let keys = key_schema(table.key_schema)
                .ok_or_else(|| malformed_response(DESCRIBE, "no key schema"))?;
            let types = table.attribute_definitions.unwrap_or_default().into_iter();
            let types = types
                .map(|it| (it.attribute_name, it.attribute_type.as_str().to_owned()))
                .collect();
            let global = table.global_secondary_indexes.unwrap_or_default().into_iter();
            let local = table.local_secondary_indexes.unwrap_or_default().into_iter();
            let indexes = global
                .filter(|index| is_queryable(index.index_status.as_ref()))
                .map(|index| (index.index_name, index.key_schema))
                .chain(local.map(|index| (index.index_name, index.key_schema)))
                .filter_map(|(name, schema)| Some((name?, key_schema(schema)?)))
                .collect();
            Ok(TableDescription { keys, indexes, types })
        })
    }

    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            let (projection, names) = projection(attributes);
            let response = self
                .client
                .query()
                .table_name(&self.config.table)
                .set_index_name(self.config.index.clone())
                .consistent_read(self.is_consistent())
                .key_condition_expression("#key = :value")
                .projection_expression(projection)
                .set_expression_attribute_names(Some(names))
                .expression_attribute_names(
                    "#key",
                    self.config.partition_key.clone().unwrap_or_default(),
                )
                .expression_attribute_values(":value", value_to_sdk(value))
                .set_exclusive_start_key(start.map(item_to_sdk))
                .send()
                .await
                .map_err(|error| connections_error(QUERY, error))?;
            Ok(row_page(response.items, response.last_evaluated_key))
        })
    }

    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            let (projection, names) = projection(attributes);
            let to_sdk = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
            let response = self
                .client
                .scan()
                .table_name(&self.config.table)
                .set_index_name(self.config.index.clone())
                .consistent_read(self.is_consistent())
                .segment(to_sdk(segment.number))
                .total_segments(to_sdk(segment.total))
                .projection_expression(projection)
                .set_expression_attribute_names(Some(names))
                .set_exclusive_start_key(start.map(item_to_sdk))
                .send()
                .await
                .map_err(|error| connections_error(SCAN, error))?;
            Ok(row_page(response.items, response.last_evaluated_key))
        })
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        Box::pin(async move {
            let response = self
                .client
                .get_item()
                .table_name(&self.config.table)
                .consistent_read(true)
                .set_key(Some(item_to_sdk(key)))
                .send()
                .await
                .map_err(|error| connections_error(GET, error))?;
            Ok(response.item.map(item_from_sdk))
        })
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        Box::pin(async move {
            let Some(key) = row_key(keys, row) else {
                return Err(ConnectionsError {
                    action: DELETE,
                    kind: ConnectionsErrorKind::Unavailable,
                    source: Some("the row lacks the key of the table".into()),
                });
            };
            let (condition, names, values) = equality_condition(row);
            let result = self
                .client
                .delete_item()
                .table_name(&self.config.table)
                .set_key(Some(item_to_sdk(&key)))
                .condition_expression(condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values))
                .send()
                .await;
            match result {
                Ok(_) => Ok(true),
                Err(SdkError::ServiceError(error))
                    if error.err().is_conditional_check_failed_exception() =>
                {
                    Ok(false)
                }
                Err(error) => Err(connections_error(DELETE, error)),
            }
        })
    }
}

impl DynamoDbConnections {
    /// A consistent read includes rows that were stored before the change. An index does not
    /// support it.
    fn is_consistent(&self) -> bool {
        self.config.index.is_none()
    }
}

type SdkItem = HashMap<String, Sdk>;

fn row_page(rows: Option<Vec<SdkItem>>, next: Option<SdkItem>) -> RowPage {
    RowPage {
        rows: rows.unwrap_or_default().into_iter().map(item_from_sdk).collect(),
        next_key: next.filter(|key| !key.is_empty()).map(item_from_sdk),
    }
}

/// A projection expression for the attributes, with its placeholders. DynamoDB reserves several
/// attribute names.
fn projection(attributes: &[String]) -> (String, HashMap<String, String>) {
    let placeholders = (0..attributes.len()).map(|n| format!("#a{n}"));
    let names = placeholders.clone().zip(attributes.iter().cloned()).collect();
    (placeholders.collect::<Vec<_>>().join(", "), names)
}

/// Whether an index accepts queries. An index that is being created or deleted does not.
fn is_queryable(status: Option<&IndexStatus>) -> bool {
    !matches!(status, Some(IndexStatus::Creating | IndexStatus::Deleting))
}

fn malformed_response(action: &'static str, what: &'static str) -> ConnectionsError {
    let kind = ConnectionsErrorKind::Unavailable;
    ConnectionsError { action, kind, source: Some(format!("the response has {what}").into()) }
}

fn key_schema(schema: Option<Vec<KeySchemaElement>>) -> Option<KeySchema> {
    let mut names = schema?.into_iter().map(|element| element.attribute_name);
    // DynamoDB always lists the partition key first.
    Some(KeySchema { partition: names.next()?, sort: names.next() })
}

fn row_key(keys: &KeySchema, row: &Item) -> Option<Item> {
    let names = [Some(&keys.partition), keys.sort.as_ref()];
    names.into_iter().flatten().map(|name| Some((name.clone(), row.get(name)?.clone()))).collect()
}

/// A condition expression that no attribute of the row was changed, with its placeholders.
fn equality_condition(row: &Item) -> (String, HashMap<String, String>, HashMap<String, Sdk>) {
    let mut terms = Vec::new();
    let (mut names, mut values) = (HashMap::new(), HashMap::new());
    for (n, (name, value)) in row.iter().enumerate() {
        terms.push(format!("#n{n} = :v{n}"));
        names.insert(format!("#n{n}"), name.clone());
        values.insert(format!(":v{n}"), value_to_sdk(value));
    }
    (terms.join(" AND "), names, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        Item::from([("id".to_owned(), text("a=")), ("sk".to_owned(), text("hoge"))])
    }

    #[test]
    fn deletes_a_row_only_if_it_is_unchanged() {
        let (condition, names, values) = equality_condition(&row());
        assert_eq!(condition, "#n0 = :v0 AND #n1 = :v1");
        assert_eq!(names["#n1"], "sk");
        assert_eq!(values[":v0"], Sdk::S("a=".to_owned()));
    }

    #[test]
    fn uses_the_key_of_the_table() {
        let keys = KeySchema { partition: "id".to_owned(), sort: None };
        assert_eq!(row_key(&keys, &row()).map(|key| key.len()), Some(1));
        let keys = KeySchema { partition: "id".to_owned(), sort: Some("missing".to_owned()) };
        assert_eq!(row_key(&keys, &row()), None);
    }
}
