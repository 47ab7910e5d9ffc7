//! The OpenAPI document of `/api/v1`, made from the table of routes and the signatures of the handlers.
//!
//! Invariant: nothing is declared twice: a parameter, a body or an answer that a handler does not have cannot be in it.

use super::{Allowed, App, Asked, Body, Created, Problem};
use crate::api::ProblemDetails;
use crate::model::{Right, Role};
use axum::Json;
use axum::extract::{Path, State};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Two views of the types: what is sent, and what is taken.
pub(super) struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

impl Schemas {
    fn new() -> Schemas {
        let answers = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        // A type may be sent with more members than it is taken with, so a request refers to none of the answers' types.
        let requests = SchemaSettings::draft2020_12().for_deserialize().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        Schemas { answers: answers.into_generator(), requests: requests.into_generator() }
    }
}

/// What a handler takes and answers.
#[derive(Default)]
pub(super) struct Shape {
    query: Option<Schema>,
    body: Option<Schema>,
    answer: Schema,
    status: u16,
}

/// An argument of a handler.
pub(super) trait Part {
    fn describe(_: &mut Shape, _: &mut Schemas) {}
}

impl Part for Allowed {}
impl Part for State<App> {}
impl<T> Part for Path<T> {}

impl<T: JsonSchema> Part for Body<T> {
    fn describe(shape: &mut Shape, schemas: &mut Schemas) {
        shape.body = Some(schemas.requests.subschema_for::<T>());
    }
}

impl<T: JsonSchema> Part for Asked<T> {
    fn describe(shape: &mut Shape, schemas: &mut Schemas) {
        shape.query = Some(schemas.requests.subschema_for::<T>());
    }
}

/// What a handler returns.
pub(super) trait Answers {
    fn answer(shape: &mut Shape, schemas: &mut Schemas);
}

impl<T: JsonSchema> Answers for Json<T> {
    fn answer(shape: &mut Shape, schemas: &mut Schemas) {
        (shape.status, shape.answer) = (200, schemas.answers.subschema_for::<T>());
    }
}

impl<T: JsonSchema> Answers for Created<T> {
    fn answer(shape: &mut Shape, schemas: &mut Schemas) {
        (shape.status, shape.answer) = (201, schemas.answers.subschema_for::<T>());
    }
}

impl<T: Answers> Answers for Result<T, Problem> {
    fn answer(shape: &mut Shape, schemas: &mut Schemas) {
        T::answer(shape, schemas);
    }
}

/// A handler whose signature says it all; `Args` keeps the implementations apart.
pub(super) trait Described<Args> {
    fn shape(&self, schemas: &mut Schemas) -> Shape;
}

macro_rules! described {
    ($($part:ident)*) => {
        impl<F, Out, R, $($part),*> Described<($($part,)*)> for F
        where
            F: Fn($($part),*) -> Out,
            Out: Future<Output = R>,
            R: Answers,
            $($part: Part,)*
        {
            fn shape(&self, schemas: &mut Schemas) -> Shape {
                let mut shape = Shape::default();
                $($part::describe(&mut shape, schemas);)*
                R::answer(&mut shape, schemas);
                shape
            }
        }
    };
}

described!(A);
described!(A B);
described!(A B C);
described!(A B C D);

/// One route of the table; `right` is none for the one that only this machine's own token opens.
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub right: Option<Right>,
    pub summary: &'static str,
    pub shape: Shape,
}

/// The document itself, as the route answers it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Document(&'static Value);

impl JsonSchema for Document {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "description": "An OpenAPI 3.1 document.", "required": ["openapi", "paths"] })
    }
}

pub(super) async fn show(_: Allowed) -> Json<Document> {
    Json(Document(document()))
}

/// Made once; it depends on the program alone.
pub(super) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut schemas = Schemas::new();
        let routes = super::described(&mut schemas);
        build(routes, schemas)
    })
}

fn build(routes: Vec<Route>, mut schemas: Schemas) -> Value {
    let problem = schemas.answers.subschema_for::<ProblemDetails>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let at = paths.entry(route.path).or_insert_with(|| json!({}));
        at[route.method] = operation(&route);
    }
    let problem = json!({ "application/problem+json": { "schema": problem } });
    let failures: Map<String, Value> = FAILURES
        .iter()
        .map(|(status, name, text)| {
            let mut failure = json!({ "description": text, "content": problem });
            if *status == 503 {
                failure["headers"] = json!({ "Retry-After": { "schema": { "type": "integer" } } });
            }
            ((*name).to_owned(), failure)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Nightshift",
            "version": "1",
            "description": "The API of the Nightshift engine. An error is a problem as RFC 9457 has it; its `hint` says what to do.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.answers.take_definitions(true),
            "responses": failures,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of `server.tokens` or of `nightshift tokens make`." },
            },
        },
    })
}

