//! What an index lists, as clients see it. Source: Engine API v1.48, `ImageManifestSummary`.

use cleat_proto::docker::image::{
    AttestationProperties, ImageProperties, ManifestSize, ManifestSummary, UnpackedSize,
};

use crate::{
    engine::Engine,
    image::{Index, Member, index},
};

/// Returns what an index lists, in its order.
pub(super) fn summaries(engine: &Engine, index: &Index) -> Vec<ManifestSummary> {
    let members = engine.images().members(index);
    members.into_iter().map(|member| summary(engine, member)).collect()
}

fn summary(engine: &Engine, member: Member) -> ManifestSummary {
    let mut size = ManifestSize { content: member.content_bytes, total: member.content_bytes };
    let attested = index::attests(&member.entry).map(str::to_owned);
    let is_image = index::is_image(&member.entry);
    let image_data = is_image.then(|| {
        let unpacked = member.image.as_ref().map_or(0, |image| image.size);
        size.total += unpacked;
        ImageProperties {
            platform: member.platform(),
            size: UnpackedSize { unpacked },
            containers: member.image.as_ref().and_then(|image| users(engine, image.id.as_str())),
        }
    });
    ManifestSummary {
        id: member.entry.digest.to_string(),
        available: member.available,
        kind: match (is_image, &attested) {
            (true, _) => "image",
            (false, Some(_)) => "attestation",
            (false, None) => "unknown",
        },
        image_data,
        attestation_data: attested.map(|of| AttestationProperties { of }),
        descriptor: member.entry,
        size,
    }
}

fn users(engine: &Engine, id: &str) -> Option<Vec<String>> {
    let all = engine.containers();
    let mine = all.iter().filter(|container| container.record.image_id == id);
    let ids: Vec<String> = mine.map(|container| container.record.id.to_string()).collect();
    (!ids.is_empty()).then_some(ids)
}
