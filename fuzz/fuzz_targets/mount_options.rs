//! The worker reads the options of a mount, and the mounts of `--rootfs-mounts`.
#![no_main]

use cleat_runc::parsers;

libfuzzer_sys::fuzz_target!(|text: &str| {
    parsers::mount_options(text);
    parsers::rootfs_mounts(text);
});
