//! Values across the border between JSON and a script.
//!
//! Invariant: a value from the journal reaches a script as made from JSON, always, so a first run and a replay see
//! equal types.

use crate::limits;
use rhai::Dynamic;
use serde_json::{Map, Number, Value};

/// JSON to a script's value. A whole number beyond 64 signed bits becomes a float.
pub(super) fn to_dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(flag) => Dynamic::from_bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Dynamic::from_int(whole),
            None => Dynamic::from_float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => rhai::ImmutableString::from(text.as_str()).into(),
        Value::Array(items) => Dynamic::from_array(items.iter().map(to_dynamic).collect()),
        Value::Object(map) => {
            Dynamic::from_map(map.iter().map(|(key, value)| (key.as_str().into(), to_dynamic(value))).collect())
        }
    }
}

/// A script's value as JSON. The error names the value that JSON cannot hold.
pub(super) fn to_json(value: &Dynamic) -> Result<Value, String> {
    json_within(value, limits::SCRIPT_VALUE_DEPTH)
}

fn json_within(value: &Dynamic, depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err(format!("a value is nested deeper than {} levels", limits::SCRIPT_VALUE_DEPTH));
    }
    if value.is_shared() {
        return json_within(&value.flatten_clone(), depth);
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(Value::String(text.to_string()));
    }
    if let Ok(whole) = value.as_int() {
        return Ok(Value::from(whole));
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(Value::Bool(flag));
    }
    if let Ok(float) = value.as_float() {
        return Number::from_f64(float).map(Value::Number).ok_or_else(|| format!("{float} is not a JSON number"));
    }
    if let Ok(letter) = value.as_char() {
        return Ok(Value::String(letter.to_string()));
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().map(|item| json_within(item, depth - 1)).collect::<Result<_, _>>().map(Value::Array);
    }
    if let Ok(map) = value.as_map_ref() {
        let mut object = Map::new();
        for (key, item) in map.iter() {
            object.insert(key.to_string(), json_within(item, depth - 1)?);
        }
        return Ok(Value::Object(object));
    }
    Err(format!("{} cannot be handed over; give a text, a number, a bool, an array or a map", kind_of(value)))
}

/// The type's name for authors of runbooks.
pub(super) fn kind_of(value: &Dynamic) -> &'static str {
    if value.is_shared() {
        return kind_of(&value.flatten_clone());
    }
    match () {
        () if value.is_unit() => "nothing",
        () if value.is_string() => "a text",
        () if value.is_int() => "a whole number",
        () if value.is_float() => "a float",
        () if value.is_bool() => "a bool",
        () if value.is_char() => "a character",
        () if value.is_array() => "an array",
        () if value.is_map() => "a map",
        () if value.is_fnptr() => "a function",
        () => "a value of another type",
    }
}

/// Whether two values are the same to the journal. Floats may differ by two units in the last place, because a number
/// that went through text need not come back to the last bit.
pub(super) fn alike(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a == b || (a.is_sign_positive() == b.is_sign_positive() && a.to_bits().abs_diff(b.to_bits()) <= 2)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => maps_alike(a, b),
        _ => left == right,
    }
}

pub(super) fn maps_alike(left: &Map<String, Value>, right: &Map<String, Value>) -> bool {
    left.len() == right.len() && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| alike(value, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_goes_in_and_comes_back_unchanged() {
        let value = json!({"a": [1, 2.5, "x", null, true], "b": {"c": {}}, "max": i64::MAX, "min": i64::MIN});
        assert_eq!(to_json(&to_dynamic(&value)), Ok(value));
    }

    #[test]
    fn what_json_cannot_hold_is_refused_in_words() {
        assert!(to_json(&Dynamic::from_float(f64::NAN)).unwrap_err().contains("NaN"));
        assert!(to_json(&Dynamic::from_float(f64::INFINITY)).is_err());
        assert!(to_json(&Dynamic::from_blob(vec![1])).unwrap_err().contains("cannot be handed over"));
        let mut deep = Dynamic::UNIT;
        for _ in 0..100 {
            deep = Dynamic::from_array(vec![deep]);
        }
        assert!(to_json(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn a_float_that_went_through_text_is_alike_and_another_number_is_not() {
        let x = 0.1 + 0.2;
        assert!(alike(&json!({"x": [x]}), &json!({"x": [f64::from_bits(f64::to_bits(x) + 1)]})));
        assert!(!alike(&json!(0.3), &json!(0.31)));
        assert!(!alike(&json!(1.0), &json!(-1.0)));
        assert!(!alike(&json!(1), &json!("1")));
        assert!(!alike(&json!({"a": 1}), &json!({"b": 1})));
    }
}
