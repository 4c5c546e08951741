//! Rewrites the object file of the kernel program: what no node needs is left out, and nothing in it depends on
//! the directory of the build.
//!
//! The linker writes DWARF into the object, from which it derived the type information. Neither the loader nor
//! the kernel reads it, and it would be half of the object. Its sections become empty; they keep their numbers,
//! by which symbols and relocations refer to sections.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

use super::type_information::{self, Strings};

/// Where the sources seem to be, as in the packages (`xtask/src/package/program.rs`).
const SOURCES: &str = "/usr/src/trafctl";

/// Offsets in the header of a 64-bit ELF file: of the offset of the section headers, of the size of one of them,
/// and of their number.
const SECTION_HEADERS: usize = 0x28;
const SECTION_HEADER_SIZE: usize = 0x3a;
const SECTION_COUNT: usize = 0x3c;
/// The size of this header, where the first section begins.
const HEADER: usize = 0x40;

/// Offsets in a section header: of the section's offset in the file, its size, and its alignment.
const SECTION_OFFSET: usize = 0x18;
const SECTION_SIZE: usize = 0x20;
const SECTION_ALIGNMENT: usize = 0x30;

/// Rewrites the object in place.
///
/// # Errors
/// When the file is not an object of the kernel program, or its type information violates the format.
pub fn rewrite(path: &Path, workspace: &Path) -> Result<()> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let object = object::File::parse(data.as_slice())?;
    ensure!(object.is_64() && object.is_little_endian(), "the object is no 64-bit little-endian file");
    let section = |name: &str| {
        let section = object.section_by_name(name).with_context(|| format!("the object has no {name}"))?;
        Ok::<_, anyhow::Error>((section.index().0, section.data()?.to_vec()))
    };
    let (types_at, types) = section(".BTF")?;
    let (extension_at, mut extension) = section(".BTF.ext")?;
    let strings = Strings::placed(&types, |text| place(text, workspace))?;
    let types = type_information::corrected(&types, &strings)?;
    type_information::correct_extension(&mut extension, &strings)?;

    let mut replaced = vec![(types_at, types), (extension_at, extension)];
    for section in object.sections() {
        let name = section.name()?;
        if name.trim_start_matches(".rel").starts_with(".debug_") {
            replaced.push((section.index().0, Vec::new()));
        }
    }
    let data = with_sections(&data, &replaced)?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// The path of a source file on no machine in particular. None for any other text.
fn place(text: &str, workspace: &Path) -> Option<String> {
    let path = text.starts_with('/').then(|| Path::new(text))?;
    if let Ok(ours) = path.strip_prefix(workspace) {
        return Some(format!("{SOURCES}/{}", ours.display()));
    }
    // A crate below cargo's home, whose next directory is named after the registry.
    if let Some((_, rest)) = text.split_once("/registry/src/") {
        return Some(format!("/usr/src/cargo/{}", rest.split_once('/')?.1));
    }
    // The standard library of a toolchain below rustup's home.
    text.split_once("/lib/rustlib/src/rust/").map(|(_, rest)| format!("/usr/src/rust/{rest}"))
}

/// The file with other contents in some sections, given by their numbers. The sections follow each other in the
/// order of their headers, and the headers come last.
fn with_sections(data: &[u8], replaced: &[(usize, Vec<u8>)]) -> Result<Vec<u8>> {
    let size = usize::from(u16::from_le_bytes(bytes(data, SECTION_HEADER_SIZE)?));
    let count = usize::from(u16::from_le_bytes(bytes(data, SECTION_COUNT)?));
    let headers = long(data, SECTION_HEADERS)?;
    let mut headers =
        data.get(headers..headers + size * count).context("the object has no section headers")?.to_vec();
    let mut file = data.get(..HEADER).context("the object has no header")?.to_vec();
    for index in 1..count {
        let header = &mut headers[index * size..(index + 1) * size];
        let (start, length) = (long(header, SECTION_OFFSET)?, long(header, SECTION_SIZE)?);
        let contents = match replaced.iter().find(|(replaced, _)| *replaced == index) {
            Some((_, contents)) => contents,
            None => data.get(start..start + length).context("a section ends behind the object")?,
        };
        file.resize(file.len().next_multiple_of(long(header, SECTION_ALIGNMENT)?.max(1)), 0);
        put(header, SECTION_OFFSET, file.len());
        put(header, SECTION_SIZE, contents.len());
        file.extend_from_slice(contents);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let at = file.len();
    put(&mut file, SECTION_HEADERS, at);
    file.append(&mut headers);
    Ok(file)
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = data.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    bytes.context("the object is truncated")
}

fn long(data: &[u8], at: usize) -> Result<usize> {
    Ok(usize::try_from(u64::from_le_bytes(bytes(data, at)?))?)
}

fn put(data: &mut [u8], at: usize, value: usize) {
    data[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}
