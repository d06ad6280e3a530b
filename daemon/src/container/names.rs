//! Names to ids. What the user typed is a [`ContainerRef`]; this module alone turns it into an id.

/// A name, an id, or an id's prefix, as the user typed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef(pub String);
