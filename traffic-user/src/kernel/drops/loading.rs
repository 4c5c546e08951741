//! When the drop program is loaded, and the order of the steps.
//!
//! The verifier takes up to a second for the program, and minutes on an emulated machine. So only the daemon loads
//! it, on a thread that nothing waits for, and without the change lock. Whatever happens meanwhile (a purge,
//! `[drops] enabled = false`, other maps) is found under the lock afterwards, and the loaded program is given up.
//!
//! Each program has a number, and only the one whose number is in `DROP_CONTROL` counts. So a new program is
//! attached beside the old one, one word is written, and the old one is detached: no drop is lost, and none counts
//! twice. A new one is needed after an upgrade, and when counters moved to other maps, which the old one does not
//! read. At each failure, what counted before still counts.

use super::DropState;

/// What came of an attempt to have drops counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A program counts them.
    Counting,
    /// The verifier refused this build's program, now or earlier, for this reason. It is not tried again before an
    /// upgrade, a reboot, `detach --purge`, or `[drops] enabled = false`.
    Refused(String),
    /// There are no counters, or they changed during the load. To be tried again.
    Overtaken,
}

/// The verifier does not accept the program, and will not later.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the drop program: {0}")]
pub(super) struct Refused(pub String);

/// What [`ensure`] does to the kernel and the pins. Whatever takes a lock changes pins.
pub(super) trait Steps {
    /// The change lock.
    type Lock;
    /// What the program must know of the kernel.
    type Facts;
    /// A program before the verifier has seen it.
    type Prepared;
    /// A program that the verifier has accepted.
    type Verified;

    /// What names this build's program.
    fn program(&self) -> u64;
    /// The id of the counters' map `META`; `None` if there are no counters.
    fn counters(&self) -> anyhow::Result<Option<u32>>;
    /// Whether drops are counted.
    fn state(&self) -> anyhow::Result<DropState>;
    /// Why the verifier refused this build's program, as recorded.
    fn refusal(&self) -> Option<String>;
    /// The numbers of all programs that are attached.
    fn attached(&self) -> anyhow::Result<Vec<u32>>;
    /// Whether counters and program are those that this program was prepared for.
    fn is_current(&self, verified: &Self::Verified) -> anyhow::Result<bool>;

    /// Acquires the change lock.
    fn lock(&self) -> anyhow::Result<Self::Lock>;
    /// Reads the kernel's types. Takes long.
    fn facts(&self) -> anyhow::Result<Self::Facts>;
    /// Whether the kernel lets a program ask for the names of its functions.
    fn has_places(facts: &Self::Facts) -> bool;
    /// Removes the maps and programs of another version.
    fn remove(&mut self, lock: &Self::Lock) -> anyhow::Result<()>;
    /// Creates or opens the maps.
    fn prepare(
        &mut self,
        lock: &Self::Lock,
        facts: &mut Self::Facts,
        has_places: bool,
    ) -> anyhow::Result<Self::Prepared>;
    /// Has the program verified. Takes long. The error is a [`Refused`] only if the verifier does not accept it.
    fn verify(&mut self, prepared: Self::Prepared) -> anyhow::Result<Self::Verified>;
    /// Attaches the program, which does not count yet. Returns its number.
    fn attach(&mut self, lock: &Self::Lock, verified: &mut Self::Verified) -> anyhow::Result<u32>;
    /// Has this program count, and no other.
    fn activate(&mut self, lock: &Self::Lock, verified: &Self::Verified) -> anyhow::Result<()>;
    /// Detaches the program with this number.
    fn detach(&mut self, lock: &Self::Lock, number: u32) -> anyhow::Result<()>;
    /// Has the daemon hold the new pins open, to pin them again when they are hidden. Else another program would be
    /// loaded beside the one out of sight, and what both count would not continue. A failure is logged: the next
    /// pass holds them.
    fn hold(&mut self, lock: &Self::Lock);
    /// Records a failure for `status`, and whether it is a refusal of this build's program.
    fn record(&mut self, lock: &Self::Lock, reason: &str, is_refusal: bool) -> anyhow::Result<()>;
    /// Removes that record.
    fn forget(&mut self, lock: &Self::Lock) -> anyhow::Result<()>;
}

