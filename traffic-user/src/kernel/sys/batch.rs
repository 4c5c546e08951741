//! Many map elements in one system call.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{MapData, MapError, MapType},
};

use super::{bpf, possible_cpus};

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;

/// The part of `union bpf_attr` for batches (`struct { ... } batch`).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for single elements.
#[repr(C)]
#[derive(Default)]
pub(super) struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttr {
    /// Names one element of a map, and where its value is.
    pub(super) fn new<V>(map: &MapData, key: *const u32, value: *const V) -> Self {
        Self {
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            key: key as u64,
            value: value as u64,
            ..Self::default()
        }
    }
}

/// What the kernel reports about a map: it decides how many bytes a call reads and writes.
pub(super) struct Shape {
    pub(super) map_type: Option<MapType>,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

impl Shape {
    pub(super) fn of(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(|error| match error {
            MapError::SyscallError(error) => error.io_error,
            other => io::Error::other(other),
        })?;
        Ok(Self {
            map_type: info.map_type().ok(),
            key_size: info.key_size() as usize,
            value_size: info.value_size() as usize,
            max_entries: info.max_entries(),
        })
    }

    /// Refuses other sizes than those of `K` and `V`.
    pub(super) fn check_sizes<K, V>(&self) -> io::Result<()> {
        let (found, expected) = ((self.key_size, self.value_size), (size_of::<K>(), size_of::<V>()));
        if found == expected {
            return Ok(());
        }
        Err(invalid(format!("the map has keys and values of {found:?} bytes, not of {expected:?}")))
    }

    /// Values that a read of one index returns: one for each of `cpus` from a per-CPU array, otherwise one.
    fn values_per_index<V>(&self, cpus: usize) -> io::Result<usize> {
        self.check_sizes::<u32, V>()?;
        match self.map_type {
            Some(MapType::Array | MapType::ArrayOfMaps) => Ok(1),
            // The kernel pads each CPU's value to 8 bytes.
            Some(MapType::PerCpuArray) if size_of::<V>().is_multiple_of(8) => Ok(cpus),
            Some(MapType::PerCpuArray) => {
                Err(invalid(format!("per-CPU values of {} bytes have padding between them", size_of::<V>())))
            }
            _ => Err(invalid("the map is not an array".to_owned())),
        }
    }

    /// Refuses indexes outside the map.
    pub(super) fn check_range(&self, first: u32, count: u32) -> io::Result<()> {
        match first.checked_add(count) {
            Some(end) if end <= self.max_entries => Ok(()),
            _ => Err(invalid(format!(
                "{count} elements from {first} were asked of a map with {} elements",
                self.max_entries
            ))),
        }
    }
}

pub(super) fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Reads the elements `first .. first + count` of an array map in as few calls as the kernel allows. For each
/// index, a per-CPU map returns one value for each possible CPU, any other array one.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the kernel has no batches for this kind of map (before 5.6, for
/// per-CPU arrays before 5.13). [`io::ErrorKind::InvalidInput`] when the map is not an array of `V`, or is
/// smaller. Other errors as the kernel reports them.
pub fn lookup_batch<V: Pod>(map: &MapData, first: u32, count: u32) -> io::Result<Vec<V>> {
    let shape = Shape::of(map)?;
    let copies = shape.values_per_index::<V>(possible_cpus()?)?;
    shape.check_range(first, count)?;
    let total = count as usize * copies;
    let mut values: Vec<V> = Vec::with_capacity(total);
    let mut keys: Vec<u32> = vec![0; count as usize];
    let mut done = 0_u32;
    while done < count {
        // A batch of an array starts after the given key; without one, at the first element.
        let before = (first + done).wrapping_sub(1);
        let mut after = 0_u32;
        let mut attributes = BatchAttr {
            in_batch: if first + done == 0 { 0 } else { std::ptr::from_ref(&before) as u64 },
            out_batch: std::ptr::from_mut(&mut after) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.spare_capacity_mut()[done as usize * copies..total].as_mut_ptr() as u64,
            count: count - done,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        // SAFETY: the kernel reads one key and writes one key, each a `u32` as checked. It writes at most
        // `count - done` keys and as many times `copies` values of the checked size, and the slices hold that
        // many.
        match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            // "No more elements": this was the last batch, and it is filled like the others.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                done += attributes.count;
                break;
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => done += attributes.count,
            Err(error) if is_unsupported(&error) => return Err(io::ErrorKind::Unsupported.into()),
            Err(error) => return Err(error),
            Ok(_) if attributes.count == 0 => break,
            Ok(_) => done += attributes.count,
        }
    }
    if done != count {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{count} elements from {first} were asked, and the kernel returned {done}"),
        ));
    }
    // SAFETY: the kernel has written `count * copies` elements of the size of `V`, and `V` is plain old data.
    unsafe { values.set_len(total) };
    Ok(values)
}

