//! Checks a JSON value against a schema. It knows what the description of the API uses, and takes a keyword that it
//! does not know for a mistake. A field that is not described is one too, unless the schema has `x-partial`.

use serde_json::Value;

/// Keywords that say nothing about validity.
const REMARKS: [&str; 5] = ["description", "default", "x-partial", "x-event-schema", "format"];

/// Fails with the place of the first difference.
pub(super) fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    at(root, schema, value, "$")
}

fn at(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let keywords = schema.as_object().ok_or("a schema is an object")?;
    for (keyword, given) in keywords {
        let holds = match keyword.as_str() {
            "$ref" => {
                let target = given.as_str().and_then(|target| root.pointer(target.trim_start_matches('#')));
                at(root, target.ok_or_else(|| format!("{given} leads nowhere"))?, value, place)?;
                true
            }
            "type" => match given {
                Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                kind => is_of(kind, value),
            },
            "const" => given == value,
            // A value may be null although the list does not have it, if its type says so.
            "enum" => {
                let all = given.as_array().ok_or("an enum is a list")?;
                all.contains(value) || value.is_null() && keywords["type"].is_array()
            }
            "minimum" => !value.is_number() || value.as_f64() >= given.as_f64(),
            "oneOf" => {
                let all = given.as_array().ok_or("oneOf is a list")?;
                let results: Vec<_> = all.iter().map(|one| at(root, one, value, place)).collect();
                match results.iter().filter(|result| result.is_ok()).count() {
                    1 => true,
                    0 => return results.into_iter().next().unwrap_or(Ok(())),
                    _ => false,
                }
            }
            "items" => {
                let elements = value.as_array().map(Vec::as_slice).unwrap_or_default();
                for (number, element) in elements.iter().enumerate() {
                    at(root, given, element, &format!("{place}[{number}]"))?;
                }
                true
            }
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                for (name, field) in fields {
                    match given.get(name) {
                        Some(schema) => at(root, schema, field, &format!("{place}.{name}"))?,
                        None if keywords.contains_key("x-partial") => {}
                        None => return Err(format!("{place}.{name} is not described")),
                    }
                }
                true
            }
            "additionalProperties" => {
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .try_for_each(|(name, field)| at(root, given, field, &format!("{place}.{name}")))?;
                true
            }
            "required" => {
                let names = given.as_array().ok_or("required is a list")?;
                let missing =
                    names.iter().find(|name| value.get(name.as_str().unwrap_or_default()).is_none());
                match missing.filter(|_| value.is_object()) {
                    Some(name) => return Err(format!("{place} has no {name}")),
                    None => true,
                }
            }
            other if REMARKS.contains(&other) => true,
            other => return Err(format!("the keyword {other} is unknown")),
        };
        if !holds {
            return Err(format!("{place}: {value} is not {keyword} {given}"));
        }
    }
    Ok(())
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

#[test]
fn differences_are_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "a": {"type": ["integer", "null"], "minimum": 0},
            "b": {"type": "array", "items": {"$ref": "#/kinds"}},
            "c": {"oneOf": [{"type": "null"}, {"type": "object", "properties": {}, "x-partial": true}]},
        },
        "required": ["a"],
    });
    let root = serde_json::json!({"kinds": {"type": "string", "enum": ["x", "y"]}});
    let result = |document: Value| check(&root, &schema, &document);
    for good in [
        serde_json::json!({"a": 1, "b": ["x", "y"], "c": {"z": 1}}),
        serde_json::json!({"a": null, "c": null}),
    ] {
        assert_eq!(result(good), Ok(()));
    }
    for (bad, error) in [
        (serde_json::json!({}), "$ has no \"a\""),
        (serde_json::json!({"a": -1}), "$.a: -1 is not minimum 0"),
        (serde_json::json!({"a": "1"}), "$.a: \"1\" is not type [\"integer\",\"null\"]"),
        (serde_json::json!({"a": 1, "b": ["x", "z"]}), "$.b[1]: \"z\" is not enum [\"x\",\"y\"]"),
        (serde_json::json!({"a": 1, "c": 2}), "$.c: 2 is not type \"null\""),
        (serde_json::json!({"a": 1, "d": 2}), "$.d is not described"),
        (serde_json::json!([]), "$: [] is not type \"object\""),
    ] {
        assert_eq!(result(bad).unwrap_err(), error);
    }
    assert!(check(&root, &serde_json::json!({"maxLength": 1}), &"x".into()).is_err());
}
