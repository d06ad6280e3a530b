//! `POST /images/{name}/push`.

use http::HeaderMap;
use serde::Serialize;

use super::{
    image_error,
    pull::{Lines, credentials, stream},
};
use crate::{
    api::{
        error::{Error, Result},
        hijack::Socket,
        query::Query,
        version::ApiVersion,
    },
    engine::Engine,
    image::{LayerPush, PushStep, Reference},
};

/// What `push` tells programs. Engine API, `PushResult`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pushed {
    tag: String,
    digest: String,
    size: u64,
}

pub(super) async fn push(
    engine: Engine,
    client: Socket,
    name: &str,
    version: ApiVersion,
    query: &Query,
    headers: &HeaderMap,
) -> Result {
    let mut reference = Reference::parse(name).map_err(image_error)?;
    if reference.digest.is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    let tag = query.get("tag");
    if !tag.is_empty() {
        if !crate::image::reference::is_tag(tag) {
            return Err(image_error(crate::image::reference::Error::Format));
        }
        reference.tag = Some(tag.to_owned());
    }
    // Clients before 1.46 did not have it.
    let platform = if version.since(1, 46) { super::show::platform(query)? } else { None };
    if let Some(platform) = &platform {
        engine.check_push_platform(&reference, platform)?;
    }
    let credentials = credentials(headers);
    stream(Some(client), move |lines| async move {
        lines.status(&format!("The push refers to repository [{}]", reference.name));
        let told = lines.clone();
        engine.push_image(reference, platform, credentials, move |step| tell(&told, step)).await?;
        Ok(lines)
    })
    .await
}

fn tell(lines: &Lines, step: PushStep) {
    match step {
        PushStep::Layer(diff_id, step) => {
            let id = diff_id.short();
            match step {
                LayerPush::Preparing => lines.layer(id, "Preparing"),
                LayerPush::Exists => lines.layer(id, "Layer already exists"),
                LayerPush::Mounted(from) => lines.layer(id, &format!("Mounted from {from}")),
                LayerPush::Pushing { current, total } => {
                    lines.progress(id, "Pushing", current, total);
                }
                LayerPush::Pushed => lines.layer(id, "Pushed"),
            }
        }
        PushStep::Done { tag, digest, size } => {
            lines.status(&format!("{tag}: digest: {digest} size: {size}"));
            lines.aux(&Pushed { tag, digest: digest.to_string(), size });
        }
    }
}
