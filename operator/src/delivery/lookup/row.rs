//! Parses the rows of the connections table.

use std::collections::BTreeSet;

use super::connections_config::ConnectionsConfig;
use crate::model::{AttributeValue, Item, KeySchema, UnixSeconds};

/// Maximum age of a TTL. DynamoDB ignores an older one, so a TTL of 0 never expires.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/howitworks-ttl.html>
const MAX_TTL_AGE_SECONDS: f64 = (5 * 365 * 24 * 3600) as f64;

/// Maximum TTL in seconds, in the year 5138. A larger value is in milliseconds.
const MAX_TTL_SECONDS: f64 = 1e11;

/// A stored connection. It is small, because queued messages hold it.
#[derive(Debug, PartialEq, Eq)]
pub struct Connection {
    pub id: String,
    /// Values of the table's key in its order, without the value that is the id.
    rest_of_key: Box<[AttributeValue]>,
}

#[cfg(test)]
impl Connection {
    /// A connection whose id is the key of its row.
    pub(crate) fn with_id(id: &str) -> Self {
        Self { id: id.to_owned(), rest_of_key: Box::default() }
    }
}

/// The attributes of a row that the operator uses.
#[derive(Debug)]
pub(crate) struct RowSchema {
    keys: KeySchema,
    id_attribute: String,
    ttl_attribute: Option<String>,
}

/// A parsed row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Connected(Connection),
    /// A row whose TTL has passed. DynamoDB deletes it within a few days.
    Expired,
    /// A row without a valid connection id, or without the table's key.
    Unusable,
}

impl RowSchema {
    pub fn new(keys: KeySchema, config: &ConnectionsConfig) -> Self {
        let id_attribute = config.connection_id_attribute.clone();
        Self { keys, id_attribute, ttl_attribute: config.ttl_attribute.clone() }
    }

    /// The attributes that a lookup requests, each once.
    pub fn attributes(&self) -> Vec<String> {
        let names: BTreeSet<_> =
            self.key_names().chain([&self.id_attribute]).chain(&self.ttl_attribute).collect();
        names.into_iter().cloned().collect()
    }

    pub fn parse(&self, row: &Item, now: UnixSeconds) -> Row {
        let is_past = |ttl: f64| {
            let age = now.0 as f64 - ttl;
            age > 0.0 && age < MAX_TTL_AGE_SECONDS
        };
        if self.ttl(row).is_some_and(is_past) {
            return Row::Expired;
        }
        self.connection(row).map_or(Row::Unusable, Row::Connected)
    }

    /// Whether the TTL of this row cannot be in seconds.
    pub fn has_ttl_in_milliseconds(&self, row: &Item) -> bool {
        self.ttl(row).is_some_and(|ttl| ttl > MAX_TTL_SECONDS)
    }

    /// The key of a connection's row in the table.
    pub fn key_of(&self, connection: &Connection) -> Item {
        let mut rest = connection.rest_of_key.iter();
        let mut value = |name: &String| match *name == self.id_attribute {
            true => Some(AttributeValue::S(connection.id.clone())),
            false => rest.next().cloned(),
        };
        self.key_names().filter_map(|name| Some((name.clone(), value(name)?))).collect()
    }

    /// Whether a row belongs to this connection. Another connection may have replaced it.
    pub fn is_row_of(&self, row: &Item, connection: &Connection) -> bool {
        matches!(row.get(&self.id_attribute), Some(AttributeValue::S(id)) if *id == connection.id)
    }

    fn connection(&self, row: &Item) -> Option<Connection> {
        let Some(AttributeValue::S(id)) = row.get(&self.id_attribute) else {
            return None;
        };
        let rest = self.key_names().filter(|name| **name != self.id_attribute);
        let rest_of_key = rest.map(|name| row.get(name).cloned()).collect::<Option<_>>()?;
        is_connection_id(id).then(|| Connection { id: id.clone(), rest_of_key })
    }

    /// The TTL of a row. As in DynamoDB, a TTL that is not a number does not count.
    fn ttl(&self, row: &Item) -> Option<f64> {
        match row.get(self.ttl_attribute.as_ref()?) {
            Some(AttributeValue::N(number)) => number.parse().ok(),
            _ => None,
        }
    }

