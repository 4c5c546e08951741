//! What passed an interface unseen: the kernel's statistics and our counters, compared when the hooks are put on and while they
//! hang.

use crate::{
    kernel::{
        maps::Maps,
        registry::{CountedSoFar, Reading, Registry},
    },
    net::{interface::NetInterface, netlink::Netlink},
    node::Session,
};

/// How often kernel and counters are compared after an attach before the closest comparison is taken. A pause of a
/// tenth of a millisecond is enough for one that is exact.
const SETTLE_READINGS: usize = 100;
/// The same while the program hangs, which comes again with every listing of all interfaces.
const COMPARE_READINGS: usize = 3;

/// Writes down what passed between the reading before the hooks and the moment they hung.
///
/// From that moment on the kernel's statistics and our counters grow alike, so any later reading of both tells how
/// much it was, if only no packet passes between the two halves of it: two readings that are equal are such a one.
/// Under traffic without a pause the closest of them has to do.
pub(super) async fn settle(
    netlink: &Netlink,
    Session { loaded, registry, .. }: &mut Session,
    slot: u32,
    ifindex: u32,
    counted_so_far: CountedSoFar,
) -> anyhow::Result<()> {
    match closest_reading(netlink, &loaded.maps, registry, (slot, ifindex), SETTLE_READINGS).await? {
        Some(reading) => registry.note_settled(&mut loaded.maps, slot, &reading, counted_so_far),
        None => Ok(()),
    }
}

/// Of so many readings of kernel and counters the one between whose halves the fewest packets passed; `None` when the
/// interface is gone.
async fn closest_reading(
    netlink: &Netlink,
    maps: &Maps,
    registry: &Registry,
    (slot, ifindex): (u32, u32),
    readings: usize,
) -> anyhow::Result<Option<Reading>> {
    let mut counted = registry.counted(maps, slot)?;
    let mut last = None;
    let mut closest: Option<Reading> = None;
    for _ in 0..readings {
        let Some(interface) = netlink.interface(ifindex).await? else { break };
        let after = registry.counted(maps, slot)?;
        let reading = Reading { counted_earlier: counted, kernel: interface.statistics, counted: after };
        if closest.as_ref().is_none_or(|closest| reading.spread() <= closest.spread()) {
            closest = Some(reading);
        }
        if last == Some((interface.statistics, after)) {
            break;
        }
        last = Some((interface.statistics, after));
        counted = after;
    }
    Ok(closest)
}

/// A device that can't segment counts the pieces of what we saw whole, so that the kernel's statistics run away from
/// ours. Left alone, all of that would look like something missed when the program is next put on. So while it hangs
/// there, the two are compared anew from here, as long as pieces explain what is between them.
pub(super) async fn compare_anew(
    netlink: &Netlink,
    maps: &mut Maps,
    registry: &mut Registry,
    slot: u32,
    interface: &NetInterface,
) -> anyhow::Result<()> {
    // The kernel's half is from before ours: that it is ahead is no matter of what passed in between.
    if !registry.is_behind(slot, &interface.statistics, &registry.counted(maps, slot)?) {
        return Ok(());
    }
    let place = (slot, interface.index);
    match closest_reading(netlink, maps, registry, place, COMPARE_READINGS).await? {
        Some(reading) => registry.note_pieces(maps, slot, &reading),
        None => Ok(()),
    }
}
