use super::*;
use crate::disk::sim::SimDisk;

fn cached(offset: u64, len: u32) -> CachedExtent {
    CachedExtent {
        offset,
        crc: offset ^ 7,
        len,
        trust: Trust::Written,
    }
}

fn object(number: u64) -> Arc<CachedObject> {
    let id = ObjectId::new(Key::new(format!("key {number}")), ETag::new("\"e\""));
    Arc::new(CachedObject::new(number, id, 100, number))
}

#[test]
fn what_was_applied_is_loaded_and_what_was_dropped_is_not() {
    let disk = SimDisk::new(1);
    let path = Path::new("/index");
    let (catalog, loaded) = Catalog::open(&disk, path).unwrap().unwrap();
    assert!(loaded.objects.is_empty() && !loaded.clean);
    let changes = [
        CatalogChange::Object(object(1)),
        CatalogChange::Object(object(2)),
        CatalogChange::Extent(1, cached(0, 10)),
        CatalogChange::Extent(1, cached(10, 10)),
        CatalogChange::DropExtent(1, 0),
        CatalogChange::Extent(2, cached(0, 100)),
        CatalogChange::DropObject(2),
    ];
    catalog.apply(changes.iter()).unwrap();
    catalog.mark_clean(true).unwrap();
    drop(catalog);

    let disk = disk.crash();
    let (_, loaded) = Catalog::open(&disk, path).unwrap().unwrap();
    assert!(loaded.clean);
    let [one] = &loaded.objects[..] else {
        panic!("{loaded:?}");
    };
    assert_eq!(
        (one.number, &one.id, one.last_used()),
        (1, &object(1).id, 1)
    );
    let on_disk = one.on_disk.read();
    let all: Vec<u64> = on_disk.extents.iter().map(|cached| cached.offset).collect();
    assert_eq!(all, [10]);
    assert_eq!(on_disk.extents.unverified(), 1);
}

#[test]
fn rows_that_make_no_sense_are_damage() {
    for changes in [
        vec![CatalogChange::Extent(5, cached(0, 10))],
        vec![
            CatalogChange::Object(object(5)),
            CatalogChange::Extent(5, cached(95, 10)),
        ],
        vec![
            CatalogChange::Object(object(5)),
            CatalogChange::Extent(5, cached(0, 10)),
            CatalogChange::Extent(5, cached(9, 10)),
        ],
    ] {
        let disk = SimDisk::new(1);
        let path = Path::new("/index");
        let (catalog, _) = Catalog::open(&disk, path).unwrap().unwrap();
        catalog.apply(changes.iter()).unwrap();
        drop(catalog);
        assert!(Catalog::open(&disk, path).unwrap().is_err(), "{changes:?}");
    }
}

#[test]
fn garbage_is_damage_wherever_it_lies() {
    for seed in 0..24u64 {
        let disk = SimDisk::new(seed);
        let path = Path::new("/index");
        let (catalog, _) = Catalog::open(&disk, path).unwrap().unwrap();
        let changes: Vec<CatalogChange> = (0..50)
            .flat_map(|n| {
                [
                    CatalogChange::Object(object(n)),
                    CatalogChange::Extent(n, cached(0, 9)),
                ]
            })
            .collect();
        catalog.apply(changes.iter()).unwrap();
        drop(catalog);
        let file = block_on(disk.open(path, OpenHow::Existing)).unwrap();
        let len = file.len().unwrap();
        let at = if seed == 0 { 0 } else { len / 24 * seed };
        file.write_all_at(at, &[0xa5; 3000][..3000.min((len - at) as usize)])
            .unwrap();
        // Damage in a page that is not in use is no damage; all else is an error, and never
        // rows that nobody wrote.
        if let Ok((_, loaded)) = Catalog::open(&disk, path).unwrap() {
            for one in &loaded.objects {
                assert_eq!(one.id, object(one.number).id);
                assert_eq!(one.on_disk.read().extents.iter().count(), 1);
            }
        }
    }
}
