//! The rules as ARCHITECTURE.md has them, in two fenced blocks: the document is the rule, not a copy of it.
//!
//! ```text
//! arrows    fs/ops -> fs/names, fs/table, cache       what a room may use of what is outside of it
//! absent    unsafe in everything but fuse/ring, heap  what is not there, where, and the exceptions
//! ```
//!
//! A room is a module with all that is below it: `fs/ops`. With `.rs` it is that file alone: `fs.rs`. Rooms of the gateway
//! stand by themselves, those of other crates behind the crate: `cache/dirty`, `demo`. A crate's root is its `lib.rs`:
//! `cache/lib.rs`. The line of the smallest room that a file is in holds for it. A line that ends in a comma goes on in
//! the next.

use crate::graph::{House, Id};

/// A module with what is below it, or its file alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    text: String,
    node: Id,
    alone: bool,
}

/// `left -> targets`.
#[derive(Debug)]
pub(crate) struct Arrow {
    pub(crate) line: usize,
    pub(crate) left: Room,
    pub(crate) targets: Vec<Room>,
}

/// `patterns in places but exceptions`.
#[derive(Debug)]
pub(crate) struct Absence {
    pub(crate) line: usize,
    pub(crate) patterns: Vec<String>,
    /// None is everything.
    pub(crate) places: Option<Vec<Room>>,
    pub(crate) exceptions: Vec<Room>,
}

/// The rules, and what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) arrows: Vec<Arrow>,
    pub(crate) absences: Vec<Absence>,
    pub(crate) mistakes: Vec<String>,
}

impl Room {
    fn parse(house: &House, text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (path, alone) = match text.strip_suffix(".rs") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let path = match path.rsplit_once('/') {
            Some((krate, "lib")) => krate,
            _ if path == "lib" => "",
            _ => path,
        };
        let node = house
            .at(path)
            .ok_or_else(|| format!("{text:?} is no room of this house"))?;
        Ok(Self {
            text: text.to_owned(),
            node,
            alone,
        })
    }

    pub(crate) fn holds(&self, house: &House, id: Id) -> bool {
        if self.alone {
            return self.node == id;
        }
        house.ancestors(id).any(|above| above == self.node)
    }

    /// How small it is: the smaller, the larger the number.
    fn depth(&self, house: &House) -> usize {
        house.ancestors(self.node).count() * 2 + usize::from(self.alone)
    }

    /// The rooms of a list; what is none is a mistake, and the rest counts.
    fn list(house: &House, text: &str, mistakes: &mut Vec<String>) -> Vec<Self> {
        let words = text.split(',').map(str::trim);
        let rooms = words
            .filter(|word| !word.is_empty())
            .map(|word| Self::parse(house, word));
        rooms
            .filter_map(|room| room.map_err(|mistake| mistakes.push(mistake)).ok())
            .collect()
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Document {
    /// Reads the blocks of `text`.
    pub(crate) fn new(house: &House, text: &str) -> Self {
        let mut document = Self::default();
        for (line, rule) in block(text, "arrows") {
            let mut mistakes = Vec::new();
            document
                .arrows
                .extend(arrow(house, line, &rule, &mut mistakes));
            document.note(line, mistakes);
        }
        for (line, rule) in block(text, "absent") {
            let mut mistakes = Vec::new();
            document
                .absences
                .extend(absence(house, line, &rule, &mut mistakes));
            document.note(line, mistakes);
        }
        document
    }

    fn note(&mut self, line: usize, mistakes: Vec<String>) {
        let at = |mistake| format!("ARCHITECTURE.md:{line}: {mistake}");
        self.mistakes.extend(mistakes.into_iter().map(at));
    }

    /// The line that holds for a module: that of the smallest room it is in.
    pub(crate) fn arrow_of(&self, house: &House, id: Id) -> Option<&Arrow> {
        let holding = self.arrows.iter().filter(|it| it.left.holds(house, id));
        holding.max_by_key(|it| it.left.depth(house))
    }

    /// The line of the next larger room, if there is one.
    pub(crate) fn arrow_around(&self, house: &House, arrow: &Arrow) -> Option<&Arrow> {
        let depth = arrow.left.depth(house);
        let holding = self
            .arrows
            .iter()
            .filter(|it| it.left.holds(house, arrow.left.node) && it.left.depth(house) < depth);
        holding.max_by_key(|it| it.left.depth(house))
    }
}

impl Arrow {
    /// True if what is in `left` may use module `to`.
    pub(crate) fn allows(&self, house: &House, to: Id) -> bool {
        self.left.holds(house, to) || self.targets.iter().any(|it| it.holds(house, to))
    }

    /// True if it may use all of a room.
    pub(crate) fn allows_room(&self, house: &House, room: &Room) -> bool {
        self.allows(house, room.node)
    }
}

/// The lines of the fenced block of that name, joined where they end in a comma, with their numbers.
fn block(text: &str, name: &str) -> Vec<(usize, String)> {
    let fence = format!("```{name}");
    let mut rules: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if !inside {
            inside = line.trim() == fence;
            continue;
        }
        if line.trim() == "```" {
            inside = false;
            continue;
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        match rules.last_mut() {
            Some((_, open)) if open.ends_with(',') => {
                open.push(' ');
                open.push_str(line);
            }
            _ if line.is_empty() => {}
            _ => rules.push((number + 1, line.to_owned())),
        }
    }
    rules
}

fn arrow(house: &House, line: usize, rule: &str, mistakes: &mut Vec<String>) -> Option<Arrow> {
    let Some((left, targets)) = rule.split_once("->") else {
        mistakes.push(format!("{rule:?} has no arrow"));
        return None;
    };
    let targets = Room::list(house, targets, mistakes);
    let left = Room::list(house, left, mistakes).pop()?;
    Some(Arrow {
        line,
        left,
        targets,
    })
}

fn absence(house: &House, line: usize, rule: &str, mistakes: &mut Vec<String>) -> Option<Absence> {
    let Some((patterns, places)) = rule.split_once(" in ") else {
        mistakes.push(format!("{rule:?} is not: PATTERNS in ROOMS but ROOMS"));
        return None;
    };
    let (places, exceptions) = places.split_once(" but ").unwrap_or((places, ""));
    let places = match places.trim() {
        "everything" => None,
        places => Some(Room::list(house, places, mistakes)),
    };
    let patterns = patterns.split(',').map(|word| word.trim().to_owned());
    Some(Absence {
        line,
        patterns: patterns.collect(),
        places,
        exceptions: Room::list(house, exceptions, mistakes),
    })
}
