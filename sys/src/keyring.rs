//! Session keyrings, `keyctl(2)`.

use crate::{Errno, Result, c_string};

const JOIN_SESSION_KEYRING: i32 = 1;
const SETPERM: i32 = 5;

/// What a searchable keyring lets its possessor and its user do, `keyctl_setperm(3)`: all for the one, search and view for the other.
const POSSESSOR_ALL: u32 = 0x3f00_0000;
const USER_VIEW_SEARCH: u32 = 0x0009_0000;

/// Leaves the session keyring for one called `name`, made if it is not there, that the user's other sessions can search.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` at the user's quota. Source: `KEYCTL_JOIN_SESSION_KEYRING(2const)`.
pub fn join_session(name: &str) -> Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is a C string that lives across the call.
    let raw = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    let key = Errno::result(raw)? as i32;
    // SAFETY: takes integers.
    let raw =
        unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, POSSESSOR_ALL | USER_VIEW_SEARCH) };
    Errno::result(raw).map(drop)
}
