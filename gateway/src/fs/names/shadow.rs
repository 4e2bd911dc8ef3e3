//! Files that a directory of the same name shadows. Keys come in byte order, in which `a` stands before
//! `a-b` and `a-b` before `a/`. A file `a` and a directory `a/` may exist together and the directory wins, but
//! whether `a/` exists is known only when the order has passed it. So a file is held back until then: what is
//! held is a chain of names each of which begins the next, so they are few. Pure.

/// See the module. A stream of names in byte order of their keys goes in, and comes out without what is shadowed.
#[derive(Debug)]
pub(super) struct Shadows<T> {
    /// Files that a directory may still shadow; each name begins the next.
    held: Vec<(String, T)>,
}

impl<T> Default for Shadows<T> {
    fn default() -> Self {
        Self { held: Vec::new() }
    }
}

impl<T> Shadows<T> {
    /// Takes the next name. Gives to `out` what is now sure to be shown; true if a file was
    /// shadowed.
    pub(super) fn push(
        &mut self,
        name: &str,
        directory: bool,
        value: T,
        out: &mut Vec<(String, T)>,
    ) -> bool {
        let mut shadowed = false;
        while let Some((held, _)) = self.held.last() {
            let follows = name.strip_prefix(held.as_str());
            match follows.map(|rest| rest.as_bytes().first().copied()) {
                // `a` held, `a/` comes: the directory wins.
                Some(None) if directory => {
                    self.held.pop();
                    shadowed = true;
                }
                // `a` held, `a-b` comes: `a/` may still follow.
                Some(Some(next)) if next < b'/' => break,
                _ => out.extend(self.held.pop()),
            }
        }
        if directory {
            out.push((name.to_owned(), value));
        } else {
            self.held.push((name.to_owned(), value));
        }
        shadowed
    }

    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The stream has ended: gives what is still held.
    pub(super) fn finish(&mut self, out: &mut Vec<(String, T)>) {
        out.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every name comes out once, a directory wins over a file, whatever the order brings between.
        #[test]
        fn directories_win_and_nothing_is_lost(keys in proptest::collection::btree_set("[a!-]{1,4}/?", 0..20)) {
            let mut shadows = Shadows::default();
            let mut out = Vec::new();
            for key in &keys {
                let name = key.trim_end_matches('/');
                shadows.push(name, key.ends_with('/'), key.ends_with('/'), &mut out);
            }
            shadows.finish(&mut out);
            let seen: BTreeMap<String, bool> = out.iter().cloned().collect();
            prop_assert_eq!(seen.len(), out.len(), "a name came twice");
            let names: BTreeSet<&str> = keys.iter().map(|key| key.trim_end_matches('/')).collect();
            prop_assert_eq!(seen.len(), names.len());
            for (name, directory) in seen {
                prop_assert_eq!(directory, keys.contains(&format!("{name}/")));
            }
        }
    }
}
