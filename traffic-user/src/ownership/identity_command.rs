//! The configured command that says whose interface is whose, for hosts where neither a name nor a file does.
//!
//! It prints a line for each interface: `INTERFACE ID`, or `MAC ID` with the hardware address inside the container or on
//! the host. Blank lines and what follows a `#` are skipped. It runs beside everything else, never before an answer is
//! needed, and no packet waits for it.

use std::{collections::HashMap, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncReadExt as _, process::Command, task::JoinHandle, time};
use traffic_model::{ContainerId, notation::parse_mac};

use crate::{
    config::IdentityCommand,
    net::{interface::NetInterface, netlink::Netlink},
};

/// Most bytes that are read of what a command prints: 100,000 interfaces with UUIDs take less.
const MOST_OUTPUT: u64 = 8 << 20;

/// What a command answered.
///
/// An answer for a name holds for the interface that had the name before and after the command ran, and for no other:
/// names such as `vnet3` go from one machine to the next.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    by_interface: HashMap<(String, u32), ContainerId>,
    by_mac: HashMap<[u8; 6], ContainerId>,
    complaints: Vec<String>,
}

impl Answers {
    /// Reads what a command printed; `before` and `after` are the indexes of interfaces by name around its run.
    pub fn parse(text: &str, before: &HashMap<String, u32>, after: &HashMap<String, u32>) -> Self {
        let mut answers = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(interface), Some(id), None) = (words.next(), words.next(), words.next()) else {
                answers.complain(at, "it is not `INTERFACE ID` or `MAC ID`");
                continue;
            };
            match ContainerId::of_container(id) {
                Err(error) => answers.complain(at, &error.to_string()),
                Ok(id) => match (parse_mac(interface), before.get(interface), after.get(interface)) {
                    // A name that looks like an address is a name where an interface has it.
                    (_, Some(index), Some(still)) if index == still => {
                        answers.by_interface.insert((interface.to_owned(), *index), id);
                    }
                    (Some(mac), _, _) => {
                        answers.by_mac.insert(mac, id);
                    }
                    // It came or went meanwhile: the next run tells.
                    _ => {}
                },
            }
        }
        answers
    }

    fn complain(&mut self, at: usize, what: &str) {
        self.complaints.push(format!("line {} of what it printed is left out: {what}", at + 1));
    }

    /// What could not be used.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Whose interface it is.
    pub fn of_interface(&self, name: &str, index: u32) -> Option<&ContainerId> {
        self.by_interface.get(&(name.to_owned(), index))
    }

    /// Whose hardware addresses are whose.
    pub fn by_mac(&self) -> &HashMap<[u8; 6], ContainerId> {
        &self.by_mac
    }
}

/// Runs the command between two listings of the interfaces.
///
/// # Errors
/// As [`run`], and when the interfaces can't be listed.
pub async fn ask(command: &IdentityCommand, netlink: &Netlink) -> anyhow::Result<Answers> {
    let before = indexes(&netlink.interfaces().await?);
    let text = run(command).await?;
    Ok(Answers::parse(&text, &before, &indexes(&netlink.interfaces().await?)))
}

/// The command as a long-running process asks it: one at a time, in the background.
#[derive(Debug, Default)]
pub struct Asking {
    running: Option<JoinHandle<anyhow::Result<Answers>>>,
    /// Asked for while it ran: what it prints may be of before.
    again: Option<(IdentityCommand, Netlink)>,
    /// The last failure, said once.
    failure: Option<String>,
}

impl Asking {
    /// Starts it, or notes that it has to run once more.
    pub fn start(&mut self, command: &IdentityCommand, netlink: &Netlink) {
        let (command, netlink) = (command.clone(), netlink.clone());
        if self.running.is_some() {
            self.again = Some((command, netlink));
        } else {
            self.running = Some(tokio::spawn(async move { ask(&command, &netlink).await }));
        }
    }

