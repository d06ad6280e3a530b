//! Extended attributes of what a descriptor refers to: `fgetxattr(2)`, `fsetxattr(2)`, `flistxattr(2)`.
//!
//! An `O_PATH` descriptor (the only kind a symbolic link or a device can have without side effects) is refused by those
//! calls, so the same object is named through `/proc/self/fd`, which leads to exactly it and not through it.

use crate::{Errno, Result, c_string};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

/// The most that the kernel keeps under one name (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 64 << 10;

fn through_proc(fd: impl AsFd) -> Result<CString> {
    c_string(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Returns the value of an attribute, `None` where there is no such or the filesystem has none at all.
///
/// # Errors
/// Those of `getxattr(2)`.
pub fn get(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let (path, name) = (through_proc(&fd)?, c_string(name)?);
    let mut value = [0_u8; 256];
    let small = get_into(&path, &name, &mut value);
    match small {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(Errno::ERANGE) => {
            let mut value = vec![0_u8; VALUE_MAX];
            let length = get_into(&path, &name, &mut value)?;
            value.truncate(length);
            Ok(Some(value))
        }
        Err(error) => Err(error),
    }
}

fn get_into(path: &CString, name: &CString, value: &mut [u8]) -> Result<usize> {
    // SAFETY: both texts are C strings, and the kernel writes at most `value.len()` bytes to `value`.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    Errno::result(length).map(|length| length as usize)
}

/// Sets an attribute, whether or not it was there.
///
/// # Errors
/// Those of `setxattr(2)`; `EOPNOTSUPP` where the filesystem has none.
pub fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    let (path, name) = (through_proc(&fd)?, c_string(name)?);
    // SAFETY: both texts are C strings, and the kernel reads `value.len()` bytes of `value`.
    let answer = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(answer).map(drop)
}

/// Returns the names of all attributes; none where the filesystem has none.
///
/// # Errors
/// Those of `listxattr(2)`.
pub fn list(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let path = through_proc(&fd)?;
    let mut small = [0_u8; 1024];
    let length = match list_into(&path, &mut small) {
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => return Ok(split(&small[..length])),
        Err(Errno::ERANGE) => VALUE_MAX,
        Err(error) => return Err(error),
    };
    let mut all = vec![0_u8; length];
    let length = list_into(&path, &mut all)?;
    Ok(split(&all[..length]))
}

fn list_into(path: &CString, names: &mut [u8]) -> Result<usize> {
    // SAFETY: `path` is a C string, and the kernel writes at most `names.len()` bytes to `names`.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    Errno::result(length).map(|length| length as usize)
}

fn split(names: &[u8]) -> Vec<Vec<u8>> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn an_attribute_comes_back_whatever_its_size() {
        let path = std::env::temp_dir().join(format!("cleat-xattr-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        for size in [0, 1, 256, 257, 2000] {
            let value = vec![7_u8; size];
            set(&file, b"user.test", &value).unwrap();
            assert_eq!(get(&file, b"user.test").unwrap(), Some(value));
        }
        assert_eq!(get(&file, b"user.other").unwrap(), None);
        assert!(list(&file).unwrap().contains(&b"user.test".to_vec()));
        fs::remove_file(path).unwrap();
    }
}
