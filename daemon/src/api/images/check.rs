//! `/cleat/images/check`: our own, which no Docker client asks for. `GET` verifies every image, `POST` repairs as well.
//!
//! The answer is one JSON object a line, for each image when it is done:
//! `{"Id", "References": […], "Problems": […], "Outcome": "whole|damaged|repaired|dropped|kept", "Message"}`.
//! `X-Registry-Config` may have credentials by registry, as for a build.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::pull::{AuthConfig, configs};
use crate::{
    api::{
        body::{self, ProgressError},
        error::Result,
    },
    engine::{
        Engine,
        check::{Logins, Outcome, Report},
    },
    registry::Credentials,
};

/// Lines that wait for a client.
const QUEUE: usize = 64;
/// Docker Hub's name among credentials.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    id: String,
    references: Vec<String>,
    problems: Vec<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

impl From<Report> for Line {
    fn from(report: Report) -> Self {
        let outcome = match report.outcome {
            Outcome::Whole => "whole",
            Outcome::Damaged => "damaged",
            Outcome::Repaired => "repaired",
            Outcome::Dropped => "dropped",
            Outcome::Kept => "kept",
        };
        Self {
            id: report.checked.id,
            references: report.checked.references,
            problems: report.checked.problems.iter().map(ToString::to_string).collect(),
            outcome,
            message: report.message,
        }
    }
}

pub(super) async fn check(State(engine): State<Engine>) -> Result {
    Ok(stream(engine, None))
}

pub(super) async fn repair(State(engine): State<Engine>, headers: HeaderMap) -> Result {
    let known: BTreeMap<String, AuthConfig> = configs(&headers);
    let known: BTreeMap<String, Credentials> =
        known.into_iter().map(|(host, auth)| (host, auth.into())).collect();
    let logins: Logins = Arc::new(move |domain| {
        let key = if domain == "docker.io" { HUB } else { domain };
        known.get(key).cloned().unwrap_or_default()
    });
    Ok(stream(engine, Some(logins)))
}

/// Goes on to its end even if the client goes away.
fn stream(engine: Engine, logins: Option<Logins>) -> axum::response::Response {
    let (sender, answer) = body::channel(QUEUE);
    let (lines, mut queue) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let checking = tokio::spawn(async move {
            engine.check_images(logins, move |report| drop(lines.send(report))).await
        });
        while let Some(report) = queue.recv().await {
            let _ = sender.line(&Line::from(report)).await;
        }
        if let Ok(Err(error)) = checking.await {
            let _ = sender.progress(&ProgressError::new(error.whole())).await;
        }
    });
    body::stream("application/json", answer)
}
