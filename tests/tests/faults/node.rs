//! The node of these tests: two containers that know each other, and a daemon that drains at the shortest
//! interval.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use aya::maps::{Array, Map, MapData};
pub use traffic_tests::check::booked;
use traffic_tests::container::introduce;
use traffic_tests::{Container, Lab};

/// The containers of [`pair`] are in class 2, everything else in class 1.
pub const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n2 fd00:1::/32\n";

/// A node whose class file is [`CLASSES`], with more configuration.
pub fn node_with(name: &str, more: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!(
        "class_file = \"{}\"\n{more}\n[drain]\ninterval = \"100ms\"\n",
        classes.display()
    ))?;
    Ok(lab)
}

/// A node whose class file is [`CLASSES`].
pub fn node(name: &str) -> Result<Lab> {
    node_with(name, "")
}

/// Containers 101 and 102 on the bridge. They know each other.
pub fn pair(lab: &Lab) -> Result<(Container, Container)> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((a, b))
}

/// An address with port 0, for which the kernel chooses one.
pub fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// Makes the loaded program look like that of another build, by the hash in the pinned `META`.
pub fn as_if_loaded_by_another_build(lab: &Lab) -> Result<()> {
    const META_BYTES: usize = 416;
    const PROGRAM_HASH: std::ops::Range<usize> = 80..112;
    let mut map = Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps/META"))?)?;
    let mut meta = Array::<&mut MapData, [u8; META_BYTES]>::try_from(&mut map)?;
    let mut value = meta.get(&0, 0)?;
    value[PROGRAM_HASH].fill(0);
    Ok(meta.set(0, value, 0)?)
}
