//! Plan of the tables that a manifest needs, as a pure function of its spec.
//!
//! It contains only tables that the spec names.

pub mod example;
pub mod expression_text;
pub mod hints;

use serde_json::{Value, json};

use crate::api::StreamNotifierSpec;
use crate::local::plan::expression_text::key_names;
use crate::model::KeySchema;

/// Tables of one notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Location in the ARN of the manifest.
    pub location: AwsLocation,
    /// Table whose stream the notifier reads.
    pub items: TablePlan,
    /// Table of the open connections.
    pub connections: TablePlan,
}

/// Partition, region and account of an ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLocation {
    /// Example: `aws`.
    pub partition: String,
    /// Example: `eu-west-2`.
    pub region: String,
    /// 12 digits. Example: `123456789012`.
    pub account: String,
}

impl AwsLocation {
    /// Prefix of the ARNs of all tables at this location.
    pub fn arn_prefix(&self) -> String {
        format!("arn:{}:dynamodb:{}:{}:", self.partition, self.region, self.account)
    }

    /// Returns the ARN of a table's stream.
    pub fn stream_arn(&self, table: &str, label: &str) -> String {
        format!("{}table/{table}/stream/{label}", self.arn_prefix())
    }
}

/// Plan of one table. All of its key attributes are strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan {
    pub name: String,
    pub key: KeySchema,
    /// Name and partition key of its global secondary index, if any.
    pub index: Option<(String, String)>,
    /// Whether it has a stream with new and old images.
    pub has_stream: bool,
}

/// Reason for which no tables can be derived from a spec.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The spec names no table.
    #[error(
        "spec.streamArn or spec.tableArn must name a table; write streamArn as \
         arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>, or tableArn without \
         /stream/<label>"
    )]
    NoTable,
    /// Neither the spec nor the user names the key attributes.
    #[error(
        "the key attributes of table {0:?} are unknown, because neither spec.keyFilters nor an \
         expression (keys.X) names them; add --key PK, and --key SK for a sort key"
    )]
    NoKey(String),
    /// More than two key attributes are named.
    #[error(
        "a table has at most two key attributes, but the manifest names {}: {}; choose them with \
         --key PK --key SK", .0.len(), .0.join(", ")
    )]
    TooManyKeys(Vec<String>),
    /// Items and connections are in the same table.
    #[error(
        "spec.connections.tableName is {0:?}, which is also the table of the items; name another \
         table for local mode"
    )]
    SharedTable(String),
}

impl Plan {
    /// Derives the tables from `spec`. `keys` (partition key, then sort key) overrides the spec.
    pub fn from_spec(spec: &StreamNotifierSpec, keys: &[String]) -> Result<Self, PlanError> {
        let (location, table) = table_arn(spec).and_then(parse_arn).ok_or(PlanError::NoTable)?;
        if spec.connections.table_name == table {
            return Err(PlanError::SharedTable(table));
        }
        let key = item_key(spec, keys, &table)?;
        let items = TablePlan { name: table, key, index: None, has_stream: true };
        Ok(Self { location, items, connections: connections_table(spec) })
    }
}

fn item_key(
    spec: &StreamNotifierSpec,
    keys: &[String],
    table: &str,
) -> Result<KeySchema, PlanError> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    if keys.is_empty() {
        spec.key_filters.iter().for_each(|filter| add(&filter.key));
        // Two filters name the whole key. A third name in an expression is then a mistake, which the
        // worker reports.
        if spec.key_filters.len() < 2 {
            let fields = spec.message.iter().flat_map(|message| message.values());
            for expression in spec.filter.iter().chain(fields) {
                key_names(expression).iter().for_each(|name| add(name));
            }
            let lookup = spec.connections.value.as_deref().map(key_names);
            lookup.iter().flatten().for_each(|name| add(name));
        }
    } else {
        keys.iter().for_each(|name| add(name));
    }
    match names.as_slice() {
        [] => Err(PlanError::NoKey(table.to_owned())),
        [partition] => Ok(KeySchema { partition: partition.clone(), sort: None }),
        [partition, sort] => {
            Ok(KeySchema { partition: partition.clone(), sort: Some(sort.clone()) })
        }
        _ => Err(PlanError::TooManyKeys(names)),
    }
}

