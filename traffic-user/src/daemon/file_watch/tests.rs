use std::cell::Cell;

use super::*;

/// An inotify that refuses as it is told.
#[derive(Default)]
struct Refusing {
    instances: Cell<bool>,
    watches: Cell<bool>,
}

impl Inotify for &Refusing {
    fn instance(&self) -> Result<OwnedFd, Errno> {
        if self.instances.get() { Err(Errno::MFILE) } else { KernelInotify.instance() }
    }

    fn add(&self, instance: BorrowedFd<'_>, path: &Path, flags: WatchFlags) -> Result<i32, Errno> {
        if self.watches.get() { Err(Errno::NOSPC) } else { KernelInotify.add(instance, path, flags) }
    }
}

struct Node {
    directory: tempfile::TempDir,
    config: Config,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (classes, conf) = (directory.path().join("classes"), directory.path().join("conf"));
        fs::create_dir(&conf).unwrap();
        fs::write(&classes, "1 0.0.0.0/0\n").unwrap();
        let text = format!("class_file = {classes:?}\nvz_conf_dir = {conf:?}\n");
        let config = Config::parse(&text, Path::new("t.toml")).unwrap();
        Self { directory, config, now: Instant::now() }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Lets time pass; returns what was reported meanwhile.
    fn pass<I: Inotify>(&mut self, watch: &mut FileWatch<I>, seconds: u64) -> Changed {
        let mut all = Changed::default();
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            all.add(watch.step(self.now));
        }
        all
    }
}

#[test]
fn files_that_cannot_be_watched_are_compared_until_they_can() {
    for takes in [
        |kernel: &Refusing, all| kernel.instances.set(all),
        |kernel: &Refusing, all| {
            kernel.watches.set(all);
        },
    ] {
        let (kernel, mut node) = (Refusing::default(), Node::new());
        takes(&kernel, true);
        let mut watch = FileWatch::new(&kernel, &node.config, node.now);
        let failure = watch.take_attempt().unwrap().unwrap_err();
        assert!(failure.starts_with("cannot watch "), "{failure}");
        assert_eq!(node.pass(&mut watch, 1), Changed::ALL, "at first");
        assert_eq!(node.pass(&mut watch, 10), Changed::default());
        node.write("classes", "2 0.0.0.0/0\n");
        assert_eq!(node.pass(&mut watch, 5), Changed::CLASSES);
        node.write("conf/101.conf", "IP_ADDRESS=\"10.0.0.1\"\n");
        assert_eq!(node.pass(&mut watch, 5), Changed::IDENTITIES);
        assert!(watch.due().unwrap() <= node.now + POLL, "it waits for nothing else");

        takes(&kernel, false);
        assert_eq!(node.pass(&mut watch, 61), Changed::default());
        assert_eq!((watch.take_attempt(), watch.due()), (Some(Ok(())), None));
        node.write("classes", "3 0.0.0.0/0\n");
        assert_eq!(node.pass(&mut watch, 1), Changed::CLASSES, "by the watch again");
    }
}

#[test]
fn another_configuration_needs_no_second_instance() {
    let (kernel, mut node) = (Refusing::default(), Node::new());
    let mut watch = FileWatch::new(&kernel, &node.config, node.now);
    assert_eq!(node.pass(&mut watch, 1), Changed::ALL);
    kernel.instances.set(true);
    let other = Node::new();
    watch.follow(&other.config, node.now);
    assert_eq!(watch.take_attempt(), Some(Ok(())));
    assert_eq!(node.pass(&mut watch, 1), Changed::ALL);
    other.write("classes", "4 0.0.0.0/0\n");
    assert_eq!(node.pass(&mut watch, 1), Changed::CLASSES);
}