/// Writes many elements of an array, a hash, a trie or an array of maps. On an error, some of them may have
/// been written.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the kernel has no batches for this kind of map.
/// [`io::ErrorKind::InvalidInput`] when the map has other keys or values, or the slices differ in length.
/// Other errors as the kernel reports them.
pub fn update_batch<K: Pod, V: Pod>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    let shape = Shape::of(map)?;
    shape.check_sizes::<K, V>()?;
    if !matches!(
        shape.map_type,
        Some(MapType::Array | MapType::Hash | MapType::LpmTrie | MapType::ArrayOfMaps)
    ) {
        return Err(invalid("the map is not an array, a hash or a trie".to_owned()));
    }
    if keys.len() != values.len() {
        return Err(invalid(format!("{} keys were given with {} values", keys.len(), values.len())));
    }
    let mut done = 0;
    while done < keys.len() {
        let mut attributes = BatchAttr {
            keys: keys[done..].as_ptr() as u64,
            values: values[done..].as_ptr() as u64,
            count: u32::try_from(keys.len() - done).unwrap_or(u32::MAX),
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        // SAFETY: the kernel reads `count` keys and values of the checked sizes, and both slices hold that
        // many. It writes only to `attributes`.
        match unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) } {
            Ok(_) => done += attributes.count as usize,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => done += attributes.count as usize,
            Err(error) if is_unsupported(&error) => return Err(io::ErrorKind::Unsupported.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the kernel returns for a map type without batches. It is internal to the kernel and has no name in
/// libc.
const ENOTSUPP: i32 = 524;

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUS: usize = 4;

    fn shape(map_type: MapType, key_size: usize, value_size: usize) -> Shape {
        Shape { map_type: Some(map_type), key_size, value_size, max_entries: 10 }
    }

    #[test]
    fn a_read_of_a_per_cpu_array_returns_one_value_for_each_cpu() {
        assert_eq!(shape(MapType::Array, 4, 8).values_per_index::<u64>(CPUS).unwrap(), 1);
        assert_eq!(shape(MapType::PerCpuArray, 4, 8).values_per_index::<u64>(CPUS).unwrap(), CPUS);
    }

    #[test]
    fn a_map_that_does_not_fit_the_buffer_is_refused() {
        for (shape, what) in [
            (shape(MapType::Array, 4, 16), "larger values"),
            (shape(MapType::Array, 8, 8), "larger keys"),
            (shape(MapType::Array, 4, 4), "smaller values"),
            (shape(MapType::Hash, 4, 8), "another kind"),
            (Shape { map_type: None, ..shape(MapType::Array, 4, 8) }, "an unknown kind"),
        ] {
            let error = shape.values_per_index::<u64>(CPUS).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{what}");
        }
        // The size matches, but the kernel would write 8 bytes for each CPU.
        assert!(shape(MapType::PerCpuArray, 4, 4).values_per_index::<u32>(CPUS).is_err());
    }

    #[test]
    fn a_range_must_lie_within_the_map() {
        let shape = shape(MapType::Array, 4, 8);
        assert!(shape.check_range(0, 10).is_ok());
        assert!(shape.check_range(10, 0).is_ok());
        assert!(shape.check_range(1, 10).is_err());
        assert!(shape.check_range(u32::MAX, 2).is_err());
    }
}