/// Makes sure that drops are counted, which may take long. `replaces` says whether a program of another version is
/// to be replaced: a process that runs for long does so only at its start, and does not undo a later upgrade.
///
/// # Errors
/// When something failed that may work later. It is recorded for `status`.
pub(super) fn ensure<S: Steps>(steps: &mut S, replaces: bool) -> anyhow::Result<Outcome> {
    let result = attempt(steps, replaces);
    if let Err(error) = &result {
        let refusal = error.downcast_ref::<Refused>();
        let recorded =
            steps.lock().and_then(|lock| steps.record(&lock, &format!("{error:#}"), refusal.is_some()));
        if let Err(error) = recorded {
            tracing::debug!("cannot record why drops are not counted: {error:#}");
        }
        if let Some(Refused(reason)) = refusal {
            return Ok(Outcome::Refused(reason.clone()));
        }
    }
    result
}

fn attempt<S: Steps>(steps: &mut S, replaces: bool) -> anyhow::Result<Outcome> {
    if let Some(settled) = settled(steps, replaces)? {
        if settled == Outcome::Counting && steps.attached()?.len() > 1 {
            let lock = steps.lock()?;
            detach_others(steps, &lock)?;
        }
        return Ok(settled);
    }
    let mut facts = steps.facts()?;
    let mut refused = None;
    for has_places in [true, false] {
        if has_places && !S::has_places(&facts) {
            continue;
        }
        let prepared = {
            let lock = steps.lock()?;
            // Others may have been faster.
            if let Some(settled) = settled(steps, replaces)? {
                return Ok(settled);
            }
            if matches!(steps.state()?, DropState::OtherVersion(_)) {
                steps.remove(&lock)?;
            }
            steps.prepare(&lock, &mut facts, has_places)?
        };
        match steps.verify(prepared) {
            Ok(verified) => return take_over(steps, verified),
            // Perhaps without the helper that names places.
            Err(error) if error.is::<Refused>() => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| anyhow::anyhow!("no form of the drop program was tried")))
}

/// The outcome if nothing is to be loaded. Takes no lock.
fn settled<S: Steps>(steps: &S, replaces: bool) -> anyhow::Result<Option<Outcome>> {
    let Some(counters) = steps.counters()? else { return Ok(Some(Outcome::Overtaken)) };
    let counts = match steps.state()? {
        DropState::Counting(control) => {
            control.meta_map_id == counters && (control.program == steps.program() || !replaces)
        }
        DropState::OtherVersion(_) => !replaces,
        DropState::Refused(_) | DropState::Off => false,
    };
    if counts {
        return Ok(Some(Outcome::Counting));
    }
    Ok(steps.refusal().map(Outcome::Refused))
}

fn take_over<S: Steps>(steps: &mut S, mut verified: S::Verified) -> anyhow::Result<Outcome> {
    let lock = steps.lock()?;
    if !steps.is_current(&verified)? {
        return Ok(Outcome::Overtaken);
    }
    let number = steps.attach(&lock, &mut verified)?;
    if let Err(error) = steps.activate(&lock, &verified) {
        // It does nothing, and what counted before still counts.
        steps.detach(&lock, number)?;
        return Err(error);
    }
    detach_others(steps, &lock)?;
    steps.hold(&lock);
    steps.forget(&lock)?;
    Ok(Outcome::Counting)
}

/// Detaches all programs but the one that counts.
fn detach_others<S: Steps>(steps: &mut S, lock: &S::Lock) -> anyhow::Result<()> {
    if let DropState::Counting(control) = steps.state()? {
        for number in steps.attached()? {
            if number != control.active {
                steps.detach(lock, number)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
