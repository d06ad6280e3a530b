//! HTTP: routes, a file per resource.
