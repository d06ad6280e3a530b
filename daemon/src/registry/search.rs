//! `docker search`: the index of old, which Docker Hub alone has kept.

use http::Method;
use serde::Deserialize;

use super::{
    ANSWER_MAX, Error, Registries,
    auth::form,
    endpoint::{DEFAULT_DOMAIN, Purpose},
    transport::{Request, read},
};

/// Where the Hub's index is.
const HUB: &str = "index.docker.io";

/// One repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// How many like it.
    pub star_count: i64,
    /// One of Docker's own.
    pub is_official: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    results: Vec<SearchResult>,
}

impl Registries {
    /// Asks an index for repositories.
    ///
    /// # Errors
    /// If there is no such index: most registries have none.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
    ) -> Result<Vec<SearchResult>, Error> {
        let authority = if domain == DEFAULT_DOMAIN { HUB } else { domain };
        let query = form(&[("q", term), ("n", &limit.to_string())]);
        let mut last = None;
        for mut endpoint in self.0.config.endpoints(domain, Purpose::Own)? {
            authority.clone_into(&mut endpoint.authority);
            let url = format!("{}://{authority}/v1/search?{query}", endpoint.scheme);
            let request = Request::new(Method::GET, url);
            match self.0.transport.send(&self.0.config, &request).await {
                Err(error) => last = Some(error),
                Ok(answer) if !answer.status().is_success() => {
                    let status = answer.status().as_u16();
                    return Err(Error::Protocol(format!("Unexpected status code {status}")));
                }
                Ok(answer) => {
                    let bytes = read(answer.into_body(), ANSWER_MAX, "the search's answer").await?;
                    let answer: Answer = serde_json::from_slice(&bytes)
                        .map_err(|error| Error::Protocol(format!("invalid answer: {error}")))?;
                    return Ok(answer.results);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Config(format!("{domain} is no registry"))))
    }
}
