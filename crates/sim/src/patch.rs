//! The patches that the Kubernetes API accepts, and the difference that one made.
//!
//! Invariant: applying `difference(before, after)` as a merge patch to `before` gives `after`.

use super::object::text;
use serde_json::{Map, Value};

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Strategic merge: like a merge patch, but the lists that Kubernetes keys by a field are merged item by item.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
            continue;
        }
        let old = object.entry(name.clone()).or_insert(Value::Null);
        match (list_key(name), old.as_array_mut(), value.as_array()) {
            (Some(key), Some(old), Some(new)) => merge_list(old, new, key),
            _ => strategic(old, value),
        }
    }
}

/// The field that names an item of a list. Other lists (a node's taints among them) are replaced as a whole.
fn list_key(name: &str) -> Option<&'static str> {
    match name {
        "containers" | "initContainers" | "volumes" | "env" => Some("/name"),
        "conditions" => Some("/type"),
        "ownerReferences" => Some("/uid"),
        _ => None,
    }
}

fn merge_list(old: &mut Vec<Value>, new: &[Value], key: &str) {
    for item in new {
        let same = |o: &Value| text(o, key) == text(item, key);
        if text(item, "/$patch") == "delete" {
            old.retain(|o| !same(o));
        } else if let Some(found) = old.iter_mut().find(|o| same(o)) {
            strategic(found, item);
        } else {
            old.push(item.clone());
        }
    }
}

/// RFC 6902: add, remove, replace and test, the operations that clients send to nodes and pods.
pub(super) fn json_patch(target: &mut Value, operations: &Value) -> Result<(), String> {
    let operations = operations.as_array().ok_or("a JSON patch is a list of operations")?;
    for operation in operations {
        let path = text(operation, "/path");
        let value = operation.get("value").cloned().unwrap_or(Value::Null);
        match text(operation, "/op") {
            "test" if target.pointer(path) == Some(&value) => {}
            "test" => return Err(format!("testing value {path} failed")),
            "add" => set(target, path, value, PatchMode::Insert)?,
            "replace" => {
                target.pointer(path).ok_or_else(|| format!("replace operation does not apply: {path} is missing"))?;
                set(target, path, value, PatchMode::Overwrite)?;
            }
            "remove" => remove(target, path)?,
            other => return Err(format!("the operation `{other}` is not served by the simulated fleet")),
        }
    }
    Ok(())
}

#[derive(PartialEq)]
enum PatchMode {
    Insert,
    Overwrite,
}

fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("`{path}` is not a JSON pointer"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn set(target: &mut Value, path: &str, value: Value, place: PatchMode) -> Result<(), String> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(object)) => {
            object.insert(last, value);
        }
        Some(Value::Array(items)) if last == "-" => items.push(value),
        Some(Value::Array(items)) => {
            let index: usize = last.parse().map_err(|_| format!("`{last}` is not an index"))?;
            match place {
                PatchMode::Overwrite if index < items.len() => items[index] = value,
                PatchMode::Insert if index <= items.len() => items.insert(index, value),
                _ => return Err(format!("{path} is out of range")),
            }
        }
        _ => return Err(format!("{parent} is missing")),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<(), String> {
    let (parent, last) = split(path)?;
    let missing = || format!("remove operation does not apply: {path} is missing");
    match target.pointer_mut(parent) {
        Some(Value::Object(object)) => object.remove(&last).map(drop).ok_or_else(missing),
        Some(Value::Array(items)) => {
            let index = last.parse().ok().filter(|i: &usize| *i < items.len()).ok_or_else(missing)?;
            items.remove(index);
            Ok(())
        }
        _ => Err(missing()),
    }
}

/// The merge patch that leads from one object to the other; `None` if they are the same.
pub(super) fn difference(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut changes = Map::new();
    for (name, value) in new {
        match old.get(name) {
            Some(was) => {
                if let Some(change) = difference(was, value) {
                    changes.insert(name.clone(), change);
                }
            }
            None => {
                changes.insert(name.clone(), value.clone());
            }
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changes.insert(name.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_removes_by_null_and_replaces_lists() {
        let mut node = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"taints": [{"key": "x"}]}});
        let before = node.clone();
        merge(
            &mut node,
            &json!({"metadata": {"labels": {"a": null}}, "spec": {"unschedulable": true, "taints": [{"key": "y"}]}}),
        );
        let after =
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {"unschedulable": true, "taints": [{"key": "y"}]}});
        assert_eq!(node, after);
        let mut again = before.clone();
        merge(&mut again, &difference(&before, &after).unwrap());
        assert_eq!(again, after);
        assert_eq!(difference(&after, &after), None);
    }

    #[test]
    fn a_strategic_merge_keeps_the_containers_that_the_patch_does_not_name() {
        let mut pod = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "taints": [{"key": "x"}]});
        strategic(&mut pod, &json!({"containers": [{"name": "a", "image": "2"}], "taints": []}));
        assert_eq!(pod, json!({"containers": [{"name": "a", "image": "2"}, {"name": "b"}], "taints": []}));
    }

    #[test]
    fn a_json_patch_tests_before_it_writes() {
        let mut node = json!({"spec": {"taints": [{"key": "x"}]}});
        let good = json!([
            {"op": "test", "path": "/spec/taints/0/key", "value": "x"},
            {"op": "add", "path": "/spec/taints/-", "value": {"key": "y"}},
            {"op": "remove", "path": "/spec/taints/0"},
        ]);
        json_patch(&mut node, &good).unwrap();
        assert_eq!(node, json!({"spec": {"taints": [{"key": "y"}]}}));
        assert!(json_patch(&mut node, &good).unwrap_err().contains("testing value"));
    }
}
