//! Runs of new names: when a listing may answer "no such name" without asking.
//!
//! LOOKUP does not say what it is for. Before a creation a listing of a second ago is good enough:
//! if it missed a foreign file, the condition at publish catches that. Before an open it is not: an
//! open sees all that was published before it. So a listing answers for absence only while this
//! mount fills the directory with names of one shape (`part-0001`, `part-0002`), and not where
//! foreign names turn up. Whoever looks for any other name is answered by the store.
//!
//! Pure but for the clock that callers pass.

use std::time::{Duration, Instant};

/// Creations in a row after which a directory is being filled.
const STREAK: u32 = 8;
/// Shapes remembered; more at once are no run.
const SHAPES_MAX: usize = 4;
/// Longest pause within a run.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// For how long a directory with a foreign writer is asked for every name.
const FOREIGN_FOR: Duration = Duration::from_mins(1);

/// What this mount does in one directory.
#[derive(Debug, Default)]
pub struct Creations {
    streak: u32,
    shapes: Vec<String>,
    last: Option<Instant>,
    foreign_until: Option<Instant>,
}

/// A name with every run of letters and digits that holds a digit made one `#`.
fn shape(name: &str) -> String {
    let mut shape = String::with_capacity(name.len());
    for run in name.split_inclusive(|byte: char| !byte.is_alphanumeric()) {
        let word = run.trim_end_matches(|byte: char| !byte.is_alphanumeric());
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            // `file12` and `file7` are alike, `12ab-` and `7cd-` too.
            let letters = word.trim_end_matches(|byte: char| byte.is_ascii_hexdigit());
            shape.push_str(letters);
            shape.push('#');
        } else {
            shape.push_str(word);
        }
        shape.push_str(&run[word.len()..]);
    }
    shape
}

impl Creations {
    /// This mount made `name`.
    pub fn created(&mut self, name: &str, now: Instant) {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) > PAUSE_MAX)
        {
            self.streak = 0;
            self.shapes.clear();
        }
        self.last = Some(now);
        let shape = shape(name);
        if self.shapes.contains(&shape) {
            self.streak += 1;
        } else {
            if self.shapes.len() == SHAPES_MAX {
                self.shapes.clear();
                self.streak = 0;
            }
            self.shapes.push(shape);
        }
    }

    /// A name was found that nobody here made and that the last listing did not hold.
    pub fn foreign(&mut self, now: Instant) {
        self.streak = 0;
        self.foreign_until = Some(now + FOREIGN_FOR);
    }

    /// Whether a listing that lacks `name` may be believed.
    pub fn covers(&self, name: &str, now: Instant) -> bool {
        self.streak >= STREAK
            && self.foreign_until.is_none_or(|until| now >= until)
            && self
                .last
                .is_some_and(|last| now.saturating_duration_since(last) <= PAUSE_MAX)
            && self.shapes.contains(&shape(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(now: Instant) -> Creations {
        let mut run = Creations::default();
        for index in 0..20 {
            run.created(&format!("part-{index:04}.bin"), now);
        }
        run
    }

    #[test]
    fn a_run_covers_names_of_its_shape_only() {
        let now = Instant::now();
        let run = filled(now);
        assert!(run.covers("part-0020.bin", now));
        assert!(!run.covers("foreign", now));
        assert!(!run.covers("part-0020.txt", now));
        assert!(
            !run.covers("part-0020.bin", now + PAUSE_MAX * 2),
            "the run is over"
        );
    }

    #[test]
    fn a_few_creations_are_no_run() {
        let now = Instant::now();
        let mut run = Creations::default();
        for index in 0..STREAK {
            assert!(!run.covers("f1", now));
            run.created(&format!("f{index}"), now);
        }
    }

    #[test]
    fn a_foreign_name_ends_it() {
        let now = Instant::now();
        let mut run = filled(now);
        run.foreign(now);
        for index in 20..40 {
            run.created(&format!("part-{index:04}.bin"), now);
        }
        assert!(!run.covers("part-0041.bin", now));
    }

    #[test]
    fn numbers_and_hashes_have_one_shape() {
        assert_eq!(shape("f9"), shape("f10"));
        assert_eq!(shape("f1"), shape("f2"));
        assert_eq!(shape("00ab-12cd.x"), shape("93ff-00ee.x"));
        assert_ne!(shape("a.txt"), shape("b.txt"));
    }
}
