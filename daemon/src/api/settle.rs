//! What is done with a request's body before a handler sees it.
//!
//! A body that fits is read whole first. So a client that is still sending never finds its connection closed by an answer that
//! came early: Go's server too reads up to [`SMALL_BYTES`] on before it gives up on a connection. And a body that is a form
//! adds its pairs to the query's, where they come first. Source: Go's `net/http`, `Request.ParseForm`.

use axum::body::Body;
use http::{Method, Request, header};
use http_body::Body as _;

use super::{
    body::{media_type, read},
    error::Error,
};

/// Bodies up to this size are read before anything else happens.
const SMALL_BYTES: u64 = 256 << 10;
/// The longest form. Source: Go's `maxFormSize`.
const MAX_FORM_BYTES: usize = 10 << 20;

/// The text of a form that came as the body.
#[derive(Clone)]
pub struct Form(pub String);

/// Reads the body where it is small or a form.
///
/// # Errors
/// 400 if the client goes away in the middle, or a form is too large.
pub async fn settle(request: Request<Body>) -> Result<Request<Body>, Error> {
    let is_form = is_form(&request);
    let size = request.body().size_hint();
    let is_small = size.exact().is_some_and(|size| (1..=SMALL_BYTES).contains(&size));
    if size.exact() == Some(0) || !(is_form || is_small) {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let bytes = read(body, MAX_FORM_BYTES).await?;
    if is_form {
        parts.extensions.insert(Form(String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn is_form(request: &Request<Body>) -> bool {
    let has_form = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|text| text.to_str().ok());
    has_form
        && given
            .is_some_and(|text| media_type(text) == Ok("application/x-www-form-urlencoded".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::query::Query;
    use axum::extract::FromRequestParts;

    async fn query(method: Method, content_type: &str, body: &str) -> Result<Query, Error> {
        let request = Request::builder()
            .method(method)
            .uri("/x?a=2&b=3")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (mut parts, body) = settle(request).await?.into_parts();
        assert!(body.size_hint().exact().is_some());
        Query::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_form_adds_to_the_query_and_comes_first() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let both = query(Method::POST, form, "a=1&c=x%20y").await.unwrap();
        assert_eq!((both.get("a"), both.get("b"), both.get("c")), ("1", "3", "x y"));
        assert_eq!(both.all("a").collect::<Vec<_>>(), ["1", "2"]);
        let wrong = query(Method::POST, form, "n=%zz").await;
        assert_eq!(wrong.unwrap_err().message(), "invalid URL escape \"%zz\"");
    }

    #[tokio::test]
    async fn no_other_body_is_a_form() {
        for (method, kind) in [
            (Method::POST, "text/plain"),
            (Method::POST, "application/x-www-form-urlencoded;;x"),
            (Method::GET, "application/x-www-form-urlencoded"),
        ] {
            assert_eq!(query(method, kind, "a=1").await.unwrap().get("a"), "2", "{kind}");
        }
    }
}
