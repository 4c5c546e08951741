//! The order of the steps against a fake kernel, with failures at every call.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use anyhow::{bail, ensure};
use traffic_common::DropControl;

use super::{super::DropState, Outcome, Refused, Steps, ensure as load};

/// What names the program of this build, and one of another.
const OURS: u64 = 77;
const OTHERS: u64 = 66;
/// Id of the map `META`.
const COUNTERS: u32 = 40;

/// What happens while the verifier has the program.
type During = fn(&mut Node);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accepted,
    Refused,
    NoMemory,
}

/// The calls that fail.
#[derive(Clone, Copy, Debug)]
enum Failing {
    None,
    Only(usize),
    From(usize),
}

/// The kernel and the pins.
#[derive(Clone, Debug, Default)]
struct Node {
    counters: Option<u32>,
    is_other_version: bool,
    control: Option<DropControl>,
    /// The programs that are attached, and whether the names of places are known to them.
    attached: BTreeMap<u32, bool>,
    /// The last failure, and whether it was recorded as a refusal.
    recorded: Option<(String, bool)>,
    /// The programs that the daemon holds.
    held: Vec<u32>,
}

struct Fake {
    node: RefCell<Node>,
    /// The verdict with the names of places, and without.
    verdicts: (Verdict, Verdict),
    during: During,
    failing: Failing,
    calls: Cell<usize>,
    verified: usize,
    is_locked: Rc<Cell<bool>>,
}

struct Lock(Rc<Cell<bool>>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct Program {
    number: u32,
    counters: Option<u32>,
    has_places: bool,
}

impl Fake {
    fn new(node: Node) -> Self {
        Self {
            node: RefCell::new(node),
            verdicts: (Verdict::Accepted, Verdict::Accepted),
            during: |_| {},
            failing: Failing::None,
            calls: Cell::new(0),
            verified: 0,
            is_locked: Rc::default(),
        }
    }

    fn call(&self) -> anyhow::Result<()> {
        let at = self.calls.replace(self.calls.get() + 1);
        let fails = match self.failing {
            Failing::None => false,
            Failing::Only(one) => at == one,
            Failing::From(first) => at >= first,
        };
        ensure!(!fails, "call {at} failed");
        Ok(())
    }

    fn changes(&self) -> anyhow::Result<std::cell::RefMut<'_, Node>> {
        assert!(self.is_locked.get(), "pins change only under the lock");
        self.call()?;
        Ok(self.node.borrow_mut())
    }

    /// The number of the program that counts.
    fn counting(&self) -> Option<u32> {
        let node = self.node.borrow();
        node.control.map(|control| control.active).filter(|active| node.attached.contains_key(active))
    }

    fn is_remembered(&self) -> bool {
        self.node.borrow().recorded.as_ref().is_some_and(|(_, is_refusal)| *is_refusal)
    }
}

impl Steps for Fake {
    type Lock = Lock;
    type Facts = ();
    type Prepared = Program;
    type Verified = Program;

    fn program(&self) -> u64 {
        OURS
    }

    fn counters(&self) -> anyhow::Result<Option<u32>> {
        self.call()?;
        Ok(self.node.borrow().counters)
    }

    fn state(&self) -> anyhow::Result<DropState> {
        self.call()?;
        let node = self.node.borrow();
        if node.is_other_version {
            return Ok(DropState::OtherVersion(9));
        }
        Ok(match (node.control, &node.recorded) {
            (Some(control), _) if node.attached.contains_key(&control.active) => DropState::Counting(control),
            (_, Some((reason, _))) => DropState::Refused(reason.clone()),
            _ => DropState::Off,
        })
    }

    fn refusal(&self) -> Option<String> {
        self.node.borrow().recorded.clone().filter(|(_, is_refusal)| *is_refusal).map(|(reason, _)| reason)
    }

    fn attached(&self) -> anyhow::Result<Vec<u32>> {
        self.call()?;
        Ok(self.node.borrow().attached.keys().copied().collect())
    }

    fn is_current(&self, verified: &Program) -> anyhow::Result<bool> {
        self.call()?;
        Ok(self.node.borrow().counters == verified.counters)
    }

    fn lock(&self) -> anyhow::Result<Lock> {
        self.call()?;
        assert!(!self.is_locked.replace(true), "the lock is taken once at a time");
        Ok(Lock(Rc::clone(&self.is_locked)))
    }

    fn facts(&self) -> anyhow::Result<()> {
        assert!(!self.is_locked.get(), "others would wait for the lock");
        self.call()
    }