fn connections_table(spec: &StreamNotifierSpec) -> TablePlan {
    let connections = &spec.connections;
    let id = &connections.connection_id_attribute;
    let lookup = connections.partition_key.as_ref().unwrap_or(id);
    let key = match connections.index_name {
        Some(_) => KeySchema { partition: id.clone(), sort: None },
        None => KeySchema { partition: lookup.clone(), sort: (id != lookup).then(|| id.clone()) },
    };
    TablePlan {
        name: connections.table_name.clone(),
        key,
        index: connections.index_name.clone().map(|name| (name, lookup.clone())),
        has_stream: false,
    }
}

/// Returns the ARN of the table, from `streamArn` or `tableArn`.
fn table_arn(spec: &StreamNotifierSpec) -> Option<&str> {
    let Some(stream) = &spec.stream_arn else {
        return spec.table_arn.as_deref();
    };
    let (table, label) = stream.split_once("/stream/")?;
    (!label.is_empty()).then_some(table)
}

/// Splits `arn:<partition>:dynamodb:<region>:<account>:table/<table>` into location and table.
fn parse_arn(arn: &str) -> Option<(AwsLocation, String)> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("dynamodb"), Some(region), Some(account), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let table = rest.strip_prefix("table/")?;
    let location = AwsLocation {
        partition: partition.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
    };
    (!table.is_empty() && !table.contains('/')).then(|| (location, table.to_owned()))
}

