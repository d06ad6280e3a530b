//! What `nix` lacks for pipes: how much is in one (`FIONREAD`, `pipe(7)`).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Returns how many bytes can be read from `end` at once.
///
/// # Errors
/// `ENOTTY` if it is nothing that can tell.
pub fn readable_bytes(end: impl AsFd) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which lives until after the call.
    let result = unsafe { libc::ioctl(end.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(result)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn it_counts_what_was_written_and_not_read() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[0; 5000]).unwrap();
        assert_eq!(super::readable_bytes(&reader), Ok(5000));
    }
}
