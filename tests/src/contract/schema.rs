//! A JSON Schema validator for what schemars writes and no more: a keyword that it does not know is an error of the test.
//! The libraries that validate all of JSON Schema have serde_json, num-bigint or syn built with other features, and tract,
//! which takes ten minutes, with them.

use serde_json::{Map, Value};

/// Appends to `faults` what is wrong with `value`, which stands at the JSON pointer `at`. References lead into `document`.
pub(super) fn validate(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let keywords = match schema {
        Value::Bool(true) => return,
        Value::Object(keywords) => keywords,
        other => panic!("{other} is not a schema"),
    };
    for (keyword, wanted) in keywords {
        let fault = match keyword.as_str() {
            "$ref" => {
                validate(document, target(document, wanted), value, at, faults);
                None
            }
            "allOf" => {
                list(wanted).iter().for_each(|schema| validate(document, schema, value, at, faults));
                None
            }
            "anyOf" | "oneOf" => {
                let fits = |schema: &&Value| {
                    let mut faults = vec![];
                    validate(document, schema, value, at, &mut faults);
                    faults.is_empty()
                };
                let count = list(wanted).iter().filter(fits).count();
                let good = count == 1 || count > 1 && keyword == "anyOf";
                (!good).then(|| format!("{value} fits {count} of {wanted}"))
            }
            "properties" | "additionalProperties" => {
                properties(document, keywords, keyword, value, at, faults);
                None
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(document, wanted, item, &format!("{at}/{i}"), faults);
                }
                None
            }
            // What these say is for people.
            "default" | "description" | "format" | "title" => None,
            keyword => (!holds(keyword, wanted, value)).then(|| format!("{value} against {keyword} {wanted}")),
        };
        faults.extend(fault.map(|fault| format!("{at}: {fault}")));
    }
}

/// Each named property against its schema, or those that are not named against that for others.
fn properties(
    document: &Value,
    keywords: &Map<String, Value>,
    keyword: &str,
    value: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    let named = keywords.get("properties").and_then(Value::as_object);
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        match (named.and_then(|named| named.get(key)), &keywords[keyword]) {
            (Some(schema), _) if keyword == "properties" => validate(document, schema, value, &at, faults),
            (None, Value::Bool(false)) => faults.push(format!("{at}: the key is not known")),
            (None, schema) if keyword == "additionalProperties" => validate(document, schema, value, &at, faults),
            _ => {}
        }
    }
}

/// Keywords of one value, which hold for values of every other kind.
fn holds(keyword: &str, wanted: &Value, value: &Value) -> bool {
    let number = |holds: fn(f64, f64) -> bool| value.as_f64().is_none_or(|n| holds(n, number(wanted)));
    let length = |holds: fn(f64, f64) -> bool| {
        let length = value.as_str().map(|text| text.chars().count()).or(value.as_array().map(Vec::len));
        length.is_none_or(|length| holds(length as f64, self::number(wanted)))
    };
    match keyword {
        "type" if wanted.is_array() => list(wanted).iter().any(|kind| is_kind(kind, value)),
        "type" => is_kind(wanted, value),
        "const" => wanted == value,
        "enum" => list(wanted).contains(value),
        "required" => value
            .as_object()
            .is_none_or(|object| list(wanted).iter().filter_map(Value::as_str).all(|key| object.contains_key(key))),
        "minimum" => number(|n, least| n >= least),
        "maximum" => number(|n, most| n <= most),
        "multipleOf" => number(|n, unit| n % unit == 0.0),
        "minLength" | "minItems" => length(|length, least| length >= least),
        "maxLength" | "maxItems" => length(|length, most| length <= most),
        "pattern" => value.as_str().is_none_or(|text| {
            let pattern = regex::Regex::new(wanted.as_str().expect("a pattern")).expect("a pattern");
            pattern.is_match(text)
        }),
        unknown => panic!("docs/asyncapi.json has the keyword `{unknown}`, which this validator lacks"),
    }
}

fn is_kind(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        unknown => panic!("docs/asyncapi.json has the type `{unknown}`"),
    }
}

fn target<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference into the document");
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(schema: &Value, value: &Value) -> usize {
        let mut faults = vec![];
        let document = json!({"small": {"type": "integer", "maximum": 9}});
        validate(&document, schema, value, "", &mut faults);
        faults.len()
    }

    #[test]
    fn every_keyword_can_fail() {
        let cases = [
            (json!({"type": "string"}), json!("a"), json!(1)),
            (json!({"type": ["string", "null"]}), json!(null), json!([])),
            (json!({"type": "integer"}), json!(42.0), json!(1.5)),
            (json!({"enum": ["a", "b"]}), json!("b"), json!("c")),
            (json!({"const": "a"}), json!("a"), json!("b")),
            (json!({"minimum": 1, "maximum": 3}), json!(3), json!(4)),
            (json!({"multipleOf": 8}), json!(64.0), json!(7)),
            (json!({"minLength": 2}), json!("ää"), json!("ä")),
            (json!({"maxItems": 1}), json!([1]), json!([1, 2])),
            (json!({"pattern": "^[a-z]$"}), json!("a"), json!("ab")),
            (json!({"required": ["a"]}), json!({"a": 1}), json!({"b": 1})),
            (json!({"items": {"type": "null"}}), json!([null]), json!([null, 1])),
            (json!({"properties": {"a": {"type": "null"}}}), json!({"a": null, "b": 1}), json!({"a": 1})),
            (json!({"properties": {"a": true}, "additionalProperties": false}), json!({"a": 1}), json!({"b": 1})),
            (json!({"additionalProperties": {"type": "null"}}), json!({"a": null}), json!({"a": 1})),
            (json!({"anyOf": [{"type": "null"}, {"minimum": 3, "type": "number"}]}), json!(3), json!(2)),
            (json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}), json!(1.5), json!(2)),
            (json!({"allOf": [{"minimum": 3}, {"maximum": 5}]}), json!(4), json!(6)),
            (json!({"$ref": "#/small"}), json!(9), json!(10)),
        ];
        for (schema, good, bad) in cases {
            assert_eq!((faults(&schema, &good), faults(&schema, &bad)), (0, 1), "{schema}");
        }
    }

    #[test]
    #[should_panic(expected = "keyword `contains`")]
    fn an_unknown_keyword_is_not_passed_over() {
        faults(&json!({"contains": 1}), &json!([1]));
    }
}
