//! What can go wrong, worded as `runc` words it where engines match on the text.

use cleat_sys::Errno;
use std::io;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no such verb.
    #[error("No help topic for '{0}'")]
    NoTopic(String),
    /// There is no such container.
    #[error("container does not exist")]
    NotFound,
    /// There is one of that name already.
    #[error("container with given ID already exists")]
    Exists,
    /// The container is not in a state for that.
    #[error("{0}")]
    State(String),
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The kernel said no.
    #[error("{what}: {}", reason(*errno))]
    Kernel {
        /// What was tried.
        what: String,
        /// Its answer.
        errno: Errno,
    },
    /// The container's first process could not be set up; the text is its own.
    #[error("{0}")]
    Init(String),
}

/// What a verb answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Returns the error's text as Go prints it: in lower case.
pub fn reason(errno: Errno) -> String {
    if errno == Errno::UnknownErrno {
        "unknown error".to_owned()
    } else {
        errno.desc().to_lowercase()
    }
}

/// Returns the error number in an [`io::Error`].
pub fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Says what was tried when the kernel said no.
pub trait Context<T> {
    /// Wraps the error with `what`, which is only built if there is one.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Kernel { what: what(), errno })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(raw) => Error::Kernel { what: what(), errno: Errno::from_raw(raw) },
            None => Error::Invalid(format!("{}: {error}", what())),
        })
    }
}

impl From<crate::cgroup::Error> for Error {
    fn from(error: crate::cgroup::Error) -> Self {
        use std::error::Error as _;
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // The kernel's answers read as everywhere here.
            let errno = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            let cause_text = errno.map_or(cause.to_string(), |raw| reason(Errno::from_raw(raw)));
            text = format!("{text}: {cause_text}");
            source = cause.source();
        }
        Self::Invalid(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_runc_prints_them() {
        assert_eq!(reason(Errno::EACCES), "permission denied");
        assert_eq!(reason(Errno::ENOENT), "no such file or directory");
        assert_eq!(reason(Errno::EISDIR), "is a directory");
        assert_eq!(reason(Errno::ENOEXEC), "exec format error");
    }
}
