//! Expedited grace periods while hooks are changed: `/sys/kernel/rcu_expedited`.
//!
//! The kernel returns from creating or detaching a TCX link only after a grace period of RCU, 10 to 30 ms each.
//! So a thousand interfaces take half a minute. With this switch on, a grace period takes some 0.1 ms: the
//! kernel interrupts all CPUs instead of waiting for them.
//!
//! The switch is the machine's. It is set only under the change lock and for one batch, and only if nobody has
//! set it. A directory beside the lock notes that it must be restored. Whoever acquires the lock and finds the
//! note knows that its author was killed, and restores the switch. `[attach] expedite = false` turns all of
//! this off.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

/// The switch of the kernel. Any value but 0 expedites grace periods.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The process's own state of the switch, for an exit in the middle of a change.
static OF_PROCESS: Mutex<OfProcess> = Mutex::new(OfProcess { set: None, is_ending: false });

#[derive(Debug)]
struct OfProcess {
    set: Option<Switch>,
    is_ending: bool,
}

/// The kernel's switch and the note that it must be restored.
#[derive(Clone, Debug)]
struct Switch {
    value: PathBuf,
    note: PathBuf,
}

/// Expedites grace periods from [`Self::begin`] until it is dropped. Only for a holder of the change lock.
#[derive(Debug)]
pub struct Expedite {
    /// `None` where expediting is turned off.
    switch: Option<Switch>,
    /// Whether there is nothing left to try.
    has_begun: Cell<bool>,
}

impl Expedite {
    /// Never expedites.
    pub const fn off() -> Self {
        Self { switch: None, has_begun: Cell::new(false) }
    }

    /// May expedite. `note` is a path that only a holder of the change lock uses.
    pub fn with_note(note: PathBuf) -> Self {
        let switch = Switch { value: SWITCH.into(), note };
        Self { switch: Some(switch), has_begun: Cell::new(false) }
    }

    /// Expedites grace periods from here on, if that is allowed and possible. Otherwise only time is lost. To be
    /// called before each wait.
    pub fn begin(&self) {
        let Some(switch) = &self.switch else { return };
        if self.has_begun.get() {
            return;
        }
        let mut process = of_process();
        if process.is_ending {
            return;
        }
        match switch.set() {
            Ok(true) => {
                process.set = Some(switch.clone());
                self.has_begun.set(true);
            }
            // Somebody else has set it. That may end at any moment.
            Ok(false) => {}
            Err(error) => {
                self.has_begun.set(true);
                static ONCE: Once = Once::new();
                ONCE.call_once(|| {
                    tracing::debug!("cannot expedite attaching with {}: {error}", switch.value.display());
                });
            }
        }
    }
}

impl Drop for Expedite {
    fn drop(&mut self) {
        if self.has_begun.get() {
            end(of_process());
        }
    }
}

/// Restores the switch before the process exits, whatever its threads do.
pub fn end_of_process() {
    let mut process = of_process();
    process.is_ending = true;
    end(process);
}

/// Restores the switch if a process was killed that had set it. The caller holds the change lock.
pub(super) fn restore_after_kill(note: &Path) {
    if !fs::symlink_metadata(note).is_ok_and(|note| note.is_dir()) {
        return;
    }
    let switch = Switch { value: SWITCH.into(), note: note.to_owned() };
    match switch.restore() {
        Ok(()) => tracing::info!("restored {SWITCH}, which a trafctl that was killed had set"),
        Err(error) => tracing::warn!(
            "cannot restore {SWITCH}, which a trafctl that was killed had set: {error}; write 0 to it"
        ),
    }
}

fn end(mut process: MutexGuard<'_, OfProcess>) {
    let Some(switch) = process.set.take() else { return };
    if let Err(error) = switch.restore() {
        tracing::warn!("cannot restore {}: {error}; write 0 to it", switch.value.display());
    }
}

fn of_process() -> MutexGuard<'static, OfProcess> {
    OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switch {
    /// Sets the switch; returns whether that is to be undone.
    fn set(&self) -> io::Result<bool> {
        if self.read()? != "0" {
            return Ok(false);
        }
        // First, so that no kill leaves the switch set without it.
        match fs::create_dir(&self.note) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let set = fs::write(&self.value, "1");
        if set.is_err() {
            fs::remove_dir(&self.note)?;
        }
        set.map(|()| true)
    }

    /// Resets the switch, unless somebody else has changed it, and removes the note.
    fn restore(&self) -> io::Result<()> {
        if self.read()? == "1" {
            fs::write(&self.value, "0")?;
        }
        fs::remove_dir(&self.note)
    }

    fn read(&self) -> io::Result<String> {
        Ok(fs::read_to_string(&self.value)?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _directory: tempfile::TempDir,
        switch: Switch,
    }

    fn place(value: &str) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let switch = Switch { value: directory.path().join("value"), note: directory.path().join("note") };
        fs::write(&switch.value, value).unwrap();
        Place { _directory: directory, switch }
    }

    #[test]
    fn the_switch_is_set_and_restored() {
        let place = place("0\n");
        assert!(place.switch.set().unwrap());
        assert_eq!(place.switch.read().unwrap(), "1");
        assert!(place.switch.note.is_dir());
        place.switch.restore().unwrap();
        assert_eq!(place.switch.read().unwrap(), "0");
        assert!(!place.switch.note.exists());
    }

    #[test]
    fn an_administrators_setting_stays() {
        for value in ["1", "2"] {
            let place = place(value);
            assert!(!place.switch.set().unwrap());
            assert_eq!(place.switch.read().unwrap(), value);
            assert!(!place.switch.note.exists());
        }
        // Set by somebody else while it was ours.
        let place = place("0");
        assert!(place.switch.set().unwrap());
        fs::write(&place.switch.value, "5\n").unwrap();
        place.switch.restore().unwrap();
        assert_eq!(place.switch.read().unwrap(), "5");
        assert!(!place.switch.note.exists());
    }

    #[test]
    fn a_kill_between_any_two_steps_is_repaired() {
        for (value, has_note) in [("0", true), ("1", true)] {
            let place = place(value);
            if has_note {
                fs::create_dir(&place.switch.note).unwrap();
            }
            place.switch.restore().unwrap();
            assert_eq!(place.switch.read().unwrap(), "0");
            assert!(!place.switch.note.exists());
        }
    }

    #[test]
    fn a_switch_that_cannot_be_written_leaves_no_note() {
        let mut place = place("0");
        place.switch.value = "/proc/self/loginuid/missing".into();
        assert!(place.switch.set().is_err());
        assert!(!place.switch.note.exists());
    }
}