    /// Whether an answer is to be waited for.
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it failed the last time and is not being asked now.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some() && self.running.is_none()
    }

    /// Waits for an answer, for ever where nothing was asked.
    ///
    /// # Errors
    /// As [`ask`].
    pub async fn answer(&mut self) -> anyhow::Result<Answers> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let answer = running.await;
        self.running = None;
        if let Some((command, netlink)) = self.again.take() {
            self.start(&command, &netlink);
        }
        answer.unwrap_or_else(|error| Err(error).context("asking whose interfaces are whose"))
    }

    /// The answers, if there are any; a failure is said when it is another than the last time.
    pub fn outcome(&mut self, answer: anyhow::Result<Answers>) -> Option<Answers> {
        match answer {
            Ok(answers) => {
                if self.failure.take().is_some() {
                    tracing::info!("the command under [identities] answers again");
                }
                Some(answers)
            }
            Err(error) => {
                let failure = format!("{error:#}");
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!("{failure}; it is asked again, and what needs no answer is counted");
                    self.failure = Some(failure);
                }
                None
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

/// Indexes by name.
fn indexes(interfaces: &[NetInterface]) -> HashMap<String, u32> {
    interfaces.iter().map(|interface| (interface.name.clone(), interface.index)).collect()
}

/// Runs the command and gives what it printed.
///
/// # Errors
/// When it can't be started, takes too long, fails, or prints without end. Then all its processes are ended.
pub async fn run(command: &IdentityCommand) -> anyhow::Result<String> {
    let IdentityCommand { words, timeout } = command;
    let program = words.first().context("no command")?;
    let mut child = Command::new(program)
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started can be ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}, which [identities] names"))?;
    let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (printed, said, status) =
            tokio::join!(read(stdout, MOST_OUTPUT), read(stderr, 4096), child.wait());
        anyhow::Ok((printed?, said?, status?))
    };
    let done = time::timeout(*timeout, work).await;
    if !matches!(done, Ok(Ok(_)))
        && let Some(group) = group
        && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!("cannot end {program}: {error}");
    }
    let Ok(done) = done else {
        bail!("{program}, which [identities] names, took longer than {}", seconds(*timeout));
    };
    let (printed, said, status) = done.with_context(|| format!("cannot read what {program} says"))?;
    if !status.success() {
        let said = said.lines().next().unwrap_or("it said nothing").to_owned();
        bail!("{program}, which [identities] names, failed ({status}): {said}");
    }
    if printed.len() as u64 >= MOST_OUTPUT {
        bail!("{program}, which [identities] names, printed more than {} MiB", MOST_OUTPUT >> 20);
    }
    Ok(printed)
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>, most: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(most).read_to_end(&mut bytes).await?;
        // The rest is let go, so that the writer is not held up by a full pipe.
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn seconds(timeout: Duration) -> String {
    format!("{} s", timeout.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str, timeout: Duration) -> IdentityCommand {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).into();
        IdentityCommand { words, timeout }
    }

    fn outcome(script: &str, timeout: Duration) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(run(&command(script, timeout))) {
            Ok(text) => text,
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_command_is_run_and_its_failures_are_named() {
        let long = Duration::from_secs(20);
        assert_eq!(outcome("echo vnet1 a; echo vnet2 b", long), "vnet1 a\nvnet2 b\n");
        let failed = outcome("echo vnet1 a; echo no libvirt here >&2; exit 3", long);
        assert!(failed.ends_with("failed (exit status: 3): no libvirt here"), "{failed}");
        // The grandchild holds the pipe, and goes with the command.
        let late = outcome("sleep 600 & wait", Duration::from_millis(50));
        assert!(late.ends_with("took longer than 0.05 s"), "{late}");
        let none = IdentityCommand { words: vec!["/nonexistent/ids".to_owned()], timeout: long };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = format!("{:#}", runtime.block_on(run(&none)).unwrap_err());
        assert!(error.starts_with("cannot start /nonexistent/ids"), "{error}");
    }

    #[test]
    fn lines_are_read_one_by_one() {
        let known = HashMap::from([("vnet1".to_owned(), 4), ("vnet2".to_owned(), 5)]);
        let later = HashMap::from([("vnet1".to_owned(), 4), ("vnet2".to_owned(), 6)]);
        let text =
            "# name id\n\nvnet1 web # the first\nvnet2 moved\n525400000001 db\nvnet1\nvnet1 a b\nvnet1 0\n";
        let answers = Answers::parse(text, &known, &later);
        assert_eq!(answers.of_interface("vnet1", 4).map(ContainerId::as_str), Some("web"));
        assert_eq!(answers.of_interface("vnet2", 5), None);
        assert_eq!(answers.of_interface("vnet2", 6), None);
        assert_eq!(answers.by_mac().len(), 1);
        let complaints = answers.complaints();
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(
            complaints[0].starts_with("line 6 of what it printed is left out: it is not"),
            "{complaints:?}"
        );
        assert!(complaints[2].contains("the node itself"), "{complaints:?}");
    }
}
