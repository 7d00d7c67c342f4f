//! What requests say, with errors in our own words: what is missing or wrong, and what there is.

use std::collections::BTreeSet;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{Failure, Json};

/// A field, and what it takes.
pub(crate) type Field = (&'static str, &'static str);

/// What a request may say.
pub(crate) trait Fields: DeserializeOwned {
    /// All fields.
    const FIELDS: &'static [Field];
    /// Those without which there is no answer.
    const REQUIRED: &'static [&'static str];
}

/// The query of a request.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: Fields, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Response> {
        query(parts).map_err(|error| failure(StatusCode::BAD_REQUEST, error))
    }
}

fn query<T: Fields>(parts: &Parts) -> Result<Query<T>, String> {
    type Pairs = Vec<(String, String)>;
    let strange = || format!("the query cannot be read; {}", takes("it", T::FIELDS));
    let axum::extract::Query(pairs): axum::extract::Query<Pairs> =
        axum::extract::Query::try_from_uri(&parts.uri).map_err(|_| strange())?;
    let mut given = BTreeSet::new();
    for (name, _) in &pairs {
        if !T::FIELDS.iter().any(|(field, _)| field == name) {
            let name = name.escape_default();
            return Err(format!("there is no field {name}; {}", takes("the query", T::FIELDS)));
        }
        if !given.insert(name.as_str()) {
            return Err(format!("{name} is given twice"));
        }
    }
    if let Some(missing) = T::REQUIRED.iter().find(|field| !given.contains(*field)) {
        return Err(format!("{missing} is missing; {}", takes("the query", T::FIELDS)));
    }
    axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(query)| Query(query)).map_err(
        |error| {
            // It begins with the field.
            let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let wrong =
                said.split_once(':').and_then(|(name, _)| pairs.iter().find(|(field, _)| field == name));
            let Some((name, value)) = wrong else { return strange() };
            let what = T::FIELDS.iter().find(|(field, _)| field == name).map_or("", |(_, what)| what);
            format!("{name} cannot be {}: it takes {what}", value.escape_default())
        },
    )
}

/// The JSON that a request brings.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: Fields, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Response> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let error = "the body must be JSON, and say so: Content-Type: application/json";
            return Err(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_owned()));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| unread(&error))?;
        body(&bytes).map_err(|(code, error)| failure(code, error))
    }
}

fn unread(error: &BytesRejection) -> Response {
    let why = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than 2 MiB",
        _ => "the body did not come whole",
    };
    failure(error.status(), why.to_owned())
}

fn body<T: Fields>(bytes: &[u8]) -> Result<Body<T>, (StatusCode, String)> {
    serde_json::from_slice(bytes).map(Body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.classify() != Category::Data {
            return (StatusCode::BAD_REQUEST, format!("the body is no JSON ({place})"));
        }
        let said = error.to_string();
        let field = said.split('`').nth(1).unwrap_or_default().escape_default();
        let why = if said.starts_with("missing field") {
            format!("{field} is missing")
        } else if said.starts_with("unknown field") {
            format!("there is no field {field}")
        } else if said.starts_with("duplicate field") {
            format!("{field} is given twice")
        } else {
            "a value is not what its field takes".to_owned()
        };
        (StatusCode::UNPROCESSABLE_ENTITY, format!("{why} ({place}); {}", takes("the body", T::FIELDS)))
    })
}

/// All that may be said.
fn takes(what: &str, fields: &[Field]) -> String {
    let fields: Vec<String> = fields.iter().map(|(field, takes)| format!("{field} ({takes})")).collect();
    format!("{what} takes {}", fields.join(", "))
}

fn failure(code: StatusCode, error: String) -> Response {
    (code, Json(Failure { error })).into_response()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        id: u64,
        name: Option<String>,
    }

    impl Fields for Asked {
        const FIELDS: &'static [Field] = &[("id", "a number"), ("name", "a text")];
        const REQUIRED: &'static [&'static str] = &["id"];
    }

    #[test]
    fn queries_that_are_wrong_say_what_and_what_there_is() {
        let ask = |text: &str| {
            let uri = format!("/x{text}");
            let (parts, ()) = axum::http::Request::builder().uri(uri).body(()).unwrap().into_parts();
            query::<Asked>(&parts).map(|Query(asked)| (asked.id, asked.name))
        };
        assert_eq!(ask("?id=7&name=a%20b"), Ok((7, Some("a b".to_owned()))));
        let all = "the query takes id (a number), name (a text)";
        assert_eq!(ask(""), Err(format!("id is missing; {all}")));
        assert_eq!(ask("?name=a"), Err(format!("id is missing; {all}")));
        assert_eq!(ask("?id=7&nmae=a"), Err(format!("there is no field nmae; {all}")));
        assert_eq!(ask("?id=7&id=8"), Err("id is given twice".to_owned()));
        assert_eq!(ask("?id=x"), Err("id cannot be x: it takes a number".to_owned()));
        assert_eq!(ask("?id="), Err("id cannot be : it takes a number".to_owned()));
    }

    #[test]
    fn bodies_that_are_wrong_say_what_and_what_there_is() {
        let ask = |text: &str| {
            let read = body::<Asked>(text.as_bytes());
            read.map(|Body(asked)| asked.id).map_err(|(code, error)| (code.as_u16(), error))
        };
        let all = "the body takes id (a number), name (a text)";
        assert_eq!(ask("{\"id\": 7}"), Ok(7));
        assert_eq!(ask("{"), Err((400, "the body is no JSON (line 1, column 1)".to_owned())));
        assert_eq!(ask("{}"), Err((422, format!("id is missing (line 1, column 2); {all}"))));
        assert_eq!(
            ask("{\"id\": 7, \"x\": 1}"),
            Err((422, format!("there is no field x (line 1, column 13); {all}")))
        );
        let twice = format!("id is given twice (line 1, column 13); {all}");
        assert_eq!(ask("{\"id\": 7, \"id\": 1}").unwrap_err().1, twice.replace("13", "14"));
        let wrong = ask("{\"id\": \"x\"}").unwrap_err();
        assert!(wrong.0 == 422 && wrong.1.starts_with("a value is not what its field takes"), "{wrong:?}");
    }

    #[tokio::test]
    async fn a_body_without_end_is_refused() {
        let request = Request::builder().header("content-type", "application/json; charset=utf-8");
        let long = request.body(axum::body::Body::from(vec![b' '; 3 << 20])).unwrap();
        let response = Body::<Asked>::from_request(long, &()).await.map(|_| ()).unwrap_err();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let said = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(&said[..], b"{\"error\":\"the body is longer than 2 MiB\"}\n");
    }
}
