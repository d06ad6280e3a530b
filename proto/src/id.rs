//! Names that cannot be wrong once parsed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Names one container for its whole life: 64 lowercase hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Names one exec of a container: 64 lowercase hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecId(String);

/// A text that is not 64 lowercase hex digits.
#[derive(Debug, thiserror::Error)]
#[error("invalid id {0:?}: 64 lowercase hex digits are wanted")]
pub struct InvalidId(String);

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// Makes the id whose digits spell `bytes`, which the caller took from a random source.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
            }

            /// Returns all 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the first twelve digits, as clients print them.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                if is_id(&text) { Ok(Self(text)) } else { Err(InvalidId(text)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(ContainerId);
id!(ExecId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lowercase_hex_digits_are_an_id() {
        assert!("a".repeat(64).parse::<ContainerId>().is_ok());
        for wrong in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert!(wrong.parse::<ContainerId>().is_err(), "{wrong}");
        }
    }
}
