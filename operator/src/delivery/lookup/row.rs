//! What a row says: who is connected, by which key the row is deleted, and whether it is out of date.

use std::collections::BTreeSet;

use super::connections_config::ConnectionsConfig;
use crate::model::{AttributeValue, Item, KeySchema, UnixSeconds};

/// DynamoDB takes a TTL that is further back for none, and so a zero.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/howitworks-ttl.html>
const MAX_TTL_AGE_SECONDS: f64 = (5 * 365 * 24 * 3600) as f64;

/// Above this a TTL is in milliseconds: as seconds it would be in the year 5138.
const MAX_TTL_SECONDS: f64 = 1e11;

/// A stored connection. Messages hold on to it while they wait, so that it is small.
#[derive(Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub id: String,
    /// The values of the table's key, in its order, without the one that is the id.
    rest_of_key: Box<[AttributeValue]>,
}

#[cfg(test)]
impl Connection {
    /// One whose row's key is its id.
    pub(crate) fn of(id: &str) -> Self {
        Self { id: id.to_owned(), rest_of_key: Box::default() }
    }
}

/// How rows are read.
#[derive(Debug)]
pub(crate) struct RowSchema {
    keys: KeySchema,
    id: String,
    ttl: Option<String>,
}

/// What a row turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// A connection.
    Connected(Connection),
    /// One whose TTL has passed: DynamoDB deletes it within some days.
    Expired,
    /// One without a usable connection id, or without the table's key.
    Unusable,
}

impl RowSchema {
    pub fn new(keys: KeySchema, source: &ConnectionsConfig) -> Self {
        let (id, ttl) = (source.connection_id_attribute.clone(), source.ttl_attribute.clone());
        Self { keys, id, ttl }
    }

    /// The attributes that a lookup asks for, each once.
    pub fn attributes(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.key_names().chain([&self.id]).chain(&self.ttl).collect();
        names.into_iter().cloned().collect()
    }

    /// What this row is at this time.
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
    pub fn is_in_milliseconds(&self, row: &Item) -> bool {
        self.ttl(row).is_some_and(|ttl| ttl > MAX_TTL_SECONDS)
    }

    /// The table's key of a connection's row.
    pub fn key_of(&self, connection: &Connection) -> Item {
        let mut rest = connection.rest_of_key.iter();
        let value = |name: &String| match *name == self.id {
            true => Some(AttributeValue::S(connection.id.clone())),
            false => rest.next().cloned(),
        };
        let mut value = value;
        self.key_names().filter_map(|name| Some((name.clone(), value(name)?))).collect()
    }

    /// Whether a row is (still) this connection's.
    pub fn is_row_of(&self, row: &Item, connection: &Connection) -> bool {
        matches!(row.get(&self.id), Some(AttributeValue::S(id)) if *id == connection.id)
    }

    fn connection(&self, row: &Item) -> Option<Connection> {
        let Some(AttributeValue::S(id)) = row.get(&self.id) else {
            return None;
        };
        let rest = self.key_names().filter(|name| **name != self.id);
        let rest_of_key = rest.map(|name| row.get(name).cloned()).collect::<Option<_>>()?;
        is_connection_id(id).then(|| Connection { id: id.clone(), rest_of_key })
    }

    /// DynamoDB, too, takes a TTL that is no number for none.
    fn ttl(&self, row: &Item) -> Option<f64> {
        match row.get(self.ttl.as_ref()?) {
            Some(AttributeValue::N(number)) => number.parse().ok(),
            _ => None,
        }
    }

    fn key_names(&self) -> impl Iterator<Item = &String> {
        [Some(&self.keys.partition), self.keys.sort.as_ref()].into_iter().flatten()
    }
}

/// Base64, as API Gateway makes them. Anything else would be a path of its own in the post's URL,
/// and what the endpoint answers to that would be taken for the endpoint's state.
fn is_connection_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+/".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn columns(partition: &str, sort: Option<&str>) -> RowSchema {
        let source = ConnectionsConfig {
            region: "eu-west-1".to_owned(),
            table: "connections".to_owned(),
            index: None,
            partition_key: None,
            connection_id_attribute: "id".to_owned(),
            ttl_attribute: Some("ttl".to_owned()),
            cache: Duration::ZERO,
        };
        let keys = KeySchema { partition: partition.to_owned(), sort: sort.map(str::to_owned) };
        RowSchema::new(keys, &source)
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn item<const COUNT: usize>(attributes: [(&str, AttributeValue); COUNT]) -> Item {
        attributes.map(|(name, value)| (name.to_owned(), value)).into()
    }

    #[test]
    fn each_attribute_that_is_needed_is_asked_for_once() {
        assert_eq!(columns("id", None).attributes(), ["id", "ttl"]);
        assert_eq!(columns("room", Some("id")).attributes(), ["id", "room", "ttl"]);
        assert_eq!(columns("room", Some("user")).attributes(), ["id", "room", "ttl", "user"]);
    }

    #[test]
    fn a_rows_key_is_kept_wherever_the_id_stands_in_it() {
        let row = item([("id", text("a=")), ("room", text("1")), ("user", text("2"))]);
        for (partition, sort, kept) in [
            ("id", None, 0),
            ("room", Some("id"), 1),
            ("id", Some("room"), 1),
            ("room", Some("user"), 2),
            ("user", Some("room"), 2),
        ] {
            let columns = columns(partition, sort);
            let Row::Connected(connection) = columns.parse(&row, UnixSeconds(NOW)) else {
                panic!("{partition} {sort:?}");
            };
            assert_eq!(connection.rest_of_key.len(), kept);
            let names = [Some(partition), sort].into_iter().flatten();
            let key = names.map(|name| (name.to_owned(), row.get(name).unwrap().clone()));
            assert_eq!(columns.key_of(&connection), key.collect());
            assert!(columns.is_row_of(&row, &connection));
            let other = item([("id", text("b=")), ("room", text("1")), ("user", text("2"))]);
            assert!(!columns.is_row_of(&other, &connection), "the user has come back");
        }
    }

    #[test]
    fn a_row_without_id_or_key_is_nobodys() {
        let columns = columns("room", Some("user"));
        for row in [
            item([("room", text("1")), ("user", text("2"))]),
            item([("id", text("a=")), ("user", text("2"))]),
            item([("id", text("../a")), ("room", text("1")), ("user", text("2"))]),
            item([("id", AttributeValue::Null), ("room", text("1")), ("user", text("2"))]),
        ] {
            assert_eq!(columns.parse(&row, UnixSeconds(NOW)), Row::Unusable, "{row:?}");
        }
    }

    #[test]
    fn a_ttl_counts_as_dynamodb_counts_it() {
        let columns = columns("id", None);
        let with = |ttl| item([("id", text("a=")), ("ttl", ttl)]);
        let number = |ttl: i64| with(AttributeValue::N(ttl.to_string()));
        for (row, is_expired, is_in_milliseconds) in [
            (number(NOW), false, false),
            (number(NOW - 1), true, false),
            (with(AttributeValue::N("1.7899E9".to_owned())), true, false),
            (number(NOW - 6 * 365 * 24 * 3600), false, false),
            (number(0), false, false),
            (number(-1), false, false),
            (with(text("1")), false, false),
            (number((NOW - 1) * 1_000), false, true),
        ] {
            let is_past = columns.parse(&row, UnixSeconds(NOW)) == Row::Expired;
            assert_eq!(is_past, is_expired, "{row:?}");
            assert_eq!(columns.is_in_milliseconds(&row), is_in_milliseconds, "{row:?}");
        }
    }
}
