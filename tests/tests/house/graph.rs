//! The crates as trees of modules, and who uses whom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::module::{Kind, Module, read};

/// A crate: the name that its rooms have in ARCHITECTURE.md, the name it has in code, and its root.
#[derive(Debug)]
pub(crate) struct Crate {
    /// First word of its rooms; empty for the gateway, whose rooms stand without.
    pub(crate) room: &'static str,
    /// What a path to it begins with.
    pub(crate) name: &'static str,
    /// The file of its root.
    pub(crate) root: &'static str,
}

/// Number of a module.
pub(crate) type Id = usize;

/// A module in its place.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its crate's number.
    pub(crate) krate: usize,
    /// Its path below the crate's root.
    pub(crate) path: Vec<String>,
    /// The file that it is in.
    pub(crate) file: String,
    pub(crate) parent: Option<Id>,
    pub(crate) children: BTreeMap<String, Id>,
    pub(crate) source: Module,
}

/// One use of a module by another.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) from: Id,
    /// The module that defines what is used.
    pub(crate) to: Id,
    /// What the used name stands for; `None` for the module itself.
    pub(crate) kind: Option<Kind>,
    /// `pub use`, of a name that this module itself does nothing with.
    pub(crate) hands_on: bool,
    pub(crate) line: usize,
    /// The path as it is written.
    pub(crate) text: String,
}

/// All crates.
#[derive(Debug, Default)]
pub(crate) struct House {
    pub(crate) nodes: Vec<Node>,
    pub(crate) roots: Vec<Id>,
    names: Vec<&'static str>,
    rooms: Vec<&'static str>,
    pub(crate) edges: Vec<Edge>,
}

/// Reads a file of the tree below `root`.
pub(crate) fn on_disk(root: &Path) -> impl Fn(&str) -> io::Result<String> {
    let root = root.to_owned();
    move |path| fs::read_to_string(root.join(path))
}

impl House {
    /// Reads `crates`; `open` gives a file's text.
    ///
    /// # Panics
    /// If a file is not there.
    pub(crate) fn new(crates: &[Crate], open: impl Fn(&str) -> io::Result<String>) -> Self {
        let mut house = Self::default();
        for (krate, it) in crates.iter().enumerate() {
            let text = open(it.root).unwrap_or_else(|error| panic!("{}: {error}", it.root));
            let dir = Path::new(it.root)
                .parent()
                .expect("a file is in a directory");
            let root = house.add(krate, Vec::new(), it.root, None, read(&text));
            house.names.push(it.name);
            house.rooms.push(it.room);
            house.roots.push(root);
            house.add_children(root, dir, &open);
        }
        house.edges = (0..house.nodes.len())
            .flat_map(|from| house.edges_of(from))
            .collect();
        house
    }

    fn add(
        &mut self,
        krate: usize,
        path: Vec<String>,
        file: &str,
        parent: Option<Id>,
        source: Module,
    ) -> Id {
        let id = self.nodes.len();
        if let (Some(parent), Some(name)) = (parent, path.last()) {
            self.nodes[parent].children.insert(name.clone(), id);
        }
        self.nodes.push(Node {
            krate,
            path,
            file: file.to_owned(),
            parent,
            children: BTreeMap::new(),
            source,
        });
        id
    }

    /// Adds the modules below `id`, whose own are in `dir`.
    fn add_children(&mut self, id: Id, dir: &Path, open: &impl Fn(&str) -> io::Result<String>) {
        let node = &mut self.nodes[id];
        let (krate, path, file) = (node.krate, node.path.clone(), node.file.clone());
        let (files, inline) = (
            node.source.files.clone(),
            std::mem::take(&mut node.source.inline),
        );
        let below = |name: &String| [&path[..], std::slice::from_ref(name)].concat();
        for name in files {
            let candidates: [PathBuf; 2] = [
                dir.join(format!("{name}.rs")),
                dir.join(&name).join("mod.rs"),
            ];
            let found = candidates.iter().find_map(|path| {
                let path = path.to_str()?;
                Some((path.to_owned(), open(path).ok()?))
            });
            let (path, text) = found
                .unwrap_or_else(|| panic!("{file}: mod {name} has no file in {}", dir.display()));
            let child = self.add(krate, below(&name), &path, Some(id), read(&text));
            self.add_children(child, &dir.join(&name), open);
        }
        for (name, source) in inline {
            let child = self.add(krate, below(&name), &file, Some(id), source);
            self.add_children(child, &dir.join(&name), open);
        }
    }

