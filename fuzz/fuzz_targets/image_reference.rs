//! References of images, as the daemon and the command line read them: the command line takes what the daemon takes and means the
//! same by it, and a full reference means the same when it is read again.
#![no_main]

#[allow(dead_code)]
#[path = "../../cli/src/opts/reference.rs"]
mod command_line;
#[allow(dead_code)]
#[path = "../../daemon/src/image/reference.rs"]
mod daemon;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = daemon::ImageRef::parse(text);
    let Ok(reference) = daemon::Reference::parse(text) else { return };
    let again = daemon::Reference::parse(&reference.to_string());
    assert_eq!(again.as_ref(), Ok(&reference), "{text:?}");
    let typed = command_line::Reference::parse(text).map(|typed| typed.familiar());
    assert_eq!(typed.as_deref(), Ok(reference.familiar().as_str()), "{text:?}");
});
