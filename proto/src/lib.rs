//! Every contract between cleat's processes: data only, no behaviour beyond parsing and rendering.

pub mod digest;
pub mod docker;
pub mod exit;
pub mod id;
pub mod journal;
pub mod kind;
pub mod log;
pub mod platform;
pub mod shim;

/// containerd's wire types, generated from `protos/containerd`. The modules follow the packages.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod containerd {
    pub mod task {
        pub mod v3 {
            tonic::include_proto!("containerd.task.v3");
        }
    }
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod v1 {
        pub mod types {
            tonic::include_proto!("containerd.v1.types");
        }
    }
    pub mod events {
        tonic::include_proto!("containerd.events");
    }
    pub mod runc {
        pub mod v1 {
            tonic::include_proto!("containerd.runc.v1");
        }
    }
    pub mod cgroups {
        pub mod v1 {
            tonic::include_proto!("io.containerd.cgroups.v1");
        }
        pub mod v2 {
            tonic::include_proto!("io.containerd.cgroups.v2");
        }
    }
    pub mod services {
        pub mod events {
            pub mod ttrpc {
                pub mod v1 {
                    tonic::include_proto!("containerd.services.events.ttrpc.v1");
                }
            }
        }
    }
}

/// The envelope of ttrpc's frames, generated from `protos/ttrpc`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod ttrpc {
    tonic::include_proto!("ttrpc");
}

/// What our daemon says to our shim beyond the Task API, generated from `protos/cleat`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod shim_v1 {
    tonic::include_proto!("cleat.shim.v1");
}
