use proptest::prelude::*;

use super::*;

fn cached(offset: u64, data: &[u8], trust: Trust) -> CachedExtent {
    CachedExtent {
        offset,
        crc: crc_fast::checksum(CRC, data),
        len: data.len() as u32,
        trust,
    }
}

#[test]
fn an_extent_across_units_or_without_bytes_is_refused() {
    let mut list = ExtentList::default();
    assert!(!list.put(cached(UNIT - 1, b"ab", Trust::Written)));
    assert!(!list.put(cached(0, b"", Trust::Written)));
    assert!(!list.put(cached(u64::MAX - 1, b"a", Trust::Written)));
    assert!(list.put(cached(UNIT - 2, b"ab", Trust::Written)));
}

#[test]
fn neighbours_of_two_units_stay_apart() {
    let mut list = ExtentList::default();
    list.insert(cached(UNIT - 2, b"ab", Trust::Written))
        .unwrap();
    let inserted = list.insert(cached(UNIT, b"cd", Trust::Written)).unwrap();
    assert!(inserted.absorbed.is_empty());
    assert_eq!(list.count(), 2);
    assert_eq!(list.covering(Extent::new(UNIT - 1, 2)).unwrap().len(), 2);
}

#[test]
fn the_room_around_an_extent_ends_where_others_lie() {
    let mut list = ExtentList::default();
    list.put(cached(PAGE + 10, b"ab", Trust::Written));
    let gap = Extent::new(PAGE + 20, PAGE);
    let room = Extent::between(PAGE + 20, 3 * PAGE);
    assert_eq!(list.widened_to_pages(gap), room);
    let gap = Extent::new(10, PAGE);
    assert_eq!(list.widened_to_pages(gap), Extent::between(0, PAGE + 10));
    let whole = Extent::new(3 * PAGE, PAGE);
    assert_eq!(list.widened_to_pages(whole), whole);
}

#[test]
fn only_what_was_compared_becomes_verified() {
    let mut list = ExtentList::default();
    let one = cached(0, b"ab", Trust::Unverified);
    list.put(one);
    assert!(!list.is_ready(Extent::new(0, 1)));
    list.mark_verified(&cached(0, b"xx", Trust::Unverified));
    assert_eq!(list.unverified(), 1);
    list.mark_verified(&one);
    assert!(list.is_ready(Extent::new(0, 2)));
    assert!(!list.remove(&one), "its trust has changed");
}

proptest! {
    /// Whatever is inserted, in whatever order: the list agrees with an array of bytes, joined
    /// checksums are those of the joined bytes, the index on disk that follows `Insertion`
    /// holds the same list, and sums are sums.
    #[test]
    fn list_agrees_with_an_array_of_bytes(
        ops in proptest::collection::vec((0..300u64, 1..60u64, any::<bool>(), any::<bool>()), 0..40),
        at in 0..300u64,
        len in 0..60u64,
    ) {
        // Around a unit's end, so that both sides are met.
        let base = UNIT - 150;
        let bytes: Vec<u8> = (0..400).map(|i| (i * 7 % 251) as u8).collect();
        let slice = |extent: Extent| {
            &bytes[(extent.offset - base) as usize..(extent.end() - base) as usize]
        };
        let mut list = ExtentList::default();
        let mut on_disk = std::collections::BTreeMap::new();
        let mut model = vec![false; 400];
        for (offset, len, insert, trusted) in ops {
            let extent = Extent::new(base + offset, len);
            if insert {
                for gap in list.gaps(extent) {
                    let cut = gap.end().min((gap.offset / UNIT + 1) * UNIT);
                    for part in [Extent::between(gap.offset, cut), Extent::between(cut, gap.end())] {
                        if part.is_empty() {
                            continue;
                        }
                        let trust = if trusted { Trust::Written } else { Trust::Verified };
                        let inserted = list.insert(cached(part.offset, slice(part), trust)).unwrap();
                        for offset in inserted.absorbed {
                            on_disk.remove(&offset);
                        }
                        on_disk.insert(inserted.joined.offset, inserted.joined);
                        for i in part.offset..part.end() {
                            model[(i - base) as usize] = true;
                        }
                    }
                }
                continue;
            }
            let first = list.iter().find(|cached| cached.offset >= extent.offset).copied();
            if let Some(first) = first {
                prop_assert!(list.remove(&first));
                on_disk.remove(&first.offset);
                for i in first.offset..first.end() {
                    model[(i - base) as usize] = false;
                }
            }
        }
        for one in list.iter() {
            prop_assert!(one.is_valid());
            prop_assert_eq!(one.crc, crc_fast::checksum(CRC, slice(one.extent())));
        }
        prop_assert!(list.iter().eq(on_disk.values()));
        prop_assert_eq!(list.bytes(), model.iter().filter(|here| **here).count() as u64);
        prop_assert_eq!(list.usage().bytes, list.iter().map(|cached| charge(cached.extent())).sum::<u64>());
        let extent = Extent::new(base + at, len);
        let here = &model[at as usize..(at + len) as usize];
        prop_assert_eq!(list.covering(extent).is_some(), here.iter().all(|here| *here));
        let missing: u64 = list.gaps(extent).iter().map(|gap| gap.len).sum();
        prop_assert_eq!(missing, here.iter().filter(|here| !**here).count() as u64);
    }
}