impl TablePlan {
    /// Returns the request of CreateTable.
    pub fn create_table_request(&self) -> Value {
        let mut attributes = self.key_attributes();
        let mut request = json!({
            "TableName": self.name,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": key_schema(&self.key),
        });
        if let Some((name, partition)) = &self.index {
            if !attributes.contains(&partition.as_str()) {
                attributes.push(partition);
            }
            request["GlobalSecondaryIndexes"] = json!([{
                "IndexName": name,
                "KeySchema": [{"AttributeName": partition, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }]);
        }
        if self.has_stream {
            request["StreamSpecification"] =
                json!({"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"});
        }
        request["AttributeDefinitions"] = attributes
            .iter()
            .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
            .collect();
        request
    }

    /// Names of the key attributes, partition key first.
    pub fn key_attributes(&self) -> Vec<&str> {
        std::iter::once(self.key.partition.as_str()).chain(self.key.sort.as_deref()).collect()
    }

    /// Whether a table in a response of DescribeTable has this key, index and stream.
    pub fn matches(&self, described: &Value) -> bool {
        let has_index = |(name, partition): &(String, String)| {
            described["GlobalSecondaryIndexes"].as_array().is_some_and(|all| {
                all.iter().any(|index| {
                    index["IndexName"] == json!(name)
                        && index["KeySchema"][0]["AttributeName"] == json!(partition)
                })
            })
        };
        described["KeySchema"] == key_schema(&self.key)
            && self.index.as_ref().is_none_or(has_index)
            && (!self.has_stream || described["LatestStreamArn"].is_string())
    }
}

fn key_schema(key: &KeySchema) -> Value {
    let mut schema = vec![json!({"AttributeName": key.partition, "KeyType": "HASH"})];
    if let Some(sort) = &key.sort {
        schema.push(json!({"AttributeName": sort, "KeyType": "RANGE"}));
    }
    Value::Array(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::{example_manifest, spec_with};

    fn key(partition: &str, sort: Option<&str>) -> KeySchema {
        KeySchema { partition: partition.to_owned(), sort: sort.map(str::to_owned) }
    }

    #[test]
    fn derives_the_same_tables_from_table_arn_and_stream_arn() {
        let by_table = spec_with(|spec| {
            let stream = spec["streamArn"].take();
            let (table, _) = stream.as_str().unwrap().split_once("/stream/").unwrap();
            spec["tableArn"] = json!(table);
        });
        assert_eq!(Plan::from_spec(&by_table, &[]), Plan::from_spec(&example_manifest().spec, &[]));
    }

    #[test]
    fn derives_the_tables_of_the_example() {
        let plan = Plan::from_spec(&example_manifest().spec, &[]).unwrap();
        assert_eq!(plan.location.region, "ap-northeast-1");
        assert_eq!(
            plan.location.stream_arn("t", "l"),
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/t/stream/l"
        );
        assert_eq!(
            plan.items,
            TablePlan {
                name: "sample-table-dev".into(),
                key: key("PK", Some("SK")),
                index: None,
                has_stream: true
            }
        );
        assert_eq!(
            plan.connections,
            TablePlan {
                name: "sample-connections-dev".into(),
                key: key("connection_id", None),
                index: Some(("sk-index".into(), "sk".into())),
                has_stream: false,
            }
        );
    }

    #[test]
    fn takes_keys_from_expressions_without_filters() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] = json!([]);
            spec["message"] = json!({"a": "keys['tenant id']", "b": "string(new.keys.no)"});
            spec["connections"]["value"] = json!("keys.device");
        });
        let plan = Plan::from_spec(&spec, &[]).unwrap();
        assert_eq!(plan.items.key, key("tenant id", Some("device")));
    }

    #[test]
    fn prefers_keys_of_the_user() {
        let plan = Plan::from_spec(&example_manifest().spec, &["id".into()]).unwrap();
        assert_eq!(plan.items.key, key("id", None));
        let three: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(
            Plan::from_spec(&example_manifest().spec, &three),
            Err(PlanError::TooManyKeys(three))
        );
    }

    #[test]
    fn keys_the_table_by_the_lookup_without_an_index() {
        let spec = spec_with(|spec| {
            spec["connections"] =
                json!({"tableName": "rooms", "partitionKey": "room", "value": "keys.PK"});
        });
        let plan = Plan::from_spec(&spec, &[]).unwrap();
        assert_eq!(plan.connections.key, key("room", Some("connectionId")));
        assert_eq!(plan.connections.index, None);
    }

    #[test]
    fn keys_the_table_by_the_connection_without_a_lookup() {
        let spec = spec_with(|spec| spec["connections"] = json!({"tableName": "rooms"}));
        let plan = Plan::from_spec(&spec, &[]).unwrap();
        assert_eq!(plan.connections.key, key("connectionId", None));
    }

    #[test]
    fn reports_specs_without_keys_or_tables() {
        let none = spec_with(|spec| {
            spec["keyFilters"] = json!([]);
            spec["message"] = json!({"a": "new.a"});
            spec["connections"]["value"] = json!("new.room");
        });
        let error = Plan::from_spec(&none, &[]).unwrap_err();
        assert!(error.to_string().contains("--key PK"), "{error}");
        let wrong = spec_with(|spec| spec["streamArn"] = json!("arn:aws:dynamodb:x:1:table/t"));
        assert!(matches!(Plan::from_spec(&wrong, &[]), Err(PlanError::NoTable)));
        let index = "arn:aws:dynamodb:x:1:table/t/index/i";
        let wrong = spec_with(|spec| {
            spec["streamArn"] = json!(null);
            spec["tableArn"] = json!(index);
        });
        assert!(matches!(Plan::from_spec(&wrong, &[]), Err(PlanError::NoTable)));
        let same = spec_with(|spec| spec["connections"]["tableName"] = json!("sample-table-dev"));
        assert!(matches!(Plan::from_spec(&same, &[]), Err(PlanError::SharedTable(_))));
    }
}
