use super::*;

fn all() -> Vec<(Arc<dyn Disk>, std::path::PathBuf, Option<tempfile::TempDir>)> {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let path = temporary.path().join("d");
    vec![
        (Arc::new(RealDisk), path, Some(temporary)),
        (Arc::new(MemoryDisk::default()), "/d".into(), None),
        (Arc::new(SimulatedDisk::new(1)), "/d".into(), None),
    ]
}

#[test]
fn all_disks_behave_alike() {
    for (disk, root, _temporary) in all() {
        assert_eq!(
            disk.list(&root).map_err(|e| e.kind()),
            Err(io::ErrorKind::NotFound)
        );
        disk.create_dir(&root.join("sub")).expect("created");
        let path = root.join("a");
        assert_eq!(
            disk.open(&path).map(drop).map_err(|e| e.kind()),
            Err(io::ErrorKind::NotFound)
        );
        let file = disk.create(&path).expect("created");
        file.write_at(&[b"", b"hello ", b"", b"world"], 2)
            .expect("written");
        let mut buffer = [9; 20];
        assert_eq!(file.read_at(&mut buffer, 0).expect("read"), 13);
        assert_eq!(&buffer[..13], b"\0\0hello world");
        assert_eq!(file.read_at(&mut buffer, 99).expect("read"), 0);
        file.resize(4).expect("cut");
        file.sync().expect("synced");
        disk.rename(&path, &root.join("b")).expect("renamed");
        replace_whole(&*disk, &root.join("b"), b"new").expect("replaced");
        assert_eq!(
            read_whole(&*disk, &root.join("b"), 3).expect("read"),
            b"new"
        );
        assert!(read_whole(&*disk, &root.join("b"), 2).is_err());
        assert_eq!(disk.list(&root).expect("listed"), ["b", "sub"]);
        disk.rename(&root.join("sub"), &root.join("other"))
            .expect("renamed");
        disk.remove(&root.join("b")).expect("removed");
        disk.remove(&root.join("b")).expect("removed already");
        assert_eq!(disk.list(&root).expect("listed"), ["other"]);
        disk.remove_dir(&root).expect("removed");
        assert!(disk.list(&root).is_err());
    }
}

#[test]
fn links_and_fifos_are_not_opened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("target"), b"x").expect("written");
    std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join("link")).expect("linked");
    assert!(RealDisk.open(&dir.path().join("link")).is_err());
    assert!(RealDisk.open(dir.path()).is_err());
}

fn durable_file(disk: &SimulatedDisk) -> Arc<dyn File> {
    disk.create_dir(Path::new("/d")).expect("created");
    let file = disk.create(Path::new("/d/f")).expect("created");
    file.write_at(&[&[1; 4096]], 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(Path::new("/d")).expect("synced");
    file
}

#[test]
fn the_simulated_disk_keeps_what_was_synced_and_tears_the_rest() {
    let mut torn = 0;
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let file = durable_file(&disk);
        file.write_at(&[&[2; 4096]], 4096).expect("written");
        disk.crash();
        let content = read_whole(&disk, Path::new("/d/f"), 1 << 20).expect("the name was synced");
        assert!(content[..4096].iter().all(|b| *b == 1));
        torn += usize::from(content[4096..].contains(&0) && content[4096..].contains(&2));
    }
    assert!(torn > 5, "some writes are torn: {torn}");
}

#[test]
fn names_that_were_not_synced_may_be_lost() {
    let lost = |seed| {
        let disk = SimulatedDisk::new(seed);
        drop(durable_file(&disk));
        let file = disk.create(Path::new("/d/g")).expect("created");
        file.sync().expect("synced");
        disk.crash();
        disk.open(Path::new("/d/g")).is_err()
    };
    let losses = (0..20).filter(|seed| lost(*seed)).count();
    assert!((1..20).contains(&losses), "{losses} of 20 lost");
}

/// The trap that `fsync` sets: after an error the cache shows bytes that the medium never got.
#[test]
fn a_failed_sync_shows_bytes_that_a_crash_takes_away() {
    let disk = SimulatedDisk::new(3);
    let file = durable_file(&disk);
    file.write_at(&[&[2; 512]], 0).expect("written");
    disk.fail_syncs(1);
    assert!(file.sync().is_err());
    file.sync().expect("the second sync lies");
    assert_eq!(
        read_whole(&disk, Path::new("/d/f"), 1 << 20).expect("read")[0],
        2
    );
    disk.crash();
    assert_eq!(
        read_whole(&disk, Path::new("/d/f"), 1 << 20).expect("read")[0],
        1
    );
}

#[test]
fn a_full_disk_writes_what_fits() {
    let disk = SimulatedDisk::new(4);
    let file = durable_file(&disk);
    disk.set_capacity(4096 + 100);
    let error = file.write_at(&[&[7; 200]], 4096).expect_err("full");
    assert!(is_full(&error));
    assert_eq!(file.size().expect("size"), 4196);
}

/// What is written before a file has its name goes again if the disk is full.
#[test]
fn a_refused_replacement_leaves_the_old_file_and_no_other() {
    let disk = SimulatedDisk::new(5);
    let _file = durable_file(&disk);
    let used = disk.used_bytes();
    for room in [0, 100] {
        disk.set_capacity(used + room);
        let refused = replace_whole(&disk, Path::new("/d/f"), &[7; 200]);
        assert!(is_full(&refused.expect_err("full")));
        assert_eq!(disk.list(Path::new("/d")).expect("listed"), ["f"]);
        assert_eq!(disk.used_bytes(), used);
    }
}
