//! Indexes that were given out although nobody saw an interface with them: it came and went while the kernel
//! dropped events. No sockets, no threads.

use std::collections::BTreeSet;

use crate::net::interface::NetInterface;

/// Where interfaces were seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// In all events since the last ones.
    Events,
    /// In events beside which others were dropped.
    IncompleteEvents,
    /// In a listing of all.
    Listing,
}

/// Whether an interface came and went that nobody saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None did, or that is still to be seen.
    No,
    /// One did.
    Unseen,
    /// Events were dropped, and no index was given out since that would show it.
    MayBeUnseen,
}

/// Notices indexes that interfaces had which nobody saw. The kernel gives them out in order.
#[derive(Debug, Default)]
pub(super) struct IndexWatch {
    highest: u32,
    /// Whether events were dropped since an index was last given out, and what was seen since.
    since_overrun: Option<BTreeSet<u32>>,
}

impl IndexWatch {
    /// Notes that events were dropped.
    pub fn overrun(&mut self) {
        self.since_overrun.get_or_insert_default();
    }

    /// Takes over interfaces that were seen. Returns whether one between them was not. The
    /// first listing after an overrun settles it: on a quiet node the next index may never come.
    pub fn see<'i>(&mut self, seen: impl Iterator<Item = &'i NetInterface>, place: Seen) -> Doubt {
        let (all, listing) = match place {
            Seen::IncompleteEvents => (false, false),
            Seen::Events => (true, false),
            Seen::Listing => (true, true),
        };
        let mut last = self.highest;
        let mut new = self.since_overrun.take();
        for interface in seen {
            last = last.max(interface.index);
            if let Some(new) = &mut new {
                // Its other end may have got an index here before it moved away.
                let other_end = interface.peer.filter(|_| interface.peer_is_elsewhere);
                new.extend([interface.index].into_iter().chain(other_end));
            }
        }
        let Some(new) = new.filter(|_| self.highest != 0) else {
            // A listing may be ahead of the events, and these may turn out to be incomplete.
            if !listing || self.highest == 0 {
                self.highest = last;
            }
            return Doubt::No;
        };
        if listing && last == self.highest {
            return Doubt::MayBeUnseen;
        }
        if !all || last == self.highest {
            self.since_overrun = Some(new);
            return Doubt::No;
        }
        let first = std::mem::replace(&mut self.highest, last);
        let all_seen = new.range(first + 1..=last).count() == (last - first) as usize;
        if all_seen { Doubt::No } else { Doubt::Unseen }
    }
}
