//! Opens and reads files that others put there: the configuration, class files, container files, state files.
//!
//! A path may lead to a FIFO, a device, a file that never ends, or one of a terabyte. Reading it must neither
//! wait nor use up memory, so every read goes through here. A symbolic link to a regular file is accepted.
//! Writing is in [`crate::state_file`].

use std::{
    fs::{self, File, FileType},
    io::{self, Read},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Largest configuration file, in bytes. 10,000 `[[container]]` tables need 2 MiB.
pub const MOST_CONFIG_BYTES: u64 = 16 << 20;
/// Largest class file, in bytes. A million long IPv6 prefixes need 45 MiB.
pub const MOST_CLASS_FILE_BYTES: u64 = 64 << 20;
/// Largest list that is converted to a class file, in bytes: the routes of one router as text.
pub const MOST_LIST_BYTES: u64 = 1 << 30;
/// Largest container file of Virtuozzo, in bytes. Usual ones have 2 KiB.
pub const MOST_CONTAINER_FILE_BYTES: u64 = 1 << 20;
/// Largest output of another accounting, in bytes: 40,000 containers with 16 classes.
pub const MOST_COMPARE_BYTES: u64 = 64 << 20;

/// Reads a regular file of at most `most_bytes`.
///
/// # Errors
/// When the file is something else or larger, and when it cannot be read.
pub fn read(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    if len > most_bytes {
        return Err(too_large(most_bytes));
    }
    read_bounded(file, most_bytes)
}

/// As [`read`], for text in UTF-8. A byte order mark at the beginning is removed.
///
/// # Errors
/// As [`read`], and when the file is not UTF-8.
pub fn read_text(path: &Path, most_bytes: u64) -> io::Result<String> {
    text(read(path, most_bytes)?)
}

/// Reads a stream, such as standard input, that must end within `most_bytes`.
///
/// # Errors
/// When there is more, and when it cannot be read.
pub fn read_bounded(stream: impl Read, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A file may grow while it is read.
    stream.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes { Err(too_large(most_bytes)) } else { Ok(bytes) }
}

/// Bytes as text in UTF-8 without a byte order mark.
///
/// # Errors
/// When they are not UTF-8.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let what = format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Removes the byte order mark that some editors put before a text.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Opens a regular file for reading, without waiting for anything.
///
/// # Errors
/// When the path leads to something else, and when the file cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a device can have an effect.
    require_regular(&fs::metadata(path)?.file_type())?;
    // Without O_NONBLOCK, a FIFO that took the file's place would wait for a writer, a lease for its holder,
    // and some files of /proc for data.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    require_regular(&file.metadata()?.file_type())?;
    Ok(file)
}

/// Refuses everything but a regular file.
///
/// # Errors
/// When the type is another one; the message names it.
pub fn require_regular(kind: &FileType) -> io::Result<()> {
    let name = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "FIFO",
        kind if kind.is_socket() => "socket",
        kind if kind.is_block_device() || kind.is_char_device() => "device",
        _ => "special file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {name}; put a regular file there")))
}

fn too_large(most_bytes: u64) -> io::Error {
    let most = traffic_model::units::format_bytes(most_bytes, true);
    let why = format!("it is larger than {most}, the most that is read; put the right file there");
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        ffi::CString,
        io::Write as _,
        os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
        path::PathBuf,
        sync::mpsc,
        thread,
        time::Duration,
    };

    use super::*;

    pub fn make_fifo(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a string that ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    /// Everything that can stand in a file's place, with a part of the message that it must cause. All but
    /// the last can be made without root.
    pub fn odd_files(directory: &Path) -> Vec<(PathBuf, &'static str)> {
        let at = |name: &str| directory.join(name);
        make_fifo(&at("fifo"));
        symlink(at("fifo"), at("link-to-fifo")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        drop(UnixListener::bind(at("socket")).unwrap());
        symlink(at("loop"), at("loop")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        vec![
            (at("fifo"), "it is a FIFO; put a regular file there"),
            (at("link-to-fifo"), "it is a FIFO"),
            (at("directory"), "it is a directory"),
            (at("socket"), "it is a socket"),
            (at("loop"), "oo many levels of symbolic links"),
            (at("dangling"), "No such file"),
            (at("sparse"), "it is larger than "),
            ("/dev/zero".into(), "it is a device"),
            ("/dev/null".into(), "it is a device"),
        ]
    }

    /// Runs a call on another thread and fails if it does not return soon.
    pub fn at_once<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(call()));
        receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what} does not return"))
    }

    #[test]
    fn only_a_regular_file_of_sane_size_is_read_and_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        for (path, reason) in odd_files(directory.path()) {
            let what = path.display().to_string();
            let error = at_once(&what, move || read(&path, 1 << 20)).unwrap_err().to_string();
            assert!(error.contains(reason), "{what}: {error}");
        }
        let path = directory.path().join("file");
        fs::write(&path, "12345").unwrap();
        symlink(&path, directory.path().join("link")).unwrap();
        assert_eq!(read(&directory.path().join("link"), 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&directory.path().join("absent"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        // The kernel gives the size of these as 0.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        let error = read(Path::new("/proc/self/status"), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let error = at_once("a stream", || read_bounded(io::repeat(7), 1 << 20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "123").unwrap();
        let file = open(&path).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"45678").unwrap();
        assert_eq!(read_bounded(file, 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn text_is_utf_8_with_or_without_a_mark() {
        assert_eq!(text(b"\xef\xbb\xbfa".to_vec()).unwrap(), "a");
        assert_eq!(text(b"a".to_vec()).unwrap(), "a");
        let error = text(b"ab\xe9".to_vec()).unwrap_err().to_string();
        assert_eq!(error, "it is not UTF-8 text (byte 2)");
    }
}
