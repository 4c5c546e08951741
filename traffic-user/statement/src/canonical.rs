//! JSON of which each value has one text: the part of RFC 8785 without fractions.
//!
//! Numbers are integers that every reader of JSON keeps exactly. Larger ones, and all amounts, are texts.

use serde::Serialize;
use serde_json::Value;

use crate::error::StatementError;

/// The largest integer that a double has exactly, as have those below it.
const EXACT: u64 = (1 << 53) - 1;

/// The text of a value.
///
/// # Errors
/// When it has a number with a fraction, or one that is too large.
pub(crate) fn text(value: &impl Serialize) -> Result<String, StatementError> {
    let value = serde_json::to_value(value).map_err(StatementError::form)?;
    let mut text = String::new();
    write(&value, &mut text)?;
    Ok(text)
}

fn write(value: &Value, text: &mut String) -> Result<(), StatementError> {
    match value {
        Value::Null | Value::Bool(_) => *text += &value.to_string(),
        Value::Number(number) => {
            let is_exact = number.as_i64().is_some_and(|number| number.unsigned_abs() <= EXACT);
            if !is_exact {
                return Err(StatementError::form(format!("the number {number} has no canonical text")));
            }
            *text += &number.to_string();
        }
        // serde_json escapes what RFC 8785 has escaped, and nothing else.
        Value::String(_) => *text += &value.to_string(),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(item, text)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                *text += &Value::from(name.as_str()).to_string();
                text.push(':');
                write(member, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_has_one_text() {
        // The order of RFC 8785, section 3.2.3: by UTF-16, in which the emoji comes before the ligature.
        let value = json!({
            "\u{20ac}": "Euro Sign",
            "\r": "Carriage Return",
            "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\u{1f600}": "Emoji: Grinning Face",
            "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis",
        });
        let text = text(&value).unwrap();
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
        let found: Vec<_> = order.iter().map(|word| text.find(word).unwrap()).collect();
        assert!(found.is_sorted(), "{text}");
    }

    #[test]
    fn texts_are_escaped_as_the_standard_says() {
        let value = json!({ "b": ["\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}", null, true, -7], "a": {} });
        assert_eq!(
            text(&value).unwrap(),
            "{\"a\":{},\"b\":[\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\",null,true,-7]}"
        );
    }

    #[test]
    fn numbers_that_readers_would_round_are_refused() {
        assert_eq!(text(&json!(9_007_199_254_740_991_u64)).unwrap(), "9007199254740991");
        for value in
            [json!(9_007_199_254_740_992_u64), json!(-9_007_199_254_740_992_i64), json!(0.5), json!(u64::MAX)]
        {
            assert!(text(&value).is_err(), "{value}");
        }
    }
}
