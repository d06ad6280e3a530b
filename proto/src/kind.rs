//! What went wrong, in the vocabulary of containerd's `errdefs`, and the one table that leads from it to HTTP and gRPC.

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing named does not exist.
    NotFound,
    /// The request makes no sense as it stands.
    InvalidArgument,
    /// The request is fine, the state of the thing is not: a name in use, a container that runs.
    Conflict,
    /// What was asked for is already so (304).
    AlreadySo,
    /// Not allowed, whoever asks.
    Forbidden,
    /// Who asks is not known.
    Unauthorized,
    /// The same request may succeed later.
    Unavailable,
    /// We do not have that yet.
    NotImplemented,
    /// Something of ours or of the kernel's failed.
    Internal,
}

impl Kind {
    /// Returns the HTTP status of the Engine API.
    pub fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::InvalidArgument => 400,
            Self::Conflict => 409,
            Self::AlreadySo => 304,
            Self::Forbidden => 403,
            Self::Unauthorized => 401,
            Self::Unavailable => 503,
            Self::NotImplemented => 501,
            Self::Internal => 500,
        }
    }

    /// Returns the gRPC code.
    pub fn grpc_code(self) -> tonic::Code {
        match self {
            Self::NotFound => tonic::Code::NotFound,
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::Conflict => tonic::Code::FailedPrecondition,
            Self::AlreadySo => tonic::Code::AlreadyExists,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::Unauthorized => tonic::Code::Unauthenticated,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::NotImplemented => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// Reads a gRPC code back; what a shim says survives to the client.
    pub fn from_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::InvalidArgument,
            tonic::Code::FailedPrecondition => Self::Conflict,
            tonic::Code::AlreadyExists => Self::AlreadySo,
            tonic::Code::PermissionDenied => Self::Forbidden,
            tonic::Code::Unauthenticated => Self::Unauthorized,
            tonic::Code::Unavailable => Self::Unavailable,
            tonic::Code::Unimplemented => Self::NotImplemented,
            _ => Self::Internal,
        }
    }
}

/// Returns an error's text and its causes', joined by `": "`, as a body of the Engine API has them.
pub fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts = causes.map(ToString::to_string).filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::Kind::{self, *};

    #[test]
    fn a_kind_survives_grpc() {
        for kind in [
            NotFound,
            InvalidArgument,
            Conflict,
            AlreadySo,
            Forbidden,
            Unauthorized,
            Unavailable,
            NotImplemented,
            Internal,
        ] {
            assert_eq!(Kind::from_grpc(kind.grpc_code()), kind);
        }
    }
}
