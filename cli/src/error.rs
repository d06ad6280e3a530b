//! How a command fails: what is printed, and the exit code.

use crate::client;

/// The failure of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A message, exit code 1.
    #[error("{0}")]
    Message(String),
    /// A message (nothing is printed if it is empty) and an exit code.
    #[error("{message}")]
    Status {
        /// What is printed.
        message: String,
        /// The exit code.
        code: i32,
    },
    /// The daemon, or the way to it.
    #[error(transparent)]
    Client(#[from] client::Error),
}

/// What commands answer.
pub type Outcome<T = ()> = Result<T, Error>;

impl Error {
    /// A failure that prints nothing: the exit code says it all.
    pub fn exit(code: i32) -> Self {
        Self::Status { message: String::new(), code }
    }

    /// The exit code of the process.
    pub fn code(&self) -> i32 {
        match self {
            Self::Status { code, .. } => *code,
            Self::Message(_) | Self::Client(_) => 1,
        }
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Message(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Message(message.to_owned())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Message(crate::go::os_error(&error))
    }
}
