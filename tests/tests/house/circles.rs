//! No circle between siblings, at any level: neither between two modules that stand beside each other, nor through all
//! that is below them.
//!
//! A module may use what is below it, and what is below may use the types, traits, constants and macros that the module
//! itself defines: types are what a parent and its children speak in. To call a *function* of a parent that uses the
//! caller is a circle, and so is to reach a sibling by way of the parent's `use`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::graph::{Edge, House, Id};
use crate::module::Kind;

/// Who stands beside whom: the children of a module, and the module's own file, which is there by the module's number.
type Level<'a> = BTreeMap<Id, BTreeMap<Id, &'a Edge>>;

/// One line for each circle.
pub(crate) fn check(house: &House) -> Vec<String> {
    let mut levels: BTreeMap<Id, Level> = BTreeMap::new();
    for edge in &house.edges {
        let Some((level, from, to)) = beside(house, edge) else {
            continue;
        };
        let beside = levels.entry(level).or_default().entry(from).or_default();
        beside.entry(to).or_insert(edge);
    }
    let of = |(level, graph): (&Id, &Level)| circles(house, *level, graph);
    levels.iter().flat_map(of).collect()
}

/// The level at which an edge is one between siblings, and which they are.
fn beside(house: &House, edge: &Edge) -> Option<(Id, Id, Id)> {
    let mut from: Vec<Id> = house.ancestors(edge.from).collect();
    let mut to: Vec<Id> = house.ancestors(edge.to).collect();
    if from.last() != to.last() {
        return None;
    }
    let mut level = edge.from;
    while let (Some(one), Some(other)) = (from.last(), to.last()) {
        if one != other {
            return Some((level, *one, *other));
        }
        level = *one;
        from.pop();
        to.pop();
    }
    match (from.last(), to.last()) {
        (None, Some(child)) if !edge.hands_on => Some((level, level, *child)),
        (Some(child), None) if edge.kind == Some(Kind::Function) => Some((level, *child, level)),
        _ => None,
    }
}

fn circles(house: &House, level: Id, graph: &Level) -> Vec<String> {
    let mut told: BTreeSet<Id> = BTreeSet::new();
    let mut lines = Vec::new();
    for node in graph.keys() {
        if told.contains(node) {
            continue;
        }
        let Some(circle) = shortest_circle(graph, *node) else {
            continue;
        };
        told.extend(circle.iter().map(|(from, ..)| *from));
        let steps: Vec<String> = circle
            .iter()
            .map(|(from, to, edge)| {
                let file = &house.nodes[edge.from].file;
                let (from, to) = (name(house, level, *from), name(house, level, *to));
                format!("\n    {from} -> {to}   {file}:{}: {}", edge.line, edge.text)
            })
            .collect();
        let place = house.room(level);
        lines.push(format!("a circle in {place}:{}", steps.concat()));
    }
    lines
}

fn name(house: &House, level: Id, node: Id) -> String {
    if node == level {
        return format!("{} itself", house.nodes[level].file);
    }
    house.nodes[node].path.last().cloned().unwrap_or_default()
}

/// The shortest way from `start` back to it.
fn shortest_circle<'a>(graph: &Level<'a>, start: Id) -> Option<Vec<(Id, Id, &'a Edge)>> {
    let mut came: BTreeMap<Id, (Id, &Edge)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (next, edge) in graph.get(&at).into_iter().flatten() {
            if came.contains_key(next) {
                continue;
            }
            came.insert(*next, (at, edge));
            queue.push_back(*next);
        }
    }
    let mut circle = Vec::new();
    let mut at = start;
    loop {
        let (before, edge) = came.get(&at)?;
        circle.push((*before, at, *edge));
        at = *before;
        if at == start {
            circle.reverse();
            return Some(circle);
        }
    }
}
