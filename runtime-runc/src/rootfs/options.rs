//! Mount options as text → what they do, OCI runtime-spec, config.md, Linux mount options.

use super::flags::Named;
use crate::error::{Error, Result};
use crate::spec::Mount;
use cleat_sys::mountapi::{Attributes, attr};

/// What the options of one mount ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A bind mount; `Some(true)`: with everything below.
    pub bind: Option<bool>,
    /// For the mount itself.
    pub own: Attributes,
    /// The same of a bind mount, for which it counts what is not named.
    pub named: Named,
    /// For it and every mount below.
    pub all: Attributes,
    /// In order: (`MS_SHARED` and its like, with everything below).
    pub propagation: Vec<(u64, bool)>,
    /// The ids of the source are mapped; `Some(true)`: those of every mount below as well.
    pub idmap: Option<bool>,
    /// A new tmpfs begins with what lies at its target.
    pub copy_up: bool,
    /// For the filesystem, as `key` or `key=value`.
    pub filesystem: Vec<String>,
}

/// What one word does. `Set` and `Clear` of an attribute, with an `r` in front for the whole tree.
#[derive(Clone, Copy)]
enum Effect {
    Nothing,
    Bind(bool),
    Idmap(bool),
    CopyUp,
    Set(u64),
    Clear(u64),
    /// One of the access-time modes, which exclude each other.
    Time(u64),
    Propagate(u64),
    /// A flag of the filesystem, under the same name.
    Filesystem,
    Refuse(&'static str),
}

const EFFECTS: &[(&str, Effect)] = {
    use Effect::{Bind, Clear, CopyUp, Filesystem, Idmap, Nothing, Propagate, Refuse, Set, Time};
    &[
        ("acl", Filesystem),
        ("async", Nothing),
        ("atime", Clear(attr::NOATIME)),
        ("bind", Bind(false)),
        ("defaults", Nothing),
        ("dev", Clear(attr::NODEV)),
        ("diratime", Clear(attr::NODIRATIME)),
        ("dirsync", Filesystem),
        ("exec", Clear(attr::NOEXEC)),
        ("idmap", Idmap(false)),
        ("iversion", Filesystem),
        ("lazytime", Filesystem),
        ("loud", Nothing),
        ("mand", Filesystem),
        ("noatime", Time(attr::NOATIME)),
        ("nodev", Set(attr::NODEV)),
        ("nodiratime", Set(attr::NODIRATIME)),
        ("noexec", Set(attr::NOEXEC)),
        ("noiversion", Nothing),
        ("nolazytime", Nothing),
        ("nomand", Nothing),
        ("norelatime", Time(attr::STRICTATIME)),
        ("nostrictatime", Time(attr::RELATIME)),
        ("nosuid", Set(attr::NOSUID)),
        ("nosymfollow", Set(attr::NOSYMFOLLOW)),
        ("private", Propagate(libc::MS_PRIVATE)),
        ("rbind", Bind(true)),
        ("relatime", Time(attr::RELATIME)),
        ("remount", Refuse("the remount option is not supported")),
        ("ridmap", Idmap(true)),
        ("ro", Set(attr::RDONLY)),
        ("rw", Clear(attr::RDONLY)),
        ("shared", Propagate(libc::MS_SHARED)),
        ("silent", Nothing),
        ("slave", Propagate(libc::MS_SLAVE)),
        ("strictatime", Time(attr::STRICTATIME)),
        ("suid", Clear(attr::NOSUID)),
        ("symfollow", Clear(attr::NOSYMFOLLOW)),
        ("sync", Filesystem),
        ("tmpcopyup", CopyUp),
        ("unbindable", Propagate(libc::MS_UNBINDABLE)),
    ]
};

impl Options {
    /// Reads the words; one that is in no table is the filesystem's.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what this worker cannot do.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut options = Self::default();
        for word in words {
            options.named.take(word);
            match effect(word) {
                Some((Effect::Refuse(text), _)) => return Err(Error::Invalid((*text).to_owned())),
                Some((effect, tree)) => options.take(effect, tree, word),
                None => options.filesystem.push(word.to_owned()),
            }
        }
        Ok(options)
    }