    fn key_names(&self) -> impl Iterator<Item = &String> {
        [Some(&self.keys.partition), self.keys.sort.as_ref()].into_iter().flatten()
    }
}

/// Whether a text can be a connection id: base64, as API Gateway creates ids. Any other text could
/// change the path of the post's URL. The response would then describe that path, not the endpoint.
fn is_connection_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+/".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn schema(partition: &str, sort: Option<&str>) -> RowSchema {
        let config = ConnectionsConfig {
            region: "eu-west-1".to_owned(),
            table: "connections".to_owned(),
            index: None,
            partition_key: None,
            connection_id_attribute: "id".to_owned(),
            ttl_attribute: Some("ttl".to_owned()),
            cache_ttl: Duration::ZERO,
        };
        let keys = KeySchema { partition: partition.to_owned(), sort: sort.map(str::to_owned) };
        RowSchema::new(keys, &config)
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn item<const COUNT: usize>(attributes: [(&str, AttributeValue); COUNT]) -> Item {
        attributes.map(|(name, value)| (name.to_owned(), value)).into()
    }

    #[test]
    fn requests_each_attribute_once() {
        assert_eq!(schema("id", None).attributes(), ["id", "ttl"]);
        assert_eq!(schema("room", Some("id")).attributes(), ["id", "room", "ttl"]);
        assert_eq!(schema("room", Some("user")).attributes(), ["id", "room", "ttl", "user"]);
    }

    #[test]
    fn restores_the_key_of_a_row_with_the_id_in_any_position() {
        let row = item([("id", text("a=")), ("room", text("1")), ("user", text("2"))]);
        for (partition, sort, rest_len) in [
            ("id", None, 0),
            ("room", Some("id"), 1),
            ("id", Some("room"), 1),
            ("room", Some("user"), 2),
            ("user", Some("room"), 2),
        ] {
            let schema = schema(partition, sort);
            let Row::Connected(connection) = schema.parse(&row, UnixSeconds(NOW)) else {
                panic!("no connection with the key {partition} {sort:?}");
            };
            assert_eq!(connection.rest_of_key.len(), rest_len);
            let names = [Some(partition), sort].into_iter().flatten();
            let key = names.map(|name| (name.to_owned(), row.get(name).unwrap().clone()));
            assert_eq!(schema.key_of(&connection), key.collect());
            assert!(schema.is_row_of(&row, &connection));
            let other = item([("id", text("b=")), ("room", text("1")), ("user", text("2"))]);
            assert!(!schema.is_row_of(&other, &connection), "another connection has this row");
        }
    }

    #[test]
    fn rejects_rows_without_a_valid_id_or_the_key() {
        let schema = schema("room", Some("user"));
        for row in [
            item([("room", text("1")), ("user", text("2"))]),
            item([("id", text("a=")), ("user", text("2"))]),
            item([("id", text("../a")), ("room", text("1")), ("user", text("2"))]),
            item([("id", AttributeValue::Null), ("room", text("1")), ("user", text("2"))]),
        ] {
            assert_eq!(schema.parse(&row, UnixSeconds(NOW)), Row::Unusable, "{row:?}");
        }
    }

    #[test]
    fn interprets_a_ttl_as_dynamodb_does() {
        let schema = schema("id", None);
        let row_with = |ttl| item([("id", text("a=")), ("ttl", ttl)]);
        let row_with_number = |ttl: i64| row_with(AttributeValue::N(ttl.to_string()));
        for (row, is_expired, is_in_milliseconds) in [
            (row_with_number(NOW), false, false),
            (row_with_number(NOW - 1), true, false),
            (row_with(AttributeValue::N("1.7899E9".to_owned())), true, false),
            (row_with_number(NOW - 6 * 365 * 24 * 3600), false, false),
            (row_with_number(0), false, false),
            (row_with_number(-1), false, false),
            (row_with(text("1")), false, false),
            (row_with_number((NOW - 1) * 1_000), false, true),
        ] {
            let is_past = schema.parse(&row, UnixSeconds(NOW)) == Row::Expired;
            assert_eq!(is_past, is_expired, "{row:?}");
            assert_eq!(schema.has_ttl_in_milliseconds(&row), is_in_milliseconds, "{row:?}");
        }
    }
}
