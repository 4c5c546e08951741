//! Maps within a map.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use aya::{
    maps::{MapData, MapType},
    util::KernelVersion,
};

use super::{batch, bpf};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;

/// Threads that put maps one by one. Each call waits until all programs that run at its start have ended, and calls of
/// several threads wait together.
const THREADS: usize = 64;
/// The same for removals, which are of all places: before 6.8, the kernel waits at empty ones as well.
const REMOVING_THREADS: usize = 256;

/// Puts maps into consecutive places of an array of maps. When this returns, every program run that may have
/// seen a former map in one of these places has ended.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the map is not an array of maps, or has fewer places. Other errors as
/// the kernel reports them. Some of the maps may have been put then.
pub fn put_maps(outer: &MapData, first: u32, inner: &[&MapData]) -> io::Result<()> {
    /// Earlier kernels wait once for each element of a batch.
    const WAITS_ONCE_SINCE: u32 = 6 << 16 | 8 << 8;
    let shape = batch::Shape::of(outer)?;
    shape.check_nested(first, u32::try_from(inner.len()).map_err(io::Error::other)?)?;
    let keys: Vec<u32> = (first..).take(inner.len()).collect();
    let fds: Vec<u32> = inner.iter().map(|map| map.fd().as_fd().as_raw_fd().cast_unsigned()).collect();
    if KernelVersion::current().is_ok_and(|version| version.code() >= WAITS_ONCE_SINCE) {
        match batch::update_batch(outer, &keys, &fds) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => return other,
        }
    }
    in_parallel(THREADS, keys.len(), |number| {
        let (Some(key), Some(fd)) = (keys.get(number), fds.get(number)) else { return Ok(()) };
        let mut attributes = batch::ElementAttr::new(outer, key, fd);
        // SAFETY: the kernel reads a key and a value of 4 bytes each, as checked, from live words. It
        // writes nothing.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
    })
}

/// Empties consecutive places of an array of maps, of which some may be empty already. When this returns, every program
/// run that may have seen a map in one of the others has ended.
///
/// # Errors
/// As [`put_maps`]. Some of the places may be empty then.
pub fn remove_maps(outer: &MapData, first: u32, count: u32) -> io::Result<()> {
    batch::Shape::of(outer)?.check_nested(first, count)?;
    let keys: Vec<u32> = (first..first + count).collect();
    in_parallel(REMOVING_THREADS, keys.len(), |number| {
        let Some(key) = keys.get(number) else { return Ok(()) };
        let mut attributes = batch::ElementAttr::new(outer, key, std::ptr::null::<u32>());
        // SAFETY: the kernel reads a key of 4 bytes, as checked, from a live word. It uses no value.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attributes) } {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// Does this many things in so many threads.
fn in_parallel(threads: usize, count: usize, one: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let some = || -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            one(number)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(some)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| io::Error::other("a thread that puts maps has failed"))?
        })
    })
}

/// The number of places from `first` on that hold a map, of at most `most`. They are the first ones.
///
/// # Errors
/// As [`put_maps`].
pub fn nested_maps_used(outer: &MapData, first: u32, most: u32) -> io::Result<u32> {
    let (mut used, mut end) = (0, most);
    while used < end {
        let middle = used.midpoint(end);
        match nested_map_id(outer, first + middle)? {
            Some(_) => used = middle + 1,
            None => end = middle,
        }
    }
    Ok(used)
}

/// Returns the id of the map in a place of an array of maps, or `None` for an empty place.
///
/// # Errors
/// As [`put_maps`].
pub fn nested_map_id(outer: &MapData, place: u32) -> io::Result<Option<u32>> {
    batch::Shape::of(outer)?.check_nested(place, 1)?;
    let mut id = 0_u32;
    let mut attributes = batch::ElementAttr::new(outer, &place, std::ptr::from_mut(&mut id));
    // SAFETY: the kernel reads a key of 4 bytes and writes a value of 4 bytes, as checked, and both words are
    // live.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the ids of the maps in consecutive places of an array of maps. None of them may be empty.
///
/// # Errors
/// As [`put_maps`], and [`io::ErrorKind::NotFound`] for an empty place.
pub fn nested_map_ids(outer: &MapData, first: u32, count: u32) -> io::Result<Vec<u32>> {
    batch::Shape::of(outer)?.check_nested(first, count)?;
    match batch::lookup_batch(outer, first, count) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => (first..first + count)
            .map(|place| nested_map_id(outer, place)?.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .collect(),
        ids => ids,
    }
}

impl batch::Shape {
    fn check_nested(&self, first: u32, count: u32) -> io::Result<()> {
        if self.map_type != Some(MapType::ArrayOfMaps) {
            return Err(batch::invalid("the map is not an array of maps".to_owned()));
        }
        self.check_sizes::<u32, u32>()?;
        self.check_range(first, count)
    }
}
