//! Names to ids. What the user typed is a [`ContainerRef`]; this module alone turns it into an id.

use std::collections::{BTreeMap, BTreeSet};

use cleat_proto::{id::ContainerId, kind::Kind};

mod words;

/// A name, an id, or an id's prefix, as the user typed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef(pub String);

impl From<&ContainerId> for ContainerRef {
    fn from(id: &ContainerId) -> Self {
        Self(id.as_str().to_owned())
    }
}

/// What is wrong with a name. The texts are Docker's, since clients match on them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody has it.
    #[error("No such container: {0}")]
    NotFound(String),
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// It may not be a name.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Invalid(String),
    /// Nothing was typed.
    #[error("invalid name or ID supplied: \"\"")]
    Empty,
    /// Somebody has it.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    InUse {
        /// The name, without the slash.
        name: String,
        /// Who.
        id: ContainerId,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Ambiguous(_) | Self::Invalid(_) | Self::Empty => Kind::InvalidArgument,
            Self::InUse { .. } => Kind::Conflict,
        }
    }
}

/// Who is called what. A name that is being given away is in it already, so that two creates cannot have the same.
#[derive(Debug, Default)]
pub struct Names {
    by_name: BTreeMap<String, ContainerId>,
    ids: BTreeSet<ContainerId>,
}

impl Names {
    /// Turns what the user typed into an id: a whole id, a name, or an id's prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    pub fn resolve(&self, reference: &ContainerRef) -> Result<ContainerId, Error> {
        let text = reference.0.as_str();
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if let Ok(id) = text.parse::<ContainerId>()
            && self.ids.contains(&id)
        {
            return Ok(id);
        }
        if let Some(id) = self.by_name.get(text.strip_prefix('/').unwrap_or(text)) {
            return Ok(id.clone());
        }
        let mut matching = self.ids.iter().filter(|id| id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            (None, _) => Err(Error::NotFound(text.to_owned())),
        }
    }

    /// Gives `id` the name that the user typed, with or without a slash before it; returns it without.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InUse`].
    pub fn reserve(&mut self, typed: &str, id: &ContainerId) -> Result<String, Error> {
        let name = typed.strip_prefix('/').unwrap_or(typed);
        if !is_name(name) {
            return Err(Error::Invalid(typed.to_owned()));
        }
        if let Some(owner) = self.by_name.get(name) {
            return Err(Error::InUse { name: name.to_owned(), id: owner.clone() });
        }
        self.by_name.insert(name.to_owned(), id.clone());
        Ok(name.to_owned())
    }

    /// Gives `id` a name of two words that nobody has, picked by `random`.
    pub fn generate(&mut self, id: &ContainerId, mut random: impl FnMut() -> u32) -> String {
        for attempt in 0..6 {
            let mut name = words::pick(random());
            if attempt > 0 {
                name.push_str(&(random() % 10).to_string());
            }
            if let Ok(name) = self.reserve(&name, id) {
                return name;
            }
        }
        let short = id.short().to_owned();
        self.by_name.insert(short.clone(), id.clone());
        short
    }

    /// Takes a name back from `id`; a name that is another's by now stays.
    pub fn release(&mut self, name: &str, id: &ContainerId) {
        if self.by_name.get(name) == Some(id) {
            self.by_name.remove(name);
        }
    }

    /// Makes an id known to [`Self::resolve`].
    pub fn add(&mut self, id: ContainerId) {
        self.ids.insert(id);
    }

    /// Forgets an id.
    pub fn remove(&mut self, id: &ContainerId) {
        self.ids.remove(id);
    }
}

/// Docker's `[a-zA-Z0-9][a-zA-Z0-9_.-]+`: two characters at least.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(prefix: &str) -> ContainerId {
        format!("{prefix:0<64}").parse().unwrap()
    }

    fn names() -> Names {
        let mut names = Names::default();
        for (name, prefix) in [("web", "abc1"), ("abc2", "d"), ("db", "abc2")] {
            names.add(id(prefix));
            names.reserve(name, &id(prefix)).unwrap();
        }
        names
    }

    #[track_caller]
    fn check(typed: &str, expected: Result<ContainerId, Error>) {
        assert_eq!(names().resolve(&ContainerRef(typed.to_owned())), expected, "{typed}");
    }

    #[test]
    fn a_container_is_found_by_name_by_id_and_by_a_prefix_of_its_own() {
        check("web", Ok(id("abc1")));
        check("/web", Ok(id("abc1")));
        check(id("d").as_str(), Ok(id("d")));
        check("abc1", Ok(id("abc1")));
    }

    #[test]
    fn a_name_comes_before_a_prefix() {
        check("abc2", Ok(id("d")));
    }

    #[test]
    fn a_prefix_of_several_is_refused() {
        check("abc", Err(Error::Ambiguous("abc".into())));
    }

    #[test]
    fn nothing_is_nobodys_prefix() {
        check("", Err(Error::Empty));
        check("nope", Err(Error::NotFound("nope".into())));
    }

    #[test]
    fn a_name_in_use_is_refused_in_dockers_words() {
        let error = names().reserve("/web", &id("f")).unwrap_err();
        let owner = id("abc1");
        assert_eq!(
            error.to_string(),
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )
        );
    }

    #[test]
    fn a_name_that_was_released_can_be_had_again() {
        let mut names = names();
        names.release("web", &id("abc1"));
        assert_eq!(names.reserve("web", &id("f")), Ok("web".to_owned()));
        names.release("web", &id("abc1"));
        check_owner(&names, "web", "f");
    }

    #[track_caller]
    fn check_owner(names: &Names, name: &str, prefix: &str) {
        assert_eq!(names.resolve(&ContainerRef(name.to_owned())), Ok(id(prefix)));
    }

    #[test]
    fn names_are_what_docker_allows() {
        for good in ["ab", "a_b.c-d", "0x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "-a", ".a", "_a", "a/b", "a b", "aé"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_generated_name_is_two_words_and_nobodys() {
        let mut names = Names::default();
        let first = names.generate(&id("a"), || 7);
        let second = names.generate(&id("b"), || 7);
        assert!(first.split_once('_').is_some() && is_name(&first), "{first}");
        assert_ne!(first, second);
    }
}