    fn take(&mut self, effect: Effect, tree: bool, word: &str) {
        let target = if tree { &mut self.all } else { &mut self.own };
        match effect {
            Effect::Nothing | Effect::Refuse(_) => {}
            Effect::Bind(recursive) => self.bind = Some(recursive),
            Effect::Idmap(recursive) => self.idmap = Some(recursive),
            Effect::CopyUp => self.copy_up = true,
            Effect::Set(flag) => {
                target.set |= flag;
                target.clear &= !flag;
            }
            // An access-time mode is a value in a field: clearing one means the default one.
            Effect::Clear(attr::NOATIME) => take_time(target, attr::RELATIME),
            Effect::Clear(flag) => {
                target.set &= !flag;
                target.clear |= flag;
            }
            Effect::Time(mode) => take_time(target, mode),
            Effect::Propagate(flag) => self.propagation.push((flag, tree)),
            Effect::Filesystem => self.filesystem.push(word.to_owned()),
        }
    }

    /// Returns whether the ids of `mount` are mapped, and if so, whether those of every mount below are. Mappings without the
    /// option mean the mount itself.
    pub fn idmap(&self, mount: &Mount) -> Option<bool> {
        let has_mappings = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        self.idmap.or(has_mappings.then_some(false))
    }

    /// Returns what `fsmount(2)` takes for a new filesystem: there is nothing to clear.
    pub fn new_mount(&self) -> u64 {
        self.own.set | self.all.set
    }
}

fn take_time(target: &mut Attributes, mode: u64) {
    target.set = target.set & !attr::ATIME_MASK | mode;
    target.clear |= attr::ATIME_MASK;
}

/// Finds a word, or an `r` in front of a word that exists for trees. `rbind`, `ro` and the like are words themselves.
fn effect(word: &str) -> Option<(Effect, bool)> {
    let find = |word| EFFECTS.iter().find(|(name, _)| *name == word).map(|(_, effect)| *effect);
    if let Some(effect) = find(word) {
        return Some((effect, false));
    }
    match find(word.strip_prefix('r')?)? {
        effect @ (Effect::Set(_) | Effect::Clear(_) | Effect::Time(_) | Effect::Propagate(_)) => {
            Some((effect, true))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(text.split(',')).unwrap()
    }

    #[test]
    fn docker_s_words_become_attributes() {
        let options = parse("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(options.new_mount(), attr::NOSUID | attr::STRICTATIME);
        assert_eq!(options.filesystem, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(
            parse("ro,rw").own,
            Attributes { set: 0, clear: attr::RDONLY, ..Attributes::default() }
        );
        assert_eq!(parse("rw,ro").own, Attributes { set: attr::RDONLY, ..Attributes::default() });
    }

    #[test]
    fn an_r_in_front_is_for_the_whole_tree() {
        let options = parse("rbind,rro,rnosuid,rprivate");
        assert_eq!((options.bind, options.own), (Some(true), Attributes::default()));
        assert_eq!(options.all.set, attr::RDONLY | attr::NOSUID);
        assert_eq!(options.propagation, [(libc::MS_PRIVATE, true)]);
    }

    #[test]
    fn relatime_is_no_tree_s_elatime() {
        let options = parse("relatime");
        assert_eq!(options.own, Attributes { clear: attr::ATIME_MASK, ..Attributes::default() });
        assert_eq!(parse("rnoatime").all.set, attr::NOATIME);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let error = Options::parse(["remount"]).unwrap_err();
        assert_eq!(error.to_string(), "the remount option is not supported");
    }

    #[test]
    fn ids_are_mapped_where_a_word_or_a_mapping_says_so() {
        let plain = Mount::default();
        let map = crate::spec::IdMapping { container_id: 0, host_id: 1, size: 1 };
        let mapped = Mount { uid_mappings: vec![map], ..Mount::default() };
        assert_eq!(parse("bind").idmap(&plain), None);
        assert_eq!(parse("bind").idmap(&mapped), Some(false));
        assert_eq!(parse("rbind,idmap").idmap(&plain), Some(false));
        assert_eq!(parse("rbind,ridmap").idmap(&mapped), Some(true));
    }
}
