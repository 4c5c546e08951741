//! The command under `[identities]`, which maps interfaces to containers where neither name nor file does.
//!
//! It prints one line for each interface: `INTERFACE ID`, or `MAC ID` with the hardware address inside the
//! container or on the host. Blank lines and text after `#` are ignored. It runs in the background: attaching
//! and counting of other interfaces do not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncReadExt as _, process::Command, task::JoinHandle, time};
use traffic_model::{ContainerId, notation::parse_mac, units::format_duration};

use super::descendants::Family;
use crate::{
    config::IdentityCommand,
    net::{interface::NetInterface, netlink::Netlink},
};

/// Most bytes of the command's output that are read. 100,000 interfaces with UUIDs need less.
const MOST_OUTPUT: u64 = 8 << 20;

/// The command's answers.
///
/// An answer for a name is valid for the interface that had this name before and after the command ran, and
/// for no other: names such as `vnet3` pass from one machine to the next. An interface or address with two
/// different ids has neither: the container is unknown, and a bill must not rest on the order of lines.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    by_interface: HashMap<(String, u32), ContainerId>,
    by_mac: HashMap<[u8; 6], ContainerId>,
    problems: Vec<String>,
}

/// Ids by what they were given for, and what has several.
struct Named<K> {
    ids: HashMap<K, ContainerId>,
    contradicted: BTreeMap<String, BTreeSet<ContainerId>>,
}

impl<K: Eq + Hash> Named<K> {
    fn new() -> Self {
        Self { ids: HashMap::new(), contradicted: BTreeMap::new() }
    }

    fn add(&mut self, key: K, word: &str, id: ContainerId) {
        match self.ids.get(&key) {
            Some(known) if *known != id => {
                let ids = self.contradicted.entry(word.to_owned()).or_default();
                ids.extend([known.clone(), id]);
            }
            Some(_) => {}
            None => drop(self.ids.insert(key, id)),
        }
    }

    /// The ids of everything that has one only. What has several becomes a problem.
    fn only(mut self, word_of: impl Fn(&K) -> String, problems: &mut Vec<String>) -> HashMap<K, ContainerId> {
        self.ids.retain(|key, _| !self.contradicted.contains_key(&word_of(key)));
        for (word, ids) in self.contradicted {
            let ids: Vec<&str> = ids.iter().map(ContainerId::as_str).collect();
            problems.push(format!("it gives {word} several ids ({}): none of them is used", ids.join(", ")));
        }
        self.ids
    }
}

impl Answers {
    /// Parses the command's output. `before` and `after` are the indexes of interfaces by name, listed around
    /// its run.
    pub fn parse(text: &str, before: &HashMap<String, u32>, after: &HashMap<String, u32>) -> Self {
        let mut answers = Self::default();
        let (mut by_interface, mut by_mac) = (Named::new(), Named::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(interface), Some(id), None) = (words.next(), words.next(), words.next()) else {
                answers.add_problem(at, "it is not `INTERFACE ID` or `MAC ID`");
                continue;
            };
            match ContainerId::of_container(id) {
                Err(error) => answers.add_problem(at, &error.to_string()),
                Ok(id) => match (parse_mac(interface), before.get(interface), after.get(interface)) {
                    // A word that looks like a hardware address is a name if an interface has that name.
                    (_, Some(index), Some(still)) if index == still => {
                        by_interface.add((interface.to_owned(), *index), interface, id);
                    }
                    (Some(mac), _, _) => by_mac.add(mac, &traffic_model::hex(&mac), id),
                    // The interface appeared or disappeared meanwhile; the next run will answer.
                    _ => {}
                },
            }
        }
        answers.by_interface = by_interface.only(|(name, _)| name.clone(), &mut answers.problems);
        answers.by_mac = by_mac.only(|mac| traffic_model::hex(mac), &mut answers.problems);
        answers
    }

    fn add_problem(&mut self, at: usize, what: &str) {
        self.problems.push(format!("line {} of its output is ignored: {what}", at + 1));
    }

    /// The lines that could not be used.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The owner of an interface.
    pub fn of_interface(&self, name: &str, index: u32) -> Option<&ContainerId> {
        self.by_interface.get(&(name.to_owned(), index))
    }

    /// Owners by hardware address.
    pub fn by_mac(&self) -> &HashMap<[u8; 6], ContainerId> {
        &self.by_mac
    }
}