/// Status, name and meaning of each error.
const FAILURES: [(u16, &str, &str); 9] = [
    (400, "BadRequest", "The query or the body cannot be read, or a value is not allowed."),
    (401, "Unauthorized", "The token is missing or not valid."),
    (403, "Forbidden", "The role, the cluster or the person does not allow it."),
    (404, "NotFound", "It does not exist, or not any more."),
    (408, "RequestTimeout", "The body did not arrive in time."),
    (409, "Conflict", "The present state does not allow it."),
    (413, "ContentTooLarge", "The body is larger than its bound."),
    (500, "InternalError", "The engine failed."),
    (503, "ServiceUnavailable", "The engine is busy; try again after `Retry-After` seconds."),
];

fn operation(route: &Route) -> Value {
    let shape = &route.shape;
    let roles: Vec<&str> = match route.right {
        Some(right) => Role::ALL.iter().filter(|role| role.may(right)).map(|role| role.name()).collect(),
        None => vec!["local"],
    };
    let who = match route.right {
        Some(_) => format!("Roles: {}.", roles.join(", ")),
        None => "Only this machine's own token.".to_owned(),
    };
    let named: Vec<Value> = path_names(route.path).map(|name| path_parameter(route.path, name)).collect();
    let asked = shape.query.as_ref().map(query_parameters).unwrap_or_default();
    let acts = route.method != "get";
    let missing = !named.is_empty() || acts || route.path.ends_with("/why");
    let mut answers = json!({
        shape.status.to_string(): { "description": "Done.", "content": { "application/json": { "schema": shape.answer } } },
    });
    for (status, name, _) in FAILURES {
        let possible = match status {
            400 => acts || shape.query.is_some(),
            404 => missing,
            408 | 413 => shape.body.is_some(),
            409 => acts || !named.is_empty(),
            _ => true,
        };
        if possible {
            answers[status.to_string()] = json!({ "$ref": format!("#/components/responses/{name}") });
        }
    }
    let mut operation = json!({
        "operationId": operation_id(route.method, route.path),
        "summary": route.summary,
        "description": who,
        "x-roles": roles,
        "responses": answers,
    });
    let parameters: Vec<Value> = named.into_iter().chain(asked).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(body) = &shape.body {
        // No body at all is an empty object.
        let required = body.get("required").is_some();
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": body } } });
    }
    operation
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(path: &str, name: &str) -> Value {
    let kind = path.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default();
    let text = match (kind, name) {
        ("incidents", _) => "An incident: `i3`.",
        ("runs", _) => "A run: `r17`.",
        ("approvals", _) => "An approval: `a5`.",
        ("tokens", _) => "A token: `t3`.",
        ("rules", _) => "The rule's name.",
        ("agents", _) => "The node's name.",
        ("channels", _) => "The channel's name.",
        _ => "The entry's number.",
    };
    json!({
        "name": name, "in": "path", "required": true, "description": text, "schema": { "type": "string", "minLength": 1 },
    })
}

/// The members of a query, each as a parameter.
fn query_parameters(query: &Schema) -> Vec<Value> {
    let needed = query.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let members = query.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let text = schema.as_object_mut().and_then(|schema| schema.remove("description")).unwrap_or_default();
        let required = needed.iter().any(|needed| *needed == json!(name));
        json!({ "name": name, "in": "query", "required": required, "description": text, "schema": present(schema) })
    };
    members.into_iter().map(parameter).collect()
}

/// The schema without null: a query has no null, a member is there or is not.
fn present(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return schema };
    members.remove("default");
    if let Some(Value::Array(kinds)) = members.get_mut("type") {
        kinds.retain(|kind| *kind != json!("null"));
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(options)) = members.get_mut("anyOf") {
        options.retain(|option| *option != json!({ "type": "null" }));
        if let [only] = options.as_slice() {
            return only.clone();
        }
    }
    schema
}

/// `getIncidentsId`, unique since method and path are.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1/").split(|c: char| !c.is_ascii_alphanumeric());
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    method.to_owned() + &words.map(capital).collect::<String>()
}
