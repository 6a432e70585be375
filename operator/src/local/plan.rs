//! Which tables a manifest needs: a pure function of its spec and of what the user asked for.
//! Nothing is made here that the spec does not name.

pub mod example;
pub mod expression_text;
pub mod hints;

use serde_json::{Value, json};

use crate::api::StreamNotifierSpec;
use crate::local::plan::expression_text::key_names;
use crate::model::KeySchema;

/// The tables of one notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the manifest says that they are.
    pub home: AwsLocation,
    /// The table whose stream is followed.
    pub items: TablePlan,
    /// The table of the open connections.
    pub connections: TablePlan,
}

/// Partition, region and account, as ARNs name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLocation {
    /// `aws`, or another partition's name.
    pub partition: String,
    /// Example: `eu-west-2`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl AwsLocation {
    /// What the ARNs of this place's tables begin with.
    pub fn prefix(&self) -> String {
        format!("arn:{}:dynamodb:{}:{}:", self.partition, self.region, self.account)
    }

    /// The ARN of a table's stream.
    pub fn stream_arn(&self, table: &str, label: &str) -> String {
        format!("{}table/{table}/stream/{label}", self.prefix())
    }
}

/// One table. Every key attribute is a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: KeySchema,
    /// A global secondary index, where it has one: name and partition key.
    pub index: Option<(String, String)>,
    /// Whether it has a stream, of new and old images.
    pub stream: bool,
}

/// Why no tables can be derived.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The spec names no table.
    #[error(
        "neither spec.streamArn nor spec.tableArn names a table; they look like \
         arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>, and the same without \
         /stream/<label>"
    )]
    NoTable,
    /// Nothing names the key attributes.
    #[error(
        "neither spec.keyFilters nor an expression (keys.X) names the key attributes of table \
         {0:?}; name them: --key PK, and --key SK where the table has a sort key"
    )]
    NoKey(String),
    /// A table has one or two key attributes.
    #[error(
        "a table's key has one or two different attributes, here are {}: {}; \
         say which with --key PK --key SK", .0.len(), .0.join(", ")
    )]
    TooManyKeys(Vec<String>),
    /// The local mode keeps connections in a table of their own.
    #[error(
        "spec.connections.tableName is {0:?}, the table of the items too; \
         the local mode needs another name there"
    )]
    OneTable(String),
}

impl Plan {
    /// The tables of `spec`; `keys` (partition key, then sort key) goes before what the spec says.
    pub fn of(spec: &StreamNotifierSpec, keys: &[String]) -> Result<Self, PlanError> {
        let (home, table) = table_arn(spec).and_then(parse_arn).ok_or(PlanError::NoTable)?;
        if spec.connections.table_name == table {
            return Err(PlanError::OneTable(table));
        }
        let key = item_key(spec, keys, &table)?;
        let items = TablePlan { name: table, key, index: None, stream: true };
        Ok(Self { home, items, connections: connections_table(spec) })
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
        // Two filters name the whole key; a third name in an expression is then the expression's
        // mistake, which the worker tells.
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
        stream: false,
    }
}

/// The ARN of the table, whichever of the two the spec has.
fn table_arn(spec: &StreamNotifierSpec) -> Option<&str> {
    let Some(stream) = &spec.stream_arn else {
        return spec.table_arn.as_deref();
    };
    let (table, label) = stream.split_once("/stream/")?;
    (!label.is_empty()).then_some(table)
}

/// `arn:<partition>:dynamodb:<region>:<account>:table/<table>`.
fn parse_arn(arn: &str) -> Option<(AwsLocation, String)> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("dynamodb"), Some(region), Some(account), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let table = rest.strip_prefix("table/")?;
    let home = AwsLocation {
        partition: partition.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
    };
    (!table.is_empty() && !table.contains('/')).then(|| (home, table.to_owned()))
}

impl TablePlan {
    /// The body of the CreateTable call that makes it.
    pub fn create_request(&self) -> Value {
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
        if self.stream {
            request["StreamSpecification"] =
                json!({"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"});
        }
        request["AttributeDefinitions"] = attributes
            .iter()
            .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
            .collect();
        request
    }

    /// The names of the table's key attributes.
    pub fn key_attributes(&self) -> Vec<&str> {
        std::iter::once(self.key.partition.as_str()).chain(self.key.sort.as_deref()).collect()
    }