    fn edges_of(&self, from: Id) -> Vec<Edge> {
        let source = &self.nodes[from].source;
        let mut edges = Vec::new();
        for reference in &source.references {
            let Some((to, name)) = self.resolve(from, &reference.words, 0) else {
                continue;
            };
            let item = name
                .as_ref()
                .and_then(|name| self.nodes[to].source.items.get(name));
            let kind = match (&name, item) {
                (Some(_), Some((kind, _))) => Some(*kind),
                // Variants, and what macros make.
                (Some(_), None) => Some(Kind::Type),
                (None, _) => None,
            };
            let name = reference.words.last().map_or("", |word| &**word);
            let times = source.tokens.iter().filter(|token| token.text == name);
            if to != from {
                edges.push(Edge {
                    from,
                    to,
                    kind,
                    hands_on: reference.reexport && times.count() < 2,
                    line: reference.line,
                    text: reference.words.join("::"),
                });
            }
        }
        edges
    }

    /// The module that defines what `words` mean in module `at`, and the name there; `None` for the module itself, and
    /// if it is nothing of ours.
    fn resolve(&self, at: Id, words: &[String], depth: usize) -> Option<(Id, Option<String>)> {
        // A name that is imported by its own name, from what is not ours.
        if depth > 16 {
            return None;
        }
        let (first, rest) = words.split_first()?;
        let node = &self.nodes[at];
        match &**first {
            "crate" => self.descend(self.roots[node.krate], rest, depth),
            "self" => self.descend(at, rest, depth),
            "super" => {
                let mut above = node.parent?;
                let mut rest = rest;
                while let Some(("super", more)) =
                    rest.split_first().map(|(word, more)| (&**word, more))
                {
                    above = self.nodes[above].parent?;
                    rest = more;
                }
                self.descend(above, rest, depth)
            }
            name if node.children.contains_key(name) => self.descend(at, words, depth),
            name if node.source.items.contains_key(name) => self.descend(at, words, depth),
            name => match node.source.imports.get(name) {
                Some(path) if path != words => {
                    self.resolve(at, &[&path[..], rest].concat(), depth + 1)
                }
                _ => {
                    let krate = self.names.iter().position(|it| *it == name)?;
                    self.descend(self.roots[krate], rest, depth)
                }
            },
        }
    }

    fn descend(&self, at: Id, words: &[String], depth: usize) -> Option<(Id, Option<String>)> {
        let Some((first, rest)) = words.split_first() else {
            return Some((at, None));
        };
        let node = &self.nodes[at];
        if let Some(child) = node.children.get(first) {
            return self.descend(*child, rest, depth);
        }
        if !node.source.items.contains_key(first) {
            if let Some(path) = node.source.imports.get(first) {
                let path = [&path[..], rest].concat();
                return self.resolve(at, &path, depth + 1);
            }
            for glob in &node.source.globs {
                let found = self.resolve(at, &[&glob[..], words].concat(), depth + 1);
                if let Some((to, Some(name))) = found
                    && self.nodes[to].source.items.contains_key(&name)
                {
                    return Some((to, Some(name)));
                }
            }
        }
        Some((at, Some(first.clone())))
    }

    /// The module of a room: `fs/ops`, `cache/dirty`; of the gateway's root if `path` is empty.
    pub(crate) fn at(&self, path: &str) -> Option<Id> {
        let mut words = path.split('/').filter(|word| !word.is_empty()).peekable();
        let named = |word: &str| {
            self.rooms
                .iter()
                .position(|room| !room.is_empty() && *room == word)
        };
        let krate = words.peek().and_then(|word| named(word));
        if krate.is_some() {
            words.next();
        }
        let gateway = || self.rooms.iter().position(|room| room.is_empty());
        let mut at = self.roots[krate.or_else(gateway)?];
        for word in words {
            at = *self.nodes[at].children.get(word)?;
        }
        Some(at)
    }

    /// How a module is called as a room.
    pub(crate) fn room(&self, id: Id) -> String {
        let node = &self.nodes[id];
        let room = self.rooms[node.krate];
        let words = std::iter::once(room).chain(node.path.iter().map(|word| &**word));
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            "the gateway".to_owned()
        } else {
            words.join("/")
        }
    }

    /// True if the document's rules are for it: it is no test.
    pub(crate) fn is_governed(&self, id: Id) -> bool {
        !self.rooms[self.nodes[id].krate].starts_with("tests")
    }

    /// `id` and all that it is in, the outermost last.
    pub(crate) fn ancestors(&self, id: Id) -> impl Iterator<Item = Id> {
        std::iter::successors(Some(id), |id| self.nodes[*id].parent)
    }
}
