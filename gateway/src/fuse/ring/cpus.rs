//! Which CPUs there are. The kernel has one FUSE queue for each possible CPU, whether it is online
//! or not and whatever our affinity, and wants all of them served.

use std::fs;

/// Every CPU that can ever be, in ascending order: 0 if the list cannot be read.
pub(crate) fn possible() -> Vec<u16> {
    read("/sys/devices/system/cpu/possible").unwrap_or_else(|| vec![0])
}

/// Every CPU that is there now.
pub(crate) fn online() -> Vec<u16> {
    read("/sys/devices/system/cpu/online").unwrap_or_else(|| vec![0])
}

fn read(path: &str) -> Option<Vec<u16>> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Parses `0-3,8,10-11`.
fn parse(list: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_spans_are_understood() {
        assert_eq!(parse("0-1\n"), Some(vec![0, 1]));
        assert_eq!(parse("0-2,8,10-11"), Some(vec![0, 1, 2, 8, 10, 11]));
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("x"), None);
    }
}