    /// Whether a table that DescribeTable describes this way can serve as this one.
    pub fn matches(&self, described: &Value) -> bool {
        let index = |(name, partition): &(String, String)| {
            described["GlobalSecondaryIndexes"].as_array().is_some_and(|all| {
                all.iter().any(|one| {
                    one["IndexName"] == json!(name)
                        && one["KeySchema"][0]["AttributeName"] == json!(partition)
                })
            })
        };
        described["KeySchema"] == key_schema(&self.key)
            && self.index.as_ref().is_none_or(index)
            && (!self.stream || described["LatestStreamArn"].is_string())
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
    use crate::local::tests::fixture::{origin, spec_with};

    fn key(partition: &str, sort: Option<&str>) -> KeySchema {
        KeySchema { partition: partition.to_owned(), sort: sort.map(str::to_owned) }
    }

    #[test]
    fn a_table_is_named_as_well_as_its_stream() {
        let by_table = spec_with(|spec| {
            let stream = spec["streamArn"].take();
            let (table, _) = stream.as_str().unwrap().split_once("/stream/").unwrap();
            spec["tableArn"] = json!(table);
        });
        assert_eq!(Plan::of(&by_table, &[]), Plan::of(&origin().spec, &[]));
    }

    #[test]
    fn the_origins_manifest_gives_its_tables() {
        let plan = Plan::of(&origin().spec, &[]).unwrap();
        assert_eq!(plan.home.region, "ap-northeast-1");
        assert_eq!(
            plan.home.stream_arn("t", "l"),
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/t/stream/l"
        );
        assert_eq!(
            plan.items,
            TablePlan {
                name: "sample-table-dev".into(),
                key: key("PK", Some("SK")),
                index: None,
                stream: true
            }
        );
        assert_eq!(
            plan.connections,
            TablePlan {
                name: "sample-connections-dev".into(),
                key: key("connection_id", None),
                index: Some(("sk-index".into(), "sk".into())),
                stream: false,
            }
        );
    }

    #[test]
    fn without_filters_the_expressions_name_the_keys() {
        let spec = spec_with(|spec| {
            spec["keyFilters"] = json!([]);
            spec["message"] = json!({"a": "keys['tenant id']", "b": "string(new.keys.no)"});
            spec["connections"]["value"] = json!("keys.device");
        });
        let plan = Plan::of(&spec, &[]).unwrap();
        assert_eq!(plan.items.key, key("tenant id", Some("device")));
    }

    #[test]
    fn asked_for_keys_win() {
        let plan = Plan::of(&origin().spec, &["id".into()]).unwrap();
        assert_eq!(plan.items.key, key("id", None));
        let three: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(Plan::of(&origin().spec, &three), Err(PlanError::TooManyKeys(three)));
    }

    #[test]
    fn without_an_index_the_table_itself_is_keyed_by_the_lookup() {
        let spec = spec_with(|spec| {
            spec["connections"] =
                json!({"tableName": "rooms", "partitionKey": "room", "value": "keys.PK"});
        });
        let plan = Plan::of(&spec, &[]).unwrap();
        assert_eq!(plan.connections.key, key("room", Some("connectionId")));
        assert_eq!(plan.connections.index, None);
    }

    #[test]
    fn where_everybody_is_told_the_table_is_keyed_by_the_connection() {
        let spec = spec_with(|spec| spec["connections"] = json!({"tableName": "rooms"}));
        let plan = Plan::of(&spec, &[]).unwrap();
        assert_eq!(plan.connections.key, key("connectionId", None));
    }

    #[test]
    fn what_cannot_be_derived_is_asked_for() {
        let none = spec_with(|spec| {
            spec["keyFilters"] = json!([]);
            spec["message"] = json!({"a": "new.a"});
            spec["connections"]["value"] = json!("new.room");
        });
        let error = Plan::of(&none, &[]).unwrap_err();
        assert!(error.to_string().contains("--key PK"), "{error}");
        let wrong = spec_with(|spec| spec["streamArn"] = json!("arn:aws:dynamodb:x:1:table/t"));
        assert!(matches!(Plan::of(&wrong, &[]), Err(PlanError::NoTable)));
        let index = "arn:aws:dynamodb:x:1:table/t/index/i";
        let wrong = spec_with(|spec| {
            spec["streamArn"] = json!(null);
            spec["tableArn"] = json!(index);
        });
        assert!(matches!(Plan::of(&wrong, &[]), Err(PlanError::NoTable)));
        let same = spec_with(|spec| spec["connections"]["tableName"] = json!("sample-table-dev"));
        assert!(matches!(Plan::of(&same, &[]), Err(PlanError::OneTable(_))));
    }
}
