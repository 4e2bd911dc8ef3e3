//! User metadata, packed. A mount keeps those of thousands of files, each with five or so short pairs:
//! as a map of strings they take six times the memory of their characters.

use std::fmt;
use std::ops::Index;

/// Pairs of a name, in lower case, and a value; sorted by name, each name once.
///
/// They lie in one string, each with its length in front: `4:name5:value`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserMetadata(Box<str>);

/// Takes the first text off `packed`.
fn split(packed: &str) -> Option<(&str, &str)> {
    let (len, rest) = packed.split_once(':')?;
    rest.split_at_checked(len.parse().ok()?)
}

fn append(packed: &mut String, name: &str, value: &str) {
    use fmt::Write;

    // Writing into a string does not fail.
    let _ = write!(packed, "{}:{name}{}:{value}", name.len(), value.len());
}

impl UserMetadata {
    /// The pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut packed = &*self.0;
        std::iter::from_fn(move || {
            let (name, rest) = split(packed)?;
            let (value, rest) = split(rest)?;
            packed = rest;
            Some((name, value))
        })
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Whether there is a value of `name`.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `name` that value, whether it had one or not.
    pub fn insert(&mut self, name: &str, value: &str) {
        let mut packed = String::with_capacity(self.0.len() + name.len() + value.len() + 8);
        let mut pair = Some((name, value));
        for (known, held) in self.iter() {
            if let Some((name, value)) = pair.filter(|(name, _)| *name <= known) {
                append(&mut packed, name, value);
                pair = None;
            }
            if known != name {
                append(&mut packed, known, held);
            }
        }
        if let Some((name, value)) = pair {
            append(&mut packed, name, value);
        }
        self.0 = packed.into();
    }

    /// Takes `name` and its value out, if they are there.
    pub fn remove(&mut self, name: &str) {
        self.retain(|known| known != name);
    }

    /// Takes out all pairs whose names `keep` does not like.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        if self.iter().all(|(name, _)| keep(name)) {
            return;
        }
        let mut packed = String::with_capacity(self.0.len());
        for (name, value) in self.iter().filter(|(name, _)| keep(name)) {
            append(&mut packed, name, value);
        }
        self.0 = packed.into();
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for UserMetadata {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut user = Self::default();
        for (name, value) in pairs {
            user.insert(name.as_ref(), value.as_ref());
        }
        user
    }
}

/// # Panics
/// If there is no such name.
impl Index<&str> for UserMetadata {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        self.get(name).expect("the name is there")
    }
}

impl fmt::Debug for UserMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(String, String),
        Remove(String),
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few names, so that they meet; texts that look like what is between them.
        let name = "[ab:1]{0,2}";
        prop_oneof![
            3 => (name, "[a-c0-9:é]{0,12}").prop_map(|(name, value)| Op::Insert(name, value)),
            1 => name.prop_map(Op::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map(ops in prop::collection::vec(op(), 0..40)) {
            let (mut user, mut model) = (UserMetadata::default(), BTreeMap::new());
            for op in ops {
                match op {
                    Op::Insert(name, value) => {
                        user.insert(&name, &value);
                        model.insert(name, value);
                    }
                    Op::Remove(name) => {
                        user.remove(&name);
                        model.remove(&name);
                    }
                }
                let pairs = model.iter().map(|(name, value)| (&**name, &**value));
                prop_assert!(user.iter().eq(pairs));
                prop_assert_eq!(user.is_empty(), model.is_empty());
                for name in ["a", "b", ":", "1", "", "ab"] {
                    prop_assert_eq!(user.get(name), model.get(name).map(String::as_str));
                }
                prop_assert_eq!(&user, &model.iter().collect());
            }
        }
    }
}
