//! SQLite's view of a [`Disk`]: a VFS that all connections of a thread use for files in the disk's directory.
//! All other files, and all other threads, use the VFS of the operating system.

use std::{
    cell::RefCell,
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr,
    rc::{Rc, Weak},
    sync::Once,
};

use rusqlite::{Connection, ffi};

use super::disk::{Disk, Inode, Locks, Refusal, SharedMemory};
use crate::wal_guard::beside;

thread_local! {
    static MOUNTED: RefCell<Vec<Weak<Disk>>> = const { RefCell::new(Vec::new()) };
}

/// Lets this thread use a disk as long as it exists.
pub fn mount(disk: &Rc<Disk>) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    MOUNTED.with_borrow_mut(|mounted| {
        mounted.retain(|disk| disk.strong_count() > 0);
        mounted.push(Rc::downgrade(disk));
    });
}

/// A file as SQLite allocates it.
#[repr(C)]
struct Opened {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

/// An open file.
struct Handle {
    disk: Rc<Disk>,
    inode: Rc<RefCell<Inode>>,
    lock: c_int,
    /// The locks of the shared memory that this connection holds, one bit each.
    memory_shared: u8,
    memory_exclusive: u8,
    remove_when_closed: Option<PathBuf>,
    /// The shared memory of a connection that uses no file now: SQLite keeps its address.
    kept_memory: SharedMemory,
}

/// Lets go of the files of a connection, and of its locks. It must have no transaction.
pub fn detach(conn: &Connection) {
    for file in files_of(conn) {
        let handle = handle(file);
        handle.give_back_memory();
        let inode = std::mem::take(&mut handle.inode);
        let mut inode = inode.borrow_mut();
        handle.kept_memory = std::mem::take(&mut inode.shared_memory);
        inode.locks.shared = inode.locks.shared.saturating_sub(usize::from(handle.lock != 0));
    }
}

/// Gives a connection the files of another ledger, which nobody has open. The memory that they share is as for a
/// process that begins: nothing is known of the log.
pub fn attach(conn: &Connection, disk: &Rc<Disk>, path: &Path) {
    for (file, path) in files_of(conn).into_iter().zip([path.to_owned(), beside(path, "-wal")]) {
        let handle = handle(file);
        handle.inode = disk.open(&path, true).unwrap().unwrap();
        handle.disk = Rc::clone(disk);
        let mut inode = handle.inode.borrow_mut();
        assert!(inode.shared_memory.is_empty() && inode.locks == Locks::default(), "somebody has it open");
        inode.shared_memory = std::mem::take(&mut handle.kept_memory);
        inode.shared_memory.iter_mut().for_each(|region| region.fill(0));
        inode.locks.shared = usize::from(handle.lock != 0);
    }
}

/// The file of a ledger and its log, as SQLite has them open.
fn files_of(conn: &Connection) -> [*mut ffi::sqlite3_file; 2] {
    [ffi::SQLITE_FCNTL_FILE_POINTER, ffi::SQLITE_FCNTL_JOURNAL_POINTER].map(|which| {
        let mut file = ptr::null_mut::<ffi::sqlite3_file>();
        // SAFETY: the connection is open, and SQLite writes the address of a file of it.
        let code = unsafe {
            ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), which, (&raw mut file).cast())
        };
        assert_eq!(code, ffi::SQLITE_OK);
        // SAFETY: a file of SQLite. Only one that `open` filled has these methods.
        assert_eq!(unsafe { (*file).pMethods }, &raw const METHODS);
        file
    })
}

fn register() {
    // SAFETY: called once. SQLite copies neither structure, so both live as long as the process.
    unsafe {
        // For speed: no lock for each allocation, and room for what the parser allocates. Both take effect before
        // the first connection only.
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int);
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, 1200 as c_int, 400 as c_int);
        let system = ffi::sqlite3_vfs_find(ptr::null());
        let mut vfs = *system;
        vfs.zName = c"simulator".as_ptr();
        vfs.szOsFile = vfs.szOsFile.max(c_int::try_from(size_of::<Opened>()).unwrap());
        vfs.pNext = ptr::null_mut();
        // Everything else only looks at the name: it works with either VFS.
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        SYSTEM.set(system as usize).unwrap();
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1);
    }
}

static SYSTEM: std::sync::OnceLock<usize> = std::sync::OnceLock::new();

fn system() -> *mut ffi::sqlite3_vfs {
    *SYSTEM.get().unwrap() as *mut ffi::sqlite3_vfs
}

