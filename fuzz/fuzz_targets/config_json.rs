//! The worker reads a bundle's `config.json`: it may refuse it, and does nothing worse.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    cleat_runc::parsers::spec(text);
});