/// Runs the command between two listings of the interfaces.
///
/// # Errors
/// As [`run`], and when the interfaces cannot be listed.
pub async fn ask(command: &IdentityCommand, netlink: &Netlink) -> anyhow::Result<Answers> {
    let before = listed(netlink).await?;
    let text = run(command).await?;
    Ok(Answers::parse(&text, &before, &listed(netlink).await?))
}

/// Indexes by name, listed on a thread of their own: the kernel may not answer for seconds.
async fn listed(netlink: &Netlink) -> anyhow::Result<HashMap<String, u32>> {
    let netlink = netlink.clone();
    let list = move || netlink.interfaces().map(|interfaces| indexes(&interfaces));
    tokio::task::spawn_blocking(list).await.context("the listing of the interfaces failed")?
}

/// The command in a long-running process: run in the background, one run at a time.
#[derive(Debug, Default)]
pub struct IdentityQuery {
    running: Option<JoinHandle<anyhow::Result<Answers>>>,
    /// Requested during a run, whose output may be outdated already.
    again: Option<(IdentityCommand, Netlink)>,
}

impl IdentityQuery {
    /// Starts the command, or requests another run after the current one.
    pub fn start(&mut self, command: &IdentityCommand, netlink: &Netlink) {
        let (command, netlink) = (command.clone(), netlink.clone());
        if self.running.is_some() {
            self.again = Some((command, netlink));
        } else {
            self.running = Some(tokio::spawn(async move { ask(&command, &netlink).await }));
        }
    }

    /// Whether the command is running.
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Waits for the current run. Never returns if none is in progress.
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
        answer.unwrap_or_else(|error| Err(error).context("the identity command's task failed"))
    }
}

