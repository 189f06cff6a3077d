//! A provider's own description of its API, Swagger 2.0, against which requests are held.

use protocol::form::Form;
use serde_json::{Value, json};

/// A description that was read.
pub struct Description {
    document: Value,
}

impl Description {
    /// Reads a description.
    pub fn parse(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).expect("the description is JSON");
        assert_eq!(document["swagger"], "2.0");
        Self { document }
    }

    /// The parts of a request that the description does not allow; empty if it is valid. A `body` that is
    /// null is none.
    pub fn problems(&self, method: &str, target: &str, body: &Value) -> Vec<String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(operation) = self.operation(method, path) else {
            return vec![format!("{method} {path} is not described")];
        };
        let parameters: Vec<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        let mut problems = self.query_problems(&parameters, query);
        let described = parameters
            .iter()
            .find(|parameter| parameter["in"] == "body");
        match (described, body) {
            (None, Value::Null) => {}
            (None, _) => problems.push("it has a body, and none is described".to_owned()),
            (Some(parameter), Value::Null) if parameter["required"] == true => {
                problems.push("it has no body".to_owned());
            }
            (Some(parameter), body) => {
                problems.extend(self.violations(&parameter["schema"], body));
                problems.extend(self.unknown(&parameter["schema"], body, ""));
            }
        }
        problems
    }

    /// The operation of a path, the segments in braces of which stand for anything.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let is_match = |template: &str| {
            let (mut wanted, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given))
                        if wanted == given || wanted.starts_with('{') && !given.is_empty() => {}
                    _ => return false,
                }
            }
        };
        self.document["paths"]
            .as_object()?
            .iter()
            .find(|(template, _)| is_match(template))?
            .1
            .get(method.to_ascii_lowercase())
    }

    fn query_problems(&self, parameters: &[&Value], query: &str) -> Vec<String> {
        let described: Vec<_> = parameters.iter().filter(|p| p["in"] == "query").collect();
        let mut problems = Vec::new();
        let form = Form::parse(query.as_bytes());
        for (name, value) in form.iter() {
            let Some(parameter) = described.iter().find(|p| p["name"] == name) else {
                problems.push(format!("query parameter {name} is not described"));
                continue;
            };
            let value = match parameter["type"].as_str() {
                Some("boolean" | "integer" | "number") => {
                    serde_json::from_str(value).unwrap_or_else(|_| value.into())
                }
                _ => Value::from(value),
            };
            problems.extend(self.violations(parameter, &value));
        }
        problems
    }

    fn violations(&self, schema: &Value, value: &Value) -> Vec<String> {
        // Referenced schemas stand beside it; `required` and `in` of a parameter do not belong to a schema.
        let mut root = schema.as_object().cloned().unwrap_or_default();
        root.remove("in");
        if root.get("required").is_some_and(Value::is_boolean) {
            root.remove("required");
        }
        let root = match root.remove("$ref") {
            Some(reference) => json!({ "allOf": [{ "$ref": reference }] }),
            None => Value::Object(root),
        };
        let mut root = root;
        root["definitions"] = self.document["definitions"].clone();
        let validator = jsonschema::draft4::options()
            .should_validate_formats(true)
            .build(&root)
            .expect("the description's schemas are schemas");
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    /// Members that no schema names: descriptions allow them, and servers ignore them.
    fn unknown(&self, schema: &Value, value: &Value, place: &str) -> Vec<String> {
        let schema = self.resolved(schema);
        let (Some(members), Some(known)) = (value.as_object(), schema["properties"].as_object())
        else {
            return Vec::new();
        };
        members
            .iter()
            .flat_map(|(name, value)| match known.get(name) {
                None => vec![format!("{place}/{name} is not described")],
                Some(schema) => self.unknown(schema, value, &format!("{place}/{name}")),
            })
            .collect()
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match (schema["$ref"].as_str(), schema["allOf"].as_array()) {
            (Some(reference), _) => {
                let found = self.document.pointer(reference.trim_start_matches('#'));
                self.resolved(found.expect("references lead somewhere"))
            }
            (None, Some(all)) if all.len() == 1 => self.resolved(&all[0]),
            _ => schema,
        }
    }
}
