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
    /// Events were dropped. No index was given out since that would show it, or it may have been an other end's
    /// that got a new one where it moved.
    MayBeUnseen,
}

/// What was seen since events were dropped.
#[derive(Debug, Default)]
struct SinceOverrun {
    /// Indexes of interfaces.
    new: BTreeSet<u32>,
    /// Those that their other ends, which are elsewhere now, had here if they were made here: they come first.
    other_ends: BTreeSet<u32>,
}

/// Notices indexes that interfaces had which nobody saw. The kernel gives them out in order.
#[derive(Debug, Default)]
pub(super) struct IndexWatch {
    highest: u32,
    /// Whether events were dropped since an index was last given out, and what was seen since.
    since_overrun: Option<SinceOverrun>,
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
        let mut since = self.since_overrun.take();
        for interface in seen {
            last = last.max(interface.index);
            if let Some(since) = &mut since {
                // Its other end may have got an index here before it moved away.
                let other_end = interface.peer.filter(|_| interface.peer_is_elsewhere);
                since.new.extend([interface.index].into_iter().chain(other_end));
                since.other_ends.extend(other_end.and(interface.index.checked_sub(1)));
            }
        }
        let Some(since) = since.filter(|_| self.highest != 0) else {
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
            self.since_overrun = Some(since);
            return Doubt::No;
        }
        let first = std::mem::replace(&mut self.highest, last);
        let SinceOverrun { new, other_ends } = since;
        let unseen = || (first + 1..=last).filter(|index| !new.contains(index));
        match unseen().count() {
            0 => Doubt::No,
            _ if unseen().all(|index| other_ends.contains(&index)) => Doubt::MayBeUnseen,
            _ => Doubt::Unseen,
        }
    }
}
