//! Kernel parameters that a container may have of its own.

/// Those of an IPC namespace, besides `fs.mqueue.*`. Source: `ipc_namespaces(7)`.
pub const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
