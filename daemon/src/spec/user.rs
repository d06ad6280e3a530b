//! Who the first process is: `User` and `GroupAdd`, looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! A number is a number, whatever the files say (CVE-2016-3697); ids beyond 31 bits are refused, and an entry whose id is no
//! number is an error, not root (CVE-2024-40635).

use std::io;

use oci_spec::runtime::User;

use super::Error;

/// The highest id Docker takes.
const MAX_ID: u32 = i32::MAX as u32;
const RANGE: &str = "uids and gids must be in range 0-2147483647";

/// The two files, as far as the container has them.
pub struct Files {
    passwd: String,
    group: String,
}

impl Files {
    /// Reads them. A file that is missing is an empty one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read(read: &dyn Fn(&str) -> io::Result<Option<Vec<u8>>>) -> Result<Self, Error> {
        let text = |path: &str| match read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()),
            Err(source) => Err(Error::File { path: path.to_owned(), source }),
        };
        Ok(Self { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
    }
}

struct Account<'a> {
    name: &'a str,
    uid: &'a str,
    gid: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: &'a str,
    members: &'a str,
}

impl Group<'_> {
    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

fn fields(line: &str) -> Option<impl Iterator<Item = &str>> {
    let line = line.trim();
    (!line.is_empty() && !line.starts_with('#')).then(|| line.split(':'))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(fields).filter_map(|mut fields| {
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Account { name, uid: fields.next()?, gid: fields.next().unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(fields).filter_map(|mut fields| {
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Group { name, gid: fields.next()?, members: fields.next().unwrap_or("") })
    })
}

/// Reads an id that the user wrote; `None` if it is a name.
fn number(text: &str) -> Option<Result<u32, Error>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let parsed = text.parse().ok().filter(|&id: &u32| id <= MAX_ID);
    Some(parsed.ok_or_else(|| Error::Invalid(RANGE.to_owned())))
}

/// Reads an id of a file.
fn entry_id(text: &str, file: &str, name: &str) -> Result<u32, Error> {
    number(text).and_then(Result::ok).ok_or_else(|| {
        Error::Invalid(format!(
            "the entry of {name} in the container's {file} has the id {text:?}: {RANGE}"
        ))
    })
}

/// Resolves `User` (`name`, `uid`, `name:group`, `uid:gid`, …) and `GroupAdd`.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words for who is not there.
pub fn resolve(wanted: &str, group_add: &[String], files: &Files) -> Result<User, Error> {
    let mut parts = wanted.split(':');
    let (user, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let by_number = number(user).transpose()?;
    let account = accounts(&files.passwd).find(|account| match (user, by_number) {
        ("", _) => number(account.uid).is_some_and(|id| id.is_ok_and(|id| id == 0)),
        (_, Some(uid)) => number(account.uid).is_some_and(|id| id.is_ok_and(|id| id == uid)),
        (name, None) => account.name == name,
    });
    let (uid, mut gid) = match (&account, by_number) {
        (Some(found), _) => (
            entry_id(found.uid, "/etc/passwd", found.name)?,
            entry_id(found.gid, "/etc/passwd", found.name)?,
        ),
        (None, Some(uid)) => (uid, 0),
        (None, None) if user.is_empty() => (0, 0),
        (None, None) => {
            return Err(Error::AtStart(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let mut supplementary = Vec::new();
    if !group.is_empty() {
        gid = group_id(group, files)?;
    } else if let Some(account) = &account {
        for member_of in groups(&files.group).filter(|group| group.has(account.name)) {
            supplementary.push(entry_id(member_of.gid, "/etc/group", member_of.name)?);
        }
    }
    for added in group_add {
        supplementary.push(group_id(added, files)?);
    }
    // The primary group belongs into the set as well: CVE-2022-36109.
    supplementary.insert(0, gid);
    let mut resolved = User::default();
    resolved.set_uid(uid).set_gid(gid).set_additional_gids(Some(supplementary));
    Ok(resolved)
}

fn group_id(wanted: &str, files: &Files) -> Result<u32, Error> {
    if let Some(id) = number(wanted) {
        return id;
    }
    match groups(&files.group).find(|group| group.name == wanted) {
        Some(group) => entry_id(group.gid, "/etc/group", group.name),
        None => Err(Error::AtStart(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            passwd: "# who\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/www:/bin/sh\n77:x:5:5::/:/bin/sh\nbad:x:99999999999:1::/:/bin/sh\n"
                .into(),
            group: "root:x:0:\nwww:x:34:\ndisk:x:6:root,web\nlog:x:7:web\n".into(),
        }
    }

    #[track_caller]
    fn check(wanted: &str, added: &[&str], expected: Result<(u32, u32, &[u32]), &str>) {
        let added: Vec<String> = added.iter().map(|&group| group.to_owned()).collect();
        let got = resolve(wanted, &added, &files()).map_err(|error| error.to_string());
        let got = got.map(|user| (user.uid(), user.gid(), user.additional_gids().clone().unwrap()));
        assert_eq!(
            got,
            expected.map(|(u, g, s)| (u, g, s.to_vec())).map_err(str::to_owned),
            "{wanted}"
        );
    }

    #[test]
    fn names_bring_their_groups() {
        check("", &[], Ok((0, 0, &[0, 6])));
        check("web", &[], Ok((33, 34, &[34, 6, 7])));
        check("web", &["9", "www"], Ok((33, 34, &[34, 6, 7, 9, 34])));
    }

    #[test]
    fn a_number_is_a_number_even_if_somebody_is_called_so() {
        check("77", &[], Ok((77, 0, &[0])));
        check("33", &[], Ok((33, 34, &[34, 6, 7])));
        check("5:6", &[], Ok((5, 6, &[6])));
    }

    #[test]
    fn a_group_that_was_given_replaces_the_others() {
        check("web:disk", &[], Ok((33, 6, &[6])));
        check(":disk", &[], Ok((0, 6, &[6])));
    }

    #[test]
    fn who_is_not_there_is_named() {
        check("nope", &[], Err("unable to find user nope: no matching entries in passwd file"));
        check("web:nope", &[], Err("unable to find group nope: no matching entries in group file"));
        check(
            "web",
            &["nope"],
            Err("unable to find group nope: no matching entries in group file"),
        );
    }

    #[test]
    fn ids_out_of_range_are_refused_wherever_they_stand() {
        check("2147483648", &[], Err(RANGE));
        check("-1", &[], Err(RANGE));
        check("1:4294967296", &[], Err(RANGE));
        assert!(resolve("bad", &[], &files()).is_err());
    }
}
