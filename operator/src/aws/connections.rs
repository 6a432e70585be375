//! A DynamoDB table of connections behind the trait `Connections`.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeValue as Sdk, IndexStatus, {self},
};
use aws_smithy_runtime_api::client::result::SdkError;
use futures::future::BoxFuture;

use super::attribute::{item_from_sdk, item_to_sdk, value_to_sdk};
use super::config::AwsConfig;
use super::error;
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

/// One table.
#[derive(Debug)]
pub struct DynamoDbConnections {
    client: Client,
    config: ConnectionsConfig,
}

impl DynamoDbConnections {
    /// The table of this source.
    pub fn new(aws: &AwsConfig, config: ConnectionsConfig) -> Self {
        Self { client: Client::new(&aws.region(&config.region)), config }
    }
}

impl ConnectionsTable for DynamoDbConnections {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        Box::pin(async move {
            let answer = self
                .client
                .describe_table()
                .table_name(&self.config.table)
                .send()
                .await
                .map_err(|failure| error::connections(DESCRIBE, failure))?;
            let table = answer.table.ok_or_else(|| malformed_response(DESCRIBE, "no table"))?;
            let keys = keys(table.key_schema)
                .ok_or_else(|| malformed_response(DESCRIBE, "no key schema"))?;
            let types = table.attribute_definitions.unwrap_or_default().into_iter();
            let types = types
                .map(|known| (known.attribute_name, known.attribute_type.as_str().to_owned()))
                .collect();
            let global = table.global_secondary_indexes.unwrap_or_default().into_iter();
            let local = table.local_secondary_indexes.unwrap_or_default().into_iter();
            let indexes = global
                .filter(|index| is_queryable(index.index_status.as_ref()))
                .map(|index| (index.index_name, index.key_schema))
                .chain(local.map(|index| (index.index_name, index.key_schema)))
                .filter_map(|(name, schema)| Some((name?, self::keys(schema)?)))
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
            let answer = self
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
                .map_err(|failure| error::connections(QUERY, failure))?;
            Ok(page(answer.items, answer.last_evaluated_key))
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
            let in_sdk = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
            let answer = self
                .client
                .scan()
                .table_name(&self.config.table)
                .set_index_name(self.config.index.clone())
                .consistent_read(self.is_consistent())
                .segment(in_sdk(segment.number))
                .total_segments(in_sdk(segment.total))
                .projection_expression(projection)
                .set_expression_attribute_names(Some(names))
                .set_exclusive_start_key(start.map(item_to_sdk))
                .send()
                .await
                .map_err(|failure| error::connections(SCAN, failure))?;
            Ok(page(answer.items, answer.last_evaluated_key))
        })
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        Box::pin(async move {
            let answer = self
                .client
                .get_item()
                .table_name(&self.config.table)
                .consistent_read(true)
                .set_key(Some(item_to_sdk(key)))
                .send()
                .await
                .map_err(|failure| error::connections(GET, failure))?;
            Ok(answer.item.map(item_from_sdk))
        })
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        Box::pin(async move {
            let Some(key) = key(keys, row) else {
                return Err(malformed_response(DELETE, "a row without the table's key"));
            };
            let (condition, names, values) = equality_condition(row);
            let answer = self
                .client
                .delete_item()
                .table_name(&self.config.table)
                .set_key(Some(item_to_sdk(&key)))
                .condition_expression(condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values))
                .send()
                .await;
            match answer {
                Ok(_) => Ok(true),
                Err(SdkError::ServiceError(refused))
                    if refused.err().is_conditional_check_failed_exception() =>
                {
                    Ok(false)
                }
                Err(failure) => Err(error::connections(DELETE, failure)),
            }
        })
    }
}

impl DynamoDbConnections {
    /// An index cannot be read consistently; a table can, so that a row just stored shows.
    fn is_consistent(&self) -> bool {
        self.config.index.is_none()
    }
}

type SdkItem = HashMap<String, Sdk>;

fn page(rows: Option<Vec<SdkItem>>, next: Option<SdkItem>) -> RowPage {
    RowPage {
        rows: rows.unwrap_or_default().into_iter().map(item_from_sdk).collect(),
        next_key: next.filter(|key| !key.is_empty()).map(item_from_sdk),
    }
}

/// An expression of these attributes, with their names: some are words that DynamoDB reserves.
fn projection(attributes: &[String]) -> (String, HashMap<String, String>) {
    let placeholders = (0..attributes.len()).map(|n| format!("#a{n}"));
    let names = placeholders.clone().zip(attributes.iter().cloned()).collect();
    (placeholders.collect::<Vec<_>>().join(", "), names)
}

/// An index that is being made, or taken away, answers no query.
fn is_queryable(status: Option<&IndexStatus>) -> bool {
    !matches!(status, Some(IndexStatus::Creating | IndexStatus::Deleting))
}

fn malformed_response(action: &'static str, what: &'static str) -> ConnectionsError {
    let kind = ConnectionsErrorKind::Unavailable;
    ConnectionsError { action, kind, source: Some(format!("there is {what}").into()) }
}

fn keys(schema: Option<Vec<types::KeySchemaElement>>) -> Option<KeySchema> {
    let mut names = schema?.into_iter().map(|element| element.attribute_name);
    // The partition key comes first, always.
    Some(KeySchema { partition: names.next()?, sort: names.next() })
}

fn key(keys: &KeySchema, row: &Item) -> Option<Item> {
    let names = [Some(&keys.partition), keys.sort.as_ref()];
    names.into_iter().flatten().map(|name| Some((name.clone(), row.get(name)?.clone()))).collect()
}

/// A condition that every attribute is as it was read, with its names and values.
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
    fn a_row_is_deleted_only_as_it_was_read() {
        let (condition, names, values) = equality_condition(&row());
        assert_eq!(condition, "#n0 = :v0 AND #n1 = :v1");
        assert_eq!(names["#n1"], "sk");
        assert_eq!(values[":v0"], Sdk::S("a=".to_owned()));
    }

    #[test]
    fn its_key_is_the_tables_not_the_indexs() {
        let names = KeySchema { partition: "id".to_owned(), sort: None };
        assert_eq!(key(&names, &row()).map(|key| key.len()), Some(1));
        let names = KeySchema { partition: "id".to_owned(), sort: Some("missing".to_owned()) };
        assert_eq!(key(&names, &row()), None);
    }
}
