//! Logging drivers: where a container's output goes besides the attached clients.

pub mod clock;
pub mod json_file;
pub mod rotation;

/// One of the two output streams. What comes from a terminal counts as stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

impl Source {
    /// Returns the name in a log record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Returns the stream type in the header of Docker's attach framing (Engine API, ContainerAttach, "Stream format").
    pub fn frame_type(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}
