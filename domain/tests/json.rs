//! Free JSON: one value has one text, and reading it again changes nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

use domain::Json;
use proptest::prelude::*;
use serde_json::Value;

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_keeps_its_text_however_often_it_is_read(value in values()) {
        let json = Json::from(&value);
        prop_assert_eq!(&Json::from(json.value()), &json);
        let read: Json = serde_json::from_str(json.as_str()).unwrap();
        prop_assert_eq!(&read, &json);
        let stored = bincode::serialize(&json).unwrap();
        prop_assert_eq!(bincode::deserialize::<Json>(&stored).unwrap(), json);
    }
}

#[test]
fn stored_text_that_is_no_json_is_refused() {
    for text in ["", "{", "{} {}", "nul", "\u{0}"] {
        let stored = bincode::serialize(&text).unwrap();
        assert!(bincode::deserialize::<Json>(&stored).is_err(), "{text:?}");
    }
}