impl Drop for IdentityQuery {
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

/// Runs the command and returns its output. Nothing that it started outlives the run, even if the caller
/// stops waiting.
///
/// # Errors
/// When the command cannot be started, takes too long, fails, or prints too much.
pub async fn run(command: &IdentityCommand) -> anyhow::Result<String> {
    let IdentityCommand { words, timeout } = command;
    let program = words.first().context("no command")?;
    let mut family = Family::adopting();
    let mut child = Command::new(program)
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A process group of its own, so that its children can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start the identity command {program}"))?;
    family.began(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        // A command that prints without end is not read until its timeout.
        let read = async {
            tokio::try_join!(read(stdout, MOST_OUTPUT, program), read(stderr, MOST_OUTPUT, program))
        };
        let ((output, errors), status) = tokio::try_join!(read, async { Ok(child.wait().await?) })?;
        anyhow::Ok((output, errors, status))
    };
    let done = time::timeout(*timeout, work).await;
    if matches!(done, Ok(Ok(_))) {
        family.first_has_ended();
    }
    let left = tokio::task::spawn_blocking(move || family.end()).await.unwrap_or_default();
    if left > 0 {
        tracing::warn!("{left} processes that the identity command {program} started cannot be killed");
    }
    let Ok(done) = done else {
        bail!(
            "the identity command {program} took longer than {}; raise `timeout` under [identities]",
            format_duration(*timeout)
        );
    };
    let (output, errors, status) = done?;
    if !status.success() {
        let first_line = errors.lines().next().unwrap_or("no message").to_owned();
        bail!("the identity command {program} failed ({status}): {first_line}");
    }
    Ok(output)
}

async fn read(
    pipe: Option<impl tokio::io::AsyncRead + Unpin>,
    most: u64,
    program: &str,
) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let read = pipe.take(most).read_to_end(&mut bytes).await;
        read.with_context(|| format!("cannot read the output of {program}"))?;
    }
    if bytes.len() as u64 >= most {
        bail!("the identity command {program} printed more than {} MiB", most >> 20);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_command_runs_and_its_failures_are_reported() {
        let long = Duration::from_secs(20);
        assert_eq!(outcome("echo vnet1 a; echo vnet2 b", long), "vnet1 a\nvnet2 b\n");
        let failed = outcome("echo vnet1 a; echo no libvirt here >&2; exit 3", long);
        assert!(failed.ends_with("failed (exit status: 3): no libvirt here"), "{failed}");
        // The grandchild holds the pipe and is killed with the command.
        let late = outcome("sleep 600 & wait", Duration::from_millis(50));
        assert!(late.contains("took longer than 50ms; raise `timeout`"), "{late}");
        let none = IdentityCommand { words: vec!["/nonexistent/ids".to_owned()], timeout: long };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = format!("{:#}", runtime.block_on(run(&none)).unwrap_err());
        assert!(error.starts_with("cannot start the identity command /nonexistent/ids"), "{error}");
    }

    /// Runs a script that writes the id of a process that should not survive, and checks that it did not.
    fn leaves_nothing(script: &str, timeout: Duration) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let begun = std::time::Instant::now();
        let said = outcome(&script.replace("FILE", &file.display().to_string()), timeout);
        assert!(begun.elapsed() < timeout + Duration::from_secs(5), "{script}: {:?}", begun.elapsed());
        let pid = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(), "{script}: {pid} lives");
        said
    }

    #[test]
    fn nothing_that_a_command_starts_outlives_it() {
        let short = Duration::from_millis(700);
        for script in [
            // In a session of its own, so that it is not in the group.
            "setsid sh -c 'echo $$ >FILE; exec sleep 600' & wait",
            // Orphaned twice, so that it is nobody's child that is known.
            "setsid sh -c '(echo $$ >FILE; exec setsid sleep 600) & sleep 600' & sleep 600",
            "sh -c 'trap \"\" TERM INT HUP; echo $$ >FILE; while :; do sleep 1; done'",
            "echo $$ >FILE; exec >&- 2>&-; exec sleep 600",
        ] {
            let said = leaves_nothing(script, short);
            assert!(said.contains("took longer than 700ms"), "{script}: {said}");
        }
        // The command succeeds, and what it left is killed all the same.
        let left = "setsid sh -c 'echo $$ >FILE; exec sleep 600' >/dev/null 2>&1 & \
                    while ! [ -s FILE ]; do sleep 0.01; done; echo vnet1 a";
        assert_eq!(leaves_nothing(left, Duration::from_secs(20)), "vnet1 a\n");
        // It is not read until the timeout.
        for to in ["1", "2"] {
            let flood = format!("echo $$ >FILE; exec yes >&{to}");
            let said = leaves_nothing(&flood, Duration::from_mins(1));
            assert!(said.contains("printed more than 8 MiB"), "{said}");
        }
    }

    #[test]
    fn a_command_ends_when_nobody_waits_for_it_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("setsid sh -c 'echo $$ >{}; exec sleep 600' & sleep 600", file.display());
        let command = command(&script, Duration::from_mins(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let run = run(&command);
            let begun = async {
                while std::fs::read_to_string(&file).unwrap_or_default().is_empty() {
                    time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! { _ = run => panic!("it ended"), () = begun => {} }
        });
        let pid = std::fs::read_to_string(&file).unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(), "{pid} lives");
    }

    #[test]
    fn wrong_lines_are_reported_and_the_others_used() {
        let known = HashMap::from([("vnet1".to_owned(), 4), ("vnet2".to_owned(), 5)]);
        let later = HashMap::from([("vnet1".to_owned(), 4), ("vnet2".to_owned(), 6)]);
        let text =
            "# name id\n\nvnet1 web # the first\nvnet2 moved\n525400000001 db\nvnet1\nvnet1 a b\nvnet1 0\n";
        let answers = Answers::parse(text, &known, &later);
        let twice = "vnet1 a\nvnet1 b\nvnet1 a\n525400000001 db\n52:54:00:00:00:01 dc\n525400000002 e\n525400000002 e\n";
        let contradicted = Answers::parse(twice, &known, &known);
        assert_eq!(contradicted.of_interface("vnet1", 4), None, "neither the first nor the last line");
        assert_eq!(contradicted.by_mac().values().map(ContainerId::as_str).collect::<Vec<_>>(), ["e"]);
        assert_eq!(
            contradicted.problems(),
            [
                "it gives vnet1 several ids (a, b): none of them is used",
                "it gives 525400000001 several ids (db, dc): none of them is used"
            ]
        );
        assert_eq!(answers.of_interface("vnet1", 4).map(ContainerId::as_str), Some("web"));
        assert_eq!(answers.of_interface("vnet2", 5), None);
        assert_eq!(answers.of_interface("vnet2", 6), None);
        assert_eq!(answers.by_mac().len(), 1);
        let problems = answers.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("line 6 of its output is ignored: it is not"), "{problems:?}");
        assert!(problems[2].contains("the node itself"), "{problems:?}");
    }
}
