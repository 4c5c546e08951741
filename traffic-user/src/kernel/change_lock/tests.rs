use std::sync::mpsc;
use std::thread;

use super::*;

fn pins() -> (tempfile::TempDir, Bpffs) {
    let directory = tempfile::tempdir().unwrap();
    let bpffs = Bpffs::new(directory.path());
    (directory, bpffs)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}

#[test]
fn only_one_holds_the_lock() {
    let (_directory, bpffs) = pins();
    let held = bpffs.lock().unwrap();
    assert!(bpffs.try_lock().unwrap().is_none());
    assert!(bpffs.lock_until(soon()).unwrap().is_none());
    drop(held);
    assert!(bpffs.lock_until(soon()).unwrap().is_some());
}

#[test]
fn a_waiter_that_gave_up_does_not_keep_the_lock() {
    let (_directory, bpffs) = pins();
    let held = bpffs.lock().unwrap();
    for _ in 0..3 {
        assert!(bpffs.lock_until(soon()).unwrap().is_none());
    }
    drop(held);
    for _ in 0..3 {
        drop(bpffs.lock().unwrap());
    }
}

#[test]
fn a_waiter_gets_its_turn_before_the_holder_gets_the_lock_again() {
    let (_directory, bpffs) = pins();
    for _ in 0..50 {
        let (order, came) = mpsc::channel();
        let held = bpffs.lock().unwrap();
        let hook = {
            let (bpffs, order) = (bpffs.clone(), order.clone());
            thread::spawn(move || {
                let _held = bpffs.lock().unwrap();
                order.send("hook").unwrap();
            })
        };
        // Until the hook has its turn, and waits for the holder of the lock.
        while open(&bpffs.turn()).unwrap().try_lock().is_ok() {
            thread::yield_now();
        }
        drop(held);
        let _again = bpffs.lock().unwrap();
        order.send("batch").unwrap();
        assert_eq!(came.iter().take(2).collect::<Vec<_>>(), ["hook", "batch"]);
        hook.join().unwrap();
    }
}

#[test]
fn a_former_version_and_this_one_exclude_each_other() {
    let (directory, bpffs) = pins();
    let former = File::open(directory.path()).unwrap();
    former.lock().unwrap();
    assert!(bpffs.lock_until(soon()).unwrap().is_none());
    former.unlock().unwrap();
    let held = bpffs.lock().unwrap();
    assert!(former.try_lock().is_err());
    drop(held);
    former.try_lock().unwrap();
}

#[test]
fn a_lock_on_a_directory_that_was_removed_excludes_nobody() {
    let (_directory, bpffs) = pins();
    let held = bpffs.lock().unwrap();
    let waiting = {
        let bpffs = bpffs.clone();
        thread::spawn(move || bpffs.lock().map(drop))
    };
    thread::sleep(Duration::from_millis(20));
    // In one step, because the one who waits creates what is missing there.
    let removed = bpffs.lock_directory().with_extension("removed");
    fs::rename(bpffs.lock_directory(), &removed).unwrap();
    fs::remove_dir_all(removed).unwrap();
    fs::create_dir_all(bpffs.turn()).unwrap();
    fs::create_dir_all(bpffs.change()).unwrap();
    drop(held);
    waiting.join().unwrap().unwrap();
}

#[test]
fn others_have_no_access_to_the_directories() {
    let (directory, bpffs) = pins();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    drop(bpffs.lock().unwrap());
    assert_eq!(mode(&bpffs.lock_directory()), 0o700);
    for path in [directory.path(), &bpffs.lock_directory()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    drop(bpffs.lock().unwrap());
    assert_eq!(mode(&bpffs.lock_directory()), 0o700);
    assert_eq!(mode(directory.path()), 0o711, "readers reach the pins by their paths");
}

#[test]
fn without_the_pin_directory_there_is_no_lock() {
    let (directory, bpffs) = pins();
    drop(directory);
    let error = format!("{:#}", bpffs.lock().unwrap_err());
    assert!(error.contains("cannot create") && error.contains("No such file"), "{error}");
}
