//! sha256 digests, as text: of a blob, of an unpacked layer, of a stack of layers, of an image's configuration. Four types,
//! since mixing them up is the classic mistake of image stores.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const PREFIX: &str = "sha256:";

/// A text that is not `sha256:` and 64 lowercase hex digits.
#[derive(Debug, thiserror::Error)]
#[error("invalid digest {0:?}: sha256: and 64 lowercase hex digits are wanted")]
pub struct InvalidDigest(String);

fn is_digest(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Spells the 32 bytes of a sha256 sum.
            pub fn from_sum(sum: impl AsRef<[u8]>) -> Self {
                use fmt::Write;
                let mut text = String::with_capacity(PREFIX.len() + 64);
                text.push_str(PREFIX);
                for byte in sum.as_ref() {
                    let _ = write!(text, "{byte:02x}");
                }
                Self(text)
            }

            /// Returns all of it, `sha256:` included.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the 64 digits.
            pub fn hex(&self) -> &str {
                &self.0[PREFIX.len()..]
            }

            /// Returns the first twelve digits, as clients print them.
            pub fn short(&self) -> &str {
                &self.hex()[..12]
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigest;
            fn try_from(text: String) -> Result<Self, InvalidDigest> {
                if is_digest(&text) { Ok(Self(text)) } else { Err(InvalidDigest(text)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;
            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

digest! {
    /// Names a blob by its bytes. OCI image-spec, descriptor.md, Digests.
    Digest
}
digest! {
    /// Names a layer by its uncompressed tar. OCI image-spec, config.md, Layer DiffID.
    DiffId
}
digest! {
    /// Names a layer together with all below it. OCI image-spec, config.md, Layer ChainID.
    ChainId
}
digest! {
    /// Names an image: the digest of its configuration. OCI image-spec, config.md, ImageID.
    ImageId
}

impl From<Digest> for ImageId {
    fn from(digest: Digest) -> Self {
        Self(digest.0)
    }
}

impl From<Digest> for DiffId {
    fn from(digest: Digest) -> Self {
        Self(digest.0)
    }
}

impl From<&ImageId> for Digest {
    fn from(id: &ImageId) -> Self {
        Self(id.0.clone())
    }
}

impl From<&DiffId> for Digest {
    fn from(id: &DiffId) -> Self {
        Self(id.0.clone())
    }
}

impl From<&DiffId> for ChainId {
    /// A lone layer's chain id is its diff id.
    fn from(id: &DiffId) -> Self {
        Self(id.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_and_64_lowercase_hex_digits_are_a_digest() {
        assert!(format!("sha256:{}", "a".repeat(64)).parse::<Digest>().is_ok());
        for wrong in ["", "sha256:", &"a".repeat(64), &format!("sha256:{}", "A".repeat(64))] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        let long = format!("sha512:{}", "a".repeat(64));
        assert!(long.parse::<Digest>().is_err());
    }
}