    fn has_places((): &()) -> bool {
        HAS_PLACES.get()
    }

    fn remove(&mut self, _lock: &Lock) -> anyhow::Result<()> {
        let mut node = self.changes()?;
        *node = Node { counters: node.counters, ..Node::default() };
        Ok(())
    }

    fn prepare(&mut self, _lock: &Lock, (): &mut (), has_places: bool) -> anyhow::Result<Program> {
        let node = self.changes()?;
        let number = node.attached.keys().copied().chain([1]).max().unwrap_or(1) + 1;
        Ok(Program { number, counters: node.counters, has_places })
    }

    fn verify(&mut self, prepared: Program) -> anyhow::Result<Program> {
        assert!(!self.is_locked.get(), "others would wait for the lock");
        self.call()?;
        self.verified += 1;
        (self.during)(&mut self.node.borrow_mut());
        match if prepared.has_places { self.verdicts.0 } else { self.verdicts.1 } {
            Verdict::Accepted => Ok(prepared),
            Verdict::Refused => Err(Refused(format!("places: {}", prepared.has_places)).into()),
            Verdict::NoMemory => bail!("no memory"),
        }
    }

    fn attach(&mut self, _lock: &Lock, verified: &mut Program) -> anyhow::Result<u32> {
        self.changes()?.attached.insert(verified.number, verified.has_places);
        Ok(verified.number)
    }

    fn activate(&mut self, _lock: &Lock, verified: &Program) -> anyhow::Result<()> {
        let mut node = self.changes()?;
        let meta_map_id = verified.counters.unwrap_or_default();
        node.control = Some(DropControl {
            active: verified.number,
            meta_map_id,
            program: OURS,
            ..DropControl::default()
        });
        Ok(())
    }

    fn detach(&mut self, _lock: &Lock, number: u32) -> anyhow::Result<()> {
        self.changes()?.attached.remove(&number);
        Ok(())
    }

    fn hold(&mut self, _lock: &Lock) {
        assert!(self.is_locked.get(), "what is held is what is pinned");
        let mut node = self.node.borrow_mut();
        node.held = node.attached.keys().copied().collect();
    }

    fn record(&mut self, _lock: &Lock, reason: &str, is_refusal: bool) -> anyhow::Result<()> {
        self.changes()?.recorded = Some((reason.to_owned(), is_refusal));
        Ok(())
    }

    fn forget(&mut self, _lock: &Lock) -> anyhow::Result<()> {
        self.changes()?.recorded = None;
        Ok(())
    }
}

thread_local! {
    /// Whether the fake kernel has the helper that names places.
    static HAS_PLACES: Cell<bool> = const { Cell::new(true) };
}

/// Nothing was loaded yet.
fn empty() -> Node {
    Node { counters: Some(COUNTERS), ..Node::default() }
}

/// A program counts, in these counters.
fn counting(program: u64, meta_map_id: u32) -> Node {
    let control = DropControl { active: 1, meta_map_id, program, ..DropControl::default() };
    Node { control: Some(control), attached: BTreeMap::from([(1, true)]), ..empty() }
}

#[test]
fn a_program_is_loaded_once_and_replaced_only_when_it_should_be() {
    for (node, replaces, expected) in [
        (empty(), true, 1),
        (empty(), false, 1),
        (counting(OURS, COUNTERS), true, 0),
        (counting(OTHERS, COUNTERS), false, 0),
        (counting(OTHERS, COUNTERS), true, 1),
        (counting(OURS, COUNTERS - 1), false, 1),
        (Node { is_other_version: true, ..empty() }, false, 0),
        (Node { is_other_version: true, ..empty() }, true, 1),
        (Node { recorded: Some(("no".to_owned(), false)), ..empty() }, false, 1),
    ] {
        let mut fake = Fake::new(node.clone());
        assert_eq!(load(&mut fake, replaces).unwrap(), Outcome::Counting, "{node:?}");
        assert_eq!(load(&mut fake, replaces).unwrap(), Outcome::Counting, "{node:?}");
        assert_eq!(fake.verified, expected, "{node:?} {replaces}");
        if expected == 1 {
            let after = fake.node.borrow();
            assert_eq!(fake.counting().as_slice(), after.attached.keys().copied().collect::<Vec<_>>());
            assert_eq!(after.recorded, None);
            assert_eq!(after.held, fake.counting().as_slice(), "before anything can hide it");
        }
    }
}