/// The disk of this thread that the file is on.
fn disk_of(name: *const c_char) -> Option<(Rc<Disk>, PathBuf)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite passes a string that ends with zero.
    let path = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let disk = MOUNTED.with_borrow(|mounted| {
        mounted.iter().filter_map(Weak::upgrade).find(|disk| path.starts_with(disk.path()))
    })?;
    Some((disk, path))
}

fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: the file was filled by `open`, and is not closed. SQLite uses it from one thread at a time.
    unsafe { &mut *(*file.cast::<Opened>()).handle }
}

/// `failed` is what SQLite is told when the disk fails.
fn code(result: Result<(), Refusal>, failed: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Refusal::Failed) => failed,
        Err(Refusal::Stopped) => ffi::SQLITE_IOERR,
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some((disk, path)) = disk_of(name) else {
        // SAFETY: the same arguments as those of this call.
        return unsafe { (*system()).xOpen.unwrap()(system(), name, file, flags, out_flags) };
    };
    // SAFETY: SQLite gives room for `szOsFile` bytes.
    unsafe { (*file).pMethods = ptr::null() };
    let inode = match disk.open(&path, flags & ffi::SQLITE_OPEN_CREATE != 0) {
        Ok(Some(inode)) => inode,
        Ok(None) | Err(_) => return ffi::SQLITE_CANTOPEN,
    };
    let remove_when_closed = (flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0).then_some(path);
    let opened = Handle {
        disk,
        inode,
        lock: 0,
        memory_shared: 0,
        memory_exclusive: 0,
        remove_when_closed,
        kept_memory: Vec::new(),
    };
    // SAFETY: as above; `out_flags` is null or valid.
    unsafe {
        (*file.cast::<Opened>()).handle = Box::into_raw(Box::new(opened));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let Some((disk, path)) = disk_of(name) else {
        // SAFETY: the same arguments as those of this call.
        return unsafe { (*system()).xDelete.unwrap()(system(), name, sync) };
    };
    match disk.remove(&path, sync != 0) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    result: *mut c_int,
) -> c_int {
    let Some((disk, path)) = disk_of(name) else {
        // SAFETY: the same arguments as those of this call.
        return unsafe { (*system()).xAccess.unwrap()(system(), name, flags, result) };
    };
    // As for SQLite's own: an empty file is taken for none.
    let found = disk.find(&path).is_some_and(|inode| !inode.borrow().content.is_empty());
    // SAFETY: SQLite wants the result there.
    unsafe { *result = found.into() };
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(memory_map),
    xShmLock: Some(memory_lock),
    xShmBarrier: Some(memory_barrier),
    xShmUnmap: Some(memory_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    handle(file).give_back_memory();
    handle(file).unlock(ffi::SQLITE_LOCK_NONE);
    // SAFETY: the box was made by `open`, and SQLite closes a file once.
    let handle = unsafe { Box::from_raw((*file.cast::<Opened>()).handle) };
    if let Some(path) = &handle.remove_when_closed {
        // A process that was killed leaves it.
        let _ = handle.disk.remove(path, false);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let handle = handle(file);
    if handle.disk.is_stopped() {
        return ffi::SQLITE_IOERR_READ;
    }
    // SAFETY: SQLite gives room for so many bytes.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), usize::try_from(count).unwrap()) };
    let inode = handle.inode.borrow();
    let content = inode.content.get(usize::try_from(at).unwrap()..).unwrap_or_default();
    let there = content.len().min(to.len());
    to[..there].copy_from_slice(&content[..there]);
    to[there..].fill(0);
    if there < to.len() { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let handle = handle(file);
    // SAFETY: SQLite passes so many bytes.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap()) };
    let written = handle.disk.change().map(|()| {
        handle.inode.borrow_mut().write(usize::try_from(at).unwrap(), from);
    });
    code(written, ffi::SQLITE_FULL)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    let handle = handle(file);
    let truncated = handle.disk.change().map(|()| {
        handle.inode.borrow_mut().content.truncate(usize::try_from(size).unwrap());
    });
    code(truncated, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let handle = handle(file);
    code(handle.disk.sync(&handle.inode), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    let length = handle(file).inode.borrow().content.len();
    // SAFETY: SQLite wants the result there.
    unsafe { *size = i64::try_from(length).unwrap() };
    ffi::SQLITE_OK
}

impl Handle {
    /// Raises the lock of a file: see SQLite's own description of `xLock`.
    fn lock(&mut self, wanted: c_int) -> c_int {
        let locks = &mut self.inode.borrow_mut().locks;
        if wanted <= self.lock {
            return ffi::SQLITE_OK;
        }
        if wanted == ffi::SQLITE_LOCK_SHARED {
            if locks.pending || locks.exclusive {
                return ffi::SQLITE_BUSY;
            }
            locks.shared += 1;
        } else if wanted == ffi::SQLITE_LOCK_RESERVED {
            if locks.reserved {
                return ffi::SQLITE_BUSY;
            }
            locks.reserved = true;
        } else {
            if locks.reserved && self.lock < ffi::SQLITE_LOCK_RESERVED
                || locks.pending && self.lock < ffi::SQLITE_LOCK_PENDING
            {
                return ffi::SQLITE_BUSY;
            }
            (locks.reserved, locks.pending) = (true, true);
            if locks.shared > 1 {
                self.lock = ffi::SQLITE_LOCK_PENDING;
                return ffi::SQLITE_BUSY;
            }
            locks.exclusive = true;
        }
        self.lock = wanted;
        ffi::SQLITE_OK
    }

    fn unlock(&mut self, wanted: c_int) {
        if wanted >= self.lock {
            return;
        }
        let locks = &mut self.inode.borrow_mut().locks;
        if self.lock >= ffi::SQLITE_LOCK_RESERVED {
            (locks.reserved, locks.pending, locks.exclusive) = (false, false, false);
        }
        if wanted == ffi::SQLITE_LOCK_NONE {
            locks.shared = locks.shared.saturating_sub(1);
        }
        self.lock = wanted;
    }

    fn lock_memory(&mut self, first: usize, count: usize, flags: c_int) -> c_int {
        let locks = &mut self.inode.borrow_mut().locks;
        for slot in first..first + count {
            let bit = 1_u8 << slot;
            let (mine, other) = (self.memory_shared & bit != 0, self.memory_exclusive & bit != 0);
            let others = locks.memory_shared[slot] > u32::from(mine);
            let taken = locks.memory_exclusive[slot] && !other;
            let is_lock = flags & ffi::SQLITE_SHM_LOCK != 0;
            if is_lock && (taken || flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 && others) {
                return ffi::SQLITE_BUSY;
            }
        }
        for slot in first..first + count {
            let bit = 1_u8 << slot;
            let shared = flags & ffi::SQLITE_SHM_SHARED != 0;
            let wanted = flags & ffi::SQLITE_SHM_LOCK != 0;
            if shared && (self.memory_shared & bit != 0) != wanted {
                self.memory_shared ^= bit;
                let holders = &mut locks.memory_shared[slot];
                *holders = if wanted { *holders + 1 } else { holders.saturating_sub(1) };
            }
            if !shared && (self.memory_exclusive & bit != 0) != wanted {
                self.memory_exclusive ^= bit;
                locks.memory_exclusive[slot] = wanted;
            }
        }
        ffi::SQLITE_OK
    }

    fn give_back_memory(&mut self) {
        self.lock_memory(0, 8, ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED);
        self.lock_memory(0, 8, ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE);
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    handle(file).lock(wanted)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    handle(file).unlock(wanted);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, result: *mut c_int) -> c_int {
    // SAFETY: SQLite wants the result there.
    unsafe { *result = handle(file).inode.borrow().locks.reserved.into() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// As SQLite's own VFS claims of every file system: a write changes nothing beside it.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn memory_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    _: c_int,
    extend: c_int,
    result: *mut *mut c_void,
) -> c_int {
    let handle = handle(file);
    let regions = &mut handle.inode.borrow_mut().shared_memory;
    let region = usize::try_from(region).unwrap();
    while extend != 0 && regions.len() <= region {
        regions.push(Box::new([0; 4096]));
    }
    let found = regions.get_mut(region).map_or(ptr::null_mut(), |found| found.as_mut_ptr().cast());
    // SAFETY: SQLite wants the result there.
    unsafe { *result = found };
    ffi::SQLITE_OK
}

unsafe extern "C" fn memory_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    handle(file).lock_memory(usize::try_from(first).unwrap(), usize::try_from(count).unwrap(), flags)
}

unsafe extern "C" fn memory_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn memory_unmap(file: *mut ffi::sqlite3_file, remove: c_int) -> c_int {
    let handle = handle(file);
    handle.give_back_memory();
    if remove != 0 {
        handle.inode.borrow_mut().shared_memory.clear();
    }
    ffi::SQLITE_OK
}
