//! What the document says, held against the code: arrows, what is absent where, and names of types.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Absence, Document};
use crate::graph::{House, Id};
use crate::module::Kind;

/// Uses that no arrow allows, one line for each.
pub(crate) fn arrows(house: &House, document: &Document) -> Vec<String> {
    let mut lines = document.mistakes.clone();
    for arrow in &document.arrows {
        let Some(around) = document.arrow_around(house, arrow) else {
            continue;
        };
        for target in &arrow.targets {
            if !around.allows_room(house, target) {
                let (line, left) = (arrow.line, &arrow.left);
                lines.push(format!(
                    "ARCHITECTURE.md:{line}: {left} may use {target}, and {}, which it is in, may not",
                    around.left
                ));
            }
        }
    }
    // A file that uses a room it may not is told once, where it first does.
    let mut told = BTreeSet::new();
    for edge in &house.edges {
        let allowed = document
            .arrow_of(house, edge.from)
            .map(|arrow| (arrow, arrow.allows(house, edge.to)));
        let known = !house.is_governed(edge.from) || matches!(allowed, Some((_, true)));
        let target = if allowed.is_none() {
            edge.from
        } else {
            edge.to
        };
        if known || !told.insert((edge.from, target)) {
            continue;
        }
        let (file, line, text) = (&house.nodes[edge.from].file, edge.line, &edge.text);
        let why = match allowed {
            None => "no arrow says what it may use".to_owned(),
            Some((arrow, _)) => format!(
                "{} does not use {} (ARCHITECTURE.md:{})",
                arrow.left,
                house.room(edge.to),
                arrow.line
            ),
        };
        lines.push(format!("{file}:{line}: {text}: {why}"));
    }
    lines
}

/// Words that stand where they are said to be absent.
pub(crate) fn absences(house: &House, document: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    for absence in &document.absences {
        for id in (0..house.nodes.len()).filter(|id| house.is_governed(*id)) {
            if !absence.means(house, id) {
                continue;
            }
            let node = &house.nodes[id];
            for (at, token) in node.source.tokens.iter().enumerate() {
                let words = || node.source.tokens[at..].iter().map(|token| &*token.text);
                let found = absence.patterns.iter().find(|it| matches(it, words()));
                if let Some(pattern) = found {
                    lines.push(format!(
                        "{}:{}: {pattern} is absent here (ARCHITECTURE.md:{})",
                        node.file, token.line, absence.line
                    ));
                }
            }
        }
    }
    lines
}

impl Absence {
    fn means(&self, house: &House, id: Id) -> bool {
        let places = self.places.as_ref();
        places.is_none_or(|rooms| rooms.iter().any(|room| room.holds(house, id)))
            && !self.exceptions.iter().any(|room| room.holds(house, id))
    }
}

/// True if `words` begin with the path `pattern`, whose words may end in `*`.
fn matches<'a>(pattern: &str, mut words: impl Iterator<Item = &'a str>) -> bool {
    pattern.split("::").enumerate().all(|(at, part)| {
        if at > 0 && words.next() != Some("::") {
            return false;
        }
        let Some(word) = words.next() else {
            return false;
        };
        match part.strip_suffix('*') {
            Some(begin) => word.starts_with(begin),
            None => word == part,
        }
    })
}

/// Types by their names, where a name has more than one.
fn shared_types(house: &House) -> BTreeMap<&str, Vec<(Id, usize)>> {
    let mut types: BTreeMap<&str, Vec<(Id, usize)>> = BTreeMap::new();
    for (id, node) in house.nodes.iter().enumerate() {
        if !house.is_governed(id) {
            continue;
        }
        for (name, (kind, line)) in &node.source.items {
            if *kind == Kind::Type {
                types.entry(name).or_default().push((id, *line));
            }
        }
    }
    types.retain(|_, places| places.len() > 1);
    types
}

/// Names of types that mean more than one thing: all of them if they are `max` or more, and in any case those that
/// mean two things in one place and what stands right above, beside or below it.
pub(crate) fn names(house: &House, max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let shared = shared_types(house);
    let show = |(id, line): &(Id, usize)| format!("{}:{line}", house.nodes[*id].file);
    for (name, places) in &shared {
        for (at, one) in places.iter().enumerate() {
            for other in &places[at + 1..] {
                if in_sight(house, one.0, other.0) {
                    let (one, other) = (show(one), show(other));
                    lines.push(format!(
                        "{one}: {name} is another type in sight, at {other}"
                    ));
                }
            }
        }
    }
    let count: usize = shared.values().map(Vec::len).sum();
    if count >= max {
        lines.push(format!(
            "{count} types share their name with another, not below {max}:"
        ));
        for (name, places) in &shared {
            let places: Vec<_> = places.iter().map(show).collect();
            lines.push(format!("    {name}: {}", places.join(", ")));
        }
    }
    lines
}

fn in_sight(house: &House, one: Id, other: Id) -> bool {
    let (above, beside) = (house.nodes[one].parent, house.nodes[other].parent);
    one == other
        || above == Some(other)
        || beside == Some(one)
        || (above.is_some() && above == beside)
}