#[test]
fn only_what_the_verifier_refused_in_every_form_is_not_tried_again() {
    use Verdict::{Accepted, NoMemory, Refused};
    for (verdicts, loads, is_remembered) in [
        ((Refused, Refused), 2, true),
        ((Refused, NoMemory), 2, false),
        ((NoMemory, Refused), 1, false),
        ((Refused, Accepted), 2, false),
    ] {
        let mut fake = Fake { verdicts, ..Fake::new(counting(OTHERS, COUNTERS - 1)) };
        let first = load(&mut fake, true);
        assert_eq!((fake.verified, fake.is_remembered()), (loads, is_remembered), "{verdicts:?}");
        let again = load(&mut fake, true);
        let expected = if is_remembered || verdicts.1 == Accepted { loads } else { 2 * loads };
        assert_eq!(fake.verified, expected, "{verdicts:?}: {first:?} {again:?}");
        match verdicts.1 {
            Accepted => assert_eq!(again.unwrap(), Outcome::Counting),
            // What counted before still counts, in the former counters.
            _ => assert_eq!(fake.counting(), Some(1)),
        }
    }
    // The reason is that of the complete program.
    let mut fake = Fake { verdicts: (Refused, Refused), ..Fake::new(empty()) };
    assert!(matches!(load(&mut fake, true).unwrap(), Outcome::Refused(why) if why.contains("true")));
    assert!(matches!(load(&mut fake, true).unwrap(), Outcome::Refused(why) if why.contains("true")));
    assert_eq!(fake.verified, 2);
    // A kernel without the helper is not asked for it.
    HAS_PLACES.set(false);
    let mut fake = Fake { verdicts: (Refused, Accepted), ..Fake::new(empty()) };
    assert_eq!(load(&mut fake, true).unwrap(), Outcome::Counting);
    assert_eq!((fake.verified, fake.node.borrow().attached.values().copied().collect()), (1, vec![false]));
    HAS_PLACES.set(true);
}

#[test]
fn what_changes_while_the_verifier_has_the_program_is_found() {
    let changes: [During; 2] = [|node| node.counters = None, |node| node.counters = Some(COUNTERS + 1)];
    for during in changes {
        let mut fake = Fake { during, ..Fake::new(counting(OTHERS, COUNTERS)) };
        assert_eq!(load(&mut fake, true).unwrap(), Outcome::Overtaken);
        assert_eq!((fake.counting(), fake.node.borrow().attached.len()), (Some(1), 1));
        fake.during = |_| {};
        fake.node.borrow_mut().counters = Some(COUNTERS + 1);
        assert_eq!(load(&mut fake, false).unwrap(), Outcome::Counting);
        assert_eq!(fake.node.borrow().control.unwrap().meta_map_id, COUNTERS + 1);
    }
    let mut fake = Fake::new(Node::default());
    assert_eq!((load(&mut fake, true).unwrap(), fake.verified), (Outcome::Overtaken, 0));
}

/// Whichever call fails, one program counts if one did before, nothing is taken for a refusal, and the next attempt
/// completes the work.
#[test]
fn a_failure_of_any_call_is_mended_by_the_next_attempt() {
    let mut failed = 0;
    for (node, is_counted) in [
        (empty(), false),
        (counting(OTHERS, COUNTERS), true),
        (counting(OURS, COUNTERS - 1), true),
        (Node { is_other_version: true, ..empty() }, false),
    ] {
        for kind in [Failing::Only, Failing::From] {
            for at in 0.. {
                let mut fake = Fake { failing: kind(at), ..Fake::new(node.clone()) };
                let result = load(&mut fake, true);
                let count = fake.calls.get();
                if count <= at {
                    assert_eq!(result.unwrap(), Outcome::Counting);
                    break;
                }
                failed += 1;
                assert!(!fake.is_remembered() && !fake.is_locked.get(), "call {at}: {result:?}");
                if is_counted {
                    assert!(fake.counting().is_some(), "call {at}: {result:?} {:?}", fake.node);
                }
                fake.failing = Failing::None;
                for _ in 0..2 {
                    assert_eq!(load(&mut fake, true).unwrap(), Outcome::Counting, "call {at}");
                }
                let after = fake.node.borrow();
                let control = after.control.unwrap();
                assert_eq!((control.meta_map_id, control.program), (COUNTERS, OURS), "call {at}");
                assert_eq!(after.attached.keys().copied().collect::<Vec<_>>(), [control.active], "call {at}");
                assert!(fake.verified <= 2, "call {at}");
            }
        }
    }
    assert!(failed > 60, "{failed}");
}
