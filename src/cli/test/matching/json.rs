//! JSON of which a part is expected.

use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// How an output is not what is expected, and where. Objects may hold more than they must, arrays may not.
pub(super) fn mismatch(expected: &Value, output: &Value) -> Option<String> {
    differs(expected, output, &mut String::new())
}

fn differs(expected: &Value, output: &Value, at: &mut String) -> Option<String> {
    let length = at.len();
    match (expected, output) {
        (Value::Object(expected), Value::Object(output)) => expected.iter().find_map(|(key, value)| {
            at.push('.');
            at.push_str(key);
            let told = match output.get(key) {
                Some(output) => differs(value, output, at),
                None => Some(format!("has nothing at {at}; expected: {value}")),
            };
            at.truncate(length);
            told
        }),
        (Value::Array(expected), Value::Array(output)) if expected.len() == output.len() => {
            expected.iter().zip(output).enumerate().find_map(|(index, (expected, output))| {
                at.push_str(&format!("[{index}]"));
                let told = differs(expected, output, at);
                at.truncate(length);
                told
            })
        }
        (Value::Number(expected), Value::Number(output)) if equal(expected, output) => None,
        _ if expected == output => None,
        _ if at.is_empty() => Some(format!("is {output}; expected: {expected}")),
        _ => Some(format!("has {output} at {at}; expected: {expected}")),
    }
}

/// `1` and `1.0` are one number.
fn equal(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

/// What a test file says of it: a TOML value, or a string that holds JSON, since TOML has no `null`.
pub(super) fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(json) => serde_json::from_str(&json)
            .map_err(|e| format!("{json:?} is no JSON ({e}); that of a string has quotes of its own: '\"text\"'")),
        value => of_toml(value),
    };
    value.map(Some).map_err(serde::de::Error::custom)
}

fn of_toml(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::Number(number.into()),
        toml::Value::Float(number) => {
            Value::Number(Number::from_f64(number).ok_or_else(|| format!("JSON has no {number}"))?)
        }
        toml::Value::Boolean(yes) => Value::Bool(yes),
        toml::Value::Datetime(date) => return Err(format!("JSON has no dates: write \"{date}\"")),
        toml::Value::Array(values) => Value::Array(values.into_iter().map(of_toml).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => {
            let pairs = table.into_iter().map(|(key, value)| Ok((key, of_toml(value)?)));
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let output = json!({"a": {"b": [1, 2, null]}, "c": "x", "d": 1.0});
        for (expected, told) in [
            (json!({}), None),
            (json!({"d": 1, "c": "x"}), None),
            (json!({"a": {"b": [1, 2, null]}}), None),
            (json!({"a": {"b": [1, 3, null]}}), Some("has 2 at .a.b[1]; expected: 3")),
            (json!({"a": {"b": [1, 2]}}), Some("has [1,2,null] at .a.b; expected: [1,2]")),
            (json!({"e": null}), Some("has nothing at .e; expected: null")),
            (json!({"c": "y"}), Some("has \"x\" at .c; expected: \"y\"")),
        ] {
            assert_eq!(mismatch(&expected, &output).as_deref(), told, "{expected}");
        }
        assert_eq!(mismatch(&json!(1), &json!("1")).unwrap(), "is \"1\"; expected: 1");
        // Larger than a float tells apart.
        assert!(mismatch(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)).is_some());
    }

    #[test]
    fn toml_and_json_say_the_same() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(deserialize_with = "written")]
            json: Option<Value>,
        }
        let read = |toml: &str| toml::from_str::<Holder>(toml).map(|holder| holder.json.unwrap());
        assert_eq!(read("json = { a = [1, 2.5, true, 'x'] }").unwrap(), json!({"a": [1, 2.5, true, "x"]}));
        assert_eq!(read("json = '{\"a\": null}'").unwrap(), json!({"a": null}));
        assert_eq!(read("json = '\"text\"'").unwrap(), json!("text"));
        for (toml, problem) in [
            ("json = 'text'", "that of a string has quotes of its own"),
            ("json = { at = 2017-03-16 }", "JSON has no dates: write \"2017-03-16\""),
            ("json = nan", "JSON has no NaN"),
        ] {
            let told = read(toml).err().unwrap().message().to_owned();
            assert!(told.contains(problem), "{told}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-5_i64..5).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_matches_itself_and_what_holds_more(value in any_json(), more in any_json()) {
            prop_assert_eq!(mismatch(&value, &value), None);
            if let Value::Object(mut pairs) = value.clone() {
                pairs.insert("more".to_owned(), more);
                prop_assert_eq!(mismatch(&value, &Value::Object(pairs.clone())), None);
                prop_assert!(mismatch(&Value::Object(pairs), &value).is_some());
            }
        }

        #[test]
        fn two_that_match_each_other_are_equal(a in any_json(), b in any_json()) {
            let both = mismatch(&a, &b).is_none() && mismatch(&b, &a).is_none();
            prop_assert_eq!(both, a == b);
        }
    }
}
