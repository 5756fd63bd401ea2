//! Holds a JSON document against a JSON Schema: just the keywords that our published schemas use, and strictly.
//!
//! A keyword that is not known here is a failure, so that a schema can't say what nobody checks. A field that the schema
//! does not describe is a failure too: readers may ignore unknown fields, but we may not forget to describe ours.

use serde_json::Value;

/// What is wrong with `document`, each with its place.
pub fn problems(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, document, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{place}: not a schema: {schema}"));
    let wrong = |what: String| format!("{place}: {what}: {value}");
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => {}
            "type" => {
                let allowed = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !allowed.iter().any(|name| has_type(value, name.as_str().expect("a type is a word"))) {
                    found.push(wrong(format!("not of type {wanted}")));
                }
            }
            "const" if value != wanted => found.push(wrong(format!("not {wanted}"))),
            "enum" if !list(wanted).contains(value) => found.push(wrong(format!("none of {wanted}"))),
            "minimum" if value.as_f64().is_some_and(|number| number < number_of(wanted)) => {
                found.push(wrong(format!("less than {wanted}")));
            }
            "maximum" if value.as_f64().is_some_and(|number| number > number_of(wanted)) => {
                found.push(wrong(format!("more than {wanted}")));
            }
            "maxItems" if value.as_array().is_some_and(|items| items.len() as f64 > number_of(wanted)) => {
                found.push(wrong(format!("more than {wanted} items")));
            }
            "const" | "enum" | "minimum" | "maximum" | "maxItems" => {}
            "pattern" => {
                // The one that is used; a regular expression would need a crate.
                assert_eq!(wanted, "^[0-9a-f]{64}$", "{place}: an unknown pattern");
                let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                if !value.as_str().is_some_and(|text| text.len() == 64 && text.chars().all(is_digit)) {
                    found.push(wrong(format!("does not match {wanted}")));
                }
            }
            "required" => {
                for name in list(wanted) {
                    if value.get(name.as_str().expect("a name")).is_none() {
                        found.push(wrong(format!("has no {name}")));
                    }
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match wanted.get(name) {
                        Some(schema) => check(root, schema, field, &format!("{place}/{name}"), found),
                        None => found.push(format!("{place}: the field {name} is not described")),
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{place}/{index}"), found);
                }
            }
            "oneOf" => {
                let tries: Vec<Vec<String>> = list(wanted)
                    .iter()
                    .map(|schema| {
                        let mut problems = Vec::new();
                        check(root, schema, value, place, &mut problems);
                        problems
                    })
                    .collect();
                if tries.iter().filter(|problems| problems.is_empty()).count() != 1 {
                    found.extend(tries.into_iter().flatten());
                }
            }
            "$ref" => {
                let name =
                    wanted.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a local name");
                let there = &root["$defs"][name];
                assert!(there.is_object(), "{place}: {wanted} leads nowhere");
                check(root, there, value, place, found);
            }
            unknown => panic!("{place}: the schema has the keyword {unknown}, which is not checked here"),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number_of(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}
