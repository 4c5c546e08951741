//! As much of JSON Schema as `tests/vendor/grafana` uses.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Checks a value.
///
/// # Errors
///
/// With the place of the first mistake, or a keyword that is not known here.
pub fn check(schema: &Value, value: &Value) -> Result<()> {
    within(schema, schema, value)
}

fn within(root: &Value, schema: &Value, value: &Value) -> Result<()> {
    for (keyword, rule) in schema.as_object().context("a schema that is no object")? {
        match keyword.as_str() {
            "$schema" | "definitions" | "required" | "additionalProperties" => {}
            "$ref" => {
                let path = rule.as_str().and_then(|path| path.strip_prefix('#')).context("a foreign $ref")?;
                within(root, root.pointer(path).with_context(|| path.to_owned())?, value)?;
            }
            "type" => has_type(rule, value)?,
            "const" => ensure!(value == rule, "{value} instead of {rule}"),
            "enum" => {
                ensure!(rule.as_array().is_some_and(|all| all.contains(value)), "{value} is not in {rule}");
            }
            "anyOf" => any_of(root, rule.as_array().context("anyOf")?, value)?,
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    within(root, rule, item).with_context(|| format!("[{at}]"))?;
                }
            }
            "properties" => object(root, schema, value)?,
            other => bail!("the keyword {other} is not known here"),
        }
    }
    Ok(())
}

fn has_type(rule: &Value, value: &Value) -> Result<()> {
    let is = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let fits = rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is));
    ensure!(fits, "{value} is not of type {rule}");
    Ok(())
}

/// Reports the alternative for the same `type`, if there is one: a panel has many mistakes as another panel.
fn any_of(root: &Value, all: &[Value], value: &Value) -> Result<()> {
    let mut mistakes = Vec::new();
    for alternative in all {
        let Err(mistake) = within(root, alternative, value) else { return Ok(()) };
        let kind = alternative.pointer("/properties/type/const");
        if kind.is_some() && kind == value.get("type") {
            return Err(mistake);
        }
        mistakes.push(format!("{mistake:#}"));
    }
    bail!("none of: {}", mistakes.join("; "))
}

fn object(root: &Value, schema: &Value, value: &Value) -> Result<()> {
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().context("required")?;
        ensure!(fields.contains_key(name), "{name} is missing");
    }
    for (name, field) in fields {
        match schema["properties"].get(name) {
            Some(rule) => within(root, rule, field).with_context(|| format!(".{name}"))?,
            None => match &schema["additionalProperties"] {
                Value::Bool(false) => bail!("there is no field {name}"),
                rule @ Value::Object(_) => within(root, rule, field).with_context(|| format!(".{name}"))?,
                _ => {}
            },
        }
    }
    Ok(())
}
