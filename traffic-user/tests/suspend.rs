//! `contrib/quota/suspend.sh` with platforms that are not there: programs that refuse what the real ones
//! refuse.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// `pct` and `qm` of Proxmox VE: an unknown id has status 2, and what is done already 255.
const PCT: &str = r#"
[ "$2" = 101 ] || { echo "Configuration file 'nodes/pve/lxc/$2.conf' does not exist" >&2; exit 2; }
case $1 in
status) [ $# = 2 ] || exit 255; echo "status: $(cat $D/state)" ;;
start) [ "$(cat $D/state)" = stopped ] || { echo "CT 101 already running" >&2; exit 255; }; echo running >$D/state ;;
shutdown)
    [ "$(cat $D/state)" = running ] || { echo "CT 101 not running" >&2; exit 255; }
    [ "$*" = "shutdown 101 --forceStop 1 --timeout 60" ] || { echo "Unknown option" >&2; exit 255; }
    echo stopped >$D/state ;;
*) echo "ERROR: unknown command 'pct $1'" >&2; exit 255 ;;
esac
"#;
/// `prlctl` of Virtuozzo.
const PRLCTL: &str = r#"
case $* in
"list -H -o status 101") cat $D/state ;;
"list "*) echo "Failed to get VM config: The virtual machine could not be found." >&2; exit 255 ;;
"start 101") [ "$(cat $D/state)" = stopped ] || { echo "Failed to start the CT" >&2; exit 1; }; echo running >$D/state ;;
"stop 101") [ "$(cat $D/state)" = running ] || { echo "Failed to stop the CT" >&2; exit 1; }; echo stopped >$D/state ;;
*) echo "Unrecognized option" >&2; exit 3 ;;
esac
"#;
/// `virsh` of libvirt. A guest needs a while to shut down.
const VIRSH: &str = r#"
[ "$1" = -q ] || exit 1
case "$2 $3" in
"domstate 101") cat $D/state; [ ! -e $D/going ] || { echo "shut off" >$D/state; rm $D/going; } ;;
"start 101") [ "$(cat $D/state)" = "shut off" ] || { echo "error: Domain is already active" >&2; exit 1; }; echo running >$D/state ;;
"shutdown 101")
    [ "$(cat $D/state)" = running ] || { echo "error: Requested operation is not valid: domain is not running" >&2; exit 1; }
    [ "$4 $5" = "--mode acpi" ] || exit 1
    : >$D/going ;;
*) echo "error: failed to get domain '$3'" >&2; exit 1 ;;
esac
"#;

/// A node with one platform.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new(program: &str, text: &str, state: &str) -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        let path = host.path("bin").join(program);
        fs::create_dir(host.path("bin")).unwrap();
        let directory = host.directory.path().display();
        fs::write(&path, format!("#!/bin/sh\nD={directory}\necho \"$*\" >>$D/calls\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        host.set(state);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set(&self, state: &str) {
        fs::write(self.path("state"), format!("{state}\n")).unwrap();
    }

    fn state(&self) -> String {
        fs::read_to_string(self.path("state")).unwrap().trim().to_owned()
    }

    fn suspend(&self, container: &str, argument: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/quota/suspend.sh");
        Command::new("/bin/sh")
            .arg(script)
            .arg(argument)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("TRAFCTL_CONTAINER", container)
            .env("TRAFCTL_SUSPENDED", self.path("suspended"))
            .output()
            .unwrap()
    }

    fn succeeds(&self, argument: &str) {
        let output = self.suspend("101", argument);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn fails(&self, container: &str, argument: &str, why: &str) {
        let output = self.suspend(container, argument);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(why), "{text}");
    }
}

fn platforms() -> [(&'static str, &'static str, &'static str); 4] {
    [
        ("pct", PCT, "stopped"),
        ("qm", PCT, "stopped"),
        ("prlctl", PRLCTL, "stopped"),
        ("virsh", VIRSH, "shut off"),
    ]
}

#[test]
fn what_runs_is_stopped_and_started_again_however_often_it_is_called() {
    for (program, text, stopped) in platforms() {
        let host = Host::new(program, text, "running");
        host.succeeds("off");
        assert!(!host.path("calls").exists(), "{program}: nothing was suspended");
        host.succeeds("on");
        assert_eq!(host.state(), stopped, "{program}");
        host.succeeds("on");
        host.succeeds("off");
        assert_eq!(host.state(), "running", "{program}");
        host.succeeds("off");
        assert_eq!(host.state(), "running", "{program}");
        // Its owner stops it: that is nobody else's business.
        host.set(stopped);
        host.succeeds("on");
        host.succeeds("off");
        assert_eq!(host.state(), stopped, "{program}");
    }
}

#[test]
fn what_cannot_be_done_fails_with_the_reason() {
    for (program, text, _) in platforms() {
        let host = Host::new(program, text, "running");
        host.fails("102", "on", "no platform here knows 102");
        for bad in ["", "-x", "101;reboot", "101 102", "$(reboot)", "../101"] {
            host.fails(bad, "on", "no id that a platform knows");
        }
        host.fails("101", "pause", "usage: suspend.sh on|off");
        assert_eq!(host.state(), "running");
        host.set("paused");
        host.fails("101", "on", "neither running nor stopped");
        // A platform that fails is tried again.
        host.set("running");
        let broken = host.path("bin").join(program);
        let whole = fs::read_to_string(&broken).unwrap();
        let verb = "case $* in *shutdown*|*stop\\ 101*) echo 'the lock is taken' >&2; exit 1 ;; esac\n";
        fs::write(&broken, whole.replacen("echo", &format!("{verb}echo"), 1)).unwrap();
        host.fails("101", "on", "the lock is taken");
        assert_eq!(host.state(), "running");
        fs::write(&broken, whole).unwrap();
        host.succeeds("on");
        host.succeeds("off");
        assert_eq!(host.state(), "running");
    }
}
