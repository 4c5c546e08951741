use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn sum(container: &str, used: u64, next: u64) -> Sum {
    Sum {
        container: container.to_owned(),
        direction: Direction::In,
        classes: Vec::new(),
        used: Used { incoming: used, outgoing: 7, together: None },
        next,
    }
}

/// What went on from one time to another, and took a CPU all the time.
fn taken(began: Instant, ended: Instant) -> Taken {
    Taken { began, ended, cpu: ended - began }
}

/// A lookout after a drain that took no time.
fn watching(now: Instant, sums: Vec<Sum>) -> Lookout {
    let mut lookout = Lookout::default();
    lookout.drained(taken(now, now), sums);
    lookout
}

#[test]
fn a_container_is_looked_at_when_it_could_be_there_and_not_before() {
    let begin = Instant::now();
    let mut lookout = watching(begin, vec![sum("far", 0, 10 * BYTES_PER_S), sum("near", 5, BYTES_PER_S + 5)]);
    assert_eq!(lookout.due(), Some(begin + 1000 * MS));
    assert_eq!(lookout.wanted(begin + 999 * MS), [""; 0]);
    assert_eq!(lookout.wanted(begin + 1000 * MS), ["near"]);
    // A quarter of what is left was counted.
    let at = begin + 1000 * MS;
    assert!(!lookout.looked(taken(at, at), vec![("near".to_owned(), Some(vec![(1, BYTES_PER_S / 4, 0)]))]));
    assert_eq!(lookout.due(), Some(begin + 1750 * MS));
    // The other one is due within the time until the next look could be.
    assert_eq!(lookout.wanted(begin + 9750 * MS), ["far", "near"]);
}

#[test]
fn looks_at_close_ones_pause_and_take_less_than_a_hundredth_of_the_time() {
    let begin = Instant::now();
    let mut lookout = watching(begin, vec![sum("a", 0, 100)]);
    assert!(lookout.due() <= Some(begin + MS), "there is no reason to wait after a drain");
    let nothing = |id: &str| vec![(id.to_owned(), Some(Vec::new()))];
    assert!(!lookout.looked(taken(begin, begin + MS), nothing("a")));
    assert_eq!(lookout.due(), Some(begin + 251 * MS));
    assert!(!lookout.looked(taken(begin, begin + 5 * MS), nothing("a")));
    assert_eq!(lookout.due(), Some(begin + 755 * MS));
    // Whoever only waited costs nothing, and no cost makes it forget to look.
    assert!(!lookout.looked(Taken { cpu: MS, ..taken(begin, begin + 900 * MS) }, nothing("a")));
    assert_eq!(lookout.due(), Some(begin + 1150 * MS));
    assert!(!lookout.looked(taken(begin, begin + 900 * MS), nothing("a")));
    assert_eq!(lookout.due(), Some(begin + 10_900 * MS));
}

#[test]
fn the_byte_that_reaches_a_threshold_asks_for_a_drain() {
    let begin = Instant::now();
    let look = |sums: Vec<Sum>, counted: Counted| {
        watching(begin, sums).looked(taken(begin, begin), vec![("a".to_owned(), Some(counted))])
    };
    assert!(!look(vec![sum("a", 3, 100)], vec![(1, 96, 50)]));
    assert!(look(vec![sum("a", 3, 100)], vec![(1, 97, 0)]));
    assert!(look(vec![sum("a", 3, 100)], vec![(1, 50, 0), (2, 47, 0)]));
    assert!(!look(vec![sum("a", 3, 100)], vec![(0, 97, 0)]), "class 0 is not billed");
    let of =
        |direction, classes: &[u8]| vec![Sum { direction, classes: classes.to_vec(), ..sum("a", 3, 100) }];
    assert!(look(of(Direction::In, &[0]), vec![(0, 97, 0)]));
    assert!(!look(of(Direction::In, &[2, 3]), vec![(1, 97, 0), (2, 96, 0)]));
    assert!(!look(of(Direction::Out, &[]), vec![(1, 97, 92)]), "7 were used");
    assert!(look(of(Direction::Out, &[]), vec![(1, 0, 93)]));
    assert!(!look(of(Direction::Sum, &[]), vec![(1, 50, 39)]));
    assert!(look(of(Direction::Sum, &[]), vec![(1, 50, 40)]));
    assert!(!look(of(Direction::Larger, &[]), vec![(1, 96, 92)]));
    assert!(look(of(Direction::Larger, &[]), vec![(1, 0, 93)]));
    assert!(look(vec![sum("a", 0, 500), sum("a", 0, 97)], vec![(1, 97, 0)]), "any of several quotas");
}

#[test]
fn both_directions_together_may_be_twice_as_fast() {
    let begin = Instant::now();
    let both = Sum { direction: Direction::Sum, ..sum("a", 0, 2 * BYTES_PER_S + 7) };
    assert_eq!(watching(begin, vec![both]).due(), Some(begin + 1000 * MS));
    let never = sum("a", 0, u64::MAX);
    assert!(watching(begin, vec![never]).due() > Some(begin + Duration::from_hours(24 * 365)));
}

#[test]
fn a_drain_in_vain_is_asked_for_once_until_another_one_comes() {
    let begin = Instant::now();
    let mut lookout = watching(begin, vec![sum("a", 0, 100), sum("b", 0, 100)]);
    assert!(lookout.looked(taken(begin, begin), vec![("a".to_owned(), Some(vec![(1, 100, 0)]))]));
    // It took 80 ms, and the ledger still has the same.
    let after = begin + 80 * MS;
    lookout.drained(taken(begin, after), vec![sum("a", 0, 100), sum("b", 0, 100)]);
    assert_eq!(lookout.due(), Some(after + 250 * MS));
    assert_eq!(lookout.wanted(after + 250 * MS), ["b"]);
    assert!(!lookout.looked(taken(after, after), vec![("b".to_owned(), Some(Vec::new()))]));
    // The drain of the interval.
    lookout.drained(taken(after, after), vec![sum("a", 0, 100)]);
    assert_eq!(lookout.wanted(after + MS), ["a"]);
    // Once more, but now the drain finds the crossing.
    assert!(lookout.looked(taken(after, after), vec![("a".to_owned(), Some(vec![(1, 100, 0)]))]));
    lookout.drained(taken(after, after), vec![sum("a", 100, 200)]);
    assert_eq!(lookout.wanted(after + 250 * MS), ["a"]);
}

#[test]
fn drains_that_are_asked_for_follow_each_other_and_then_take_a_tenth_of_the_time() {
    let mut now = Instant::now();
    let begin = now;
    let mut lookout = watching(now, vec![sum("a", 0, 1)]);
    let mut waits = Vec::new();
    for number in 1..40 {
        assert!(lookout.looked(taken(now, now), vec![("a".to_owned(), Some(vec![(1, number, 0)]))]));
        // It takes a quarter of a second.
        lookout.drained(taken(now, now + 250 * MS), vec![sum("a", 0, number + 1)]);
        let due = lookout.due().unwrap();
        waits.push(due - (now + 250 * MS));
        now = due;
    }
    assert_eq!(waits[..10], [250 * MS; 10]);
    assert_eq!(waits[30..], [2250 * MS; 9], "in the long run, a tenth");
    // After a while without any, they may follow each other again.
    now += Duration::from_secs(60);
    lookout.drained(taken(now, now), vec![sum("a", 0, 100)]);
    assert!(lookout.looked(taken(now, now), vec![("a".to_owned(), Some(vec![(1, 100, 0)]))]));
    lookout.drained(taken(now, now + 250 * MS), vec![sum("a", 0, 200)]);
    assert_eq!(lookout.due(), Some(now + 500 * MS));
    assert!(now - begin > CREDIT);
}

#[test]
fn failures_are_tried_again_and_what_is_unknown_waits_for_a_drain() {
    let begin = Instant::now();
    let mut lookout = watching(begin, vec![sum("a", 0, 100), sum("b", 0, 100)]);
    lookout.failed(begin);
    assert_eq!(lookout.due(), Some(begin + 2000 * MS));
    let at = begin + 2000 * MS;
    assert!(!lookout.looked(taken(at, at), vec![("b".to_owned(), None), ("gone".to_owned(), None)]));
    assert_eq!(lookout.wanted(at + 250 * MS), ["a"]);
    assert!(lookout.looked(taken(at, at), vec![("a".to_owned(), Some(vec![(3, 100, 0)]))]));
    assert_eq!(lookout.due(), None);
    // The drain fails: the ledger is full, or somebody else writes it.
    lookout.failed(at);
    assert_eq!(lookout.due(), Some(at + 2000 * MS));
    assert_eq!(lookout.wanted(at + 2000 * MS), ["a"]);
    lookout.drained(taken(at, at), Vec::new());
    assert_eq!(lookout.due(), None, "without quotas there is nothing to look at");
}

#[derive(Clone, Debug)]
enum Step {
    /// So many milliseconds pass, in which each container counts this part of what it could.
    Pass(u64, [u8; 2]),
    Fail,
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pass = (1_u64..400, any::<[u8; 2]>()).prop_map(|(ms, parts)| Step::Pass(ms, parts));
    prop::collection::vec(prop_oneof![8 => pass, 1 => Just(Step::Fail), 1 => Just(Step::Drain)], 1..60)
}

/// A node whose ledger is exact, in steps of a millisecond.
struct Node {
    now: Instant,
    counted: [u64; 2],
    drained: [u64; 2],
    next: [u64; 2],
    crossed: [Option<Instant>; 2],
    failed: Option<Instant>,
    lookout: Lookout,
}

impl Node {
    fn sums(&self) -> Vec<Sum> {
        let of = |at: usize| Sum {
            used: Used { incoming: self.drained[at], ..Used::default() },
            ..sum(["a", "b"][at], 0, self.next[at])
        };
        (0..2).map(of).collect()
    }

    fn drain(&mut self) {
        self.drained = self.counted;
        for at in 0..2 {
            if self.drained[at] >= self.next[at] {
                self.next[at] = self.drained[at] + 7 * BYTES_PER_S;
                self.crossed[at] = None;
            }
        }
        let sums = self.sums();
        self.lookout.drained(taken(self.now, self.now), sums);
    }

    fn tick(&mut self, parts: [u8; 2]) {
        self.now += MS;
        for (at, part) in parts.into_iter().enumerate() {
            self.counted[at] += BYTES_PER_S / 1000 * u64::from(part) / 255;
            if self.counted[at] >= self.next[at] && self.crossed[at].is_none() {
                self.crossed[at] = Some(self.now);
            }
        }
        if self.lookout.due().is_some_and(|due| due <= self.now) {
            let of = |id: String| {
                let at = usize::from(id == "b");
                (id, Some(vec![(1, self.counted[at] - self.drained[at], 0)]))
            };
            let found = self.lookout.wanted(self.now).into_iter().map(of).collect();
            if self.lookout.looked(taken(self.now, self.now), found) {
                self.drain();
            }
        }
    }
}

proptest! {
    /// Whatever is counted at whatever rate up to the highest, a crossing is found within two of the shortest times, or
    /// within that after a failure's pause.
    #[test]
    fn every_crossing_is_found_in_time(steps in steps(), next in [1_u64..9, 1_u64..9]) {
        let now = Instant::now();
        let mut node = Node {
            now,
            counted: [0; 2],
            drained: [0; 2],
            next: next.map(|tenths| tenths * BYTES_PER_S / 10),
            crossed: [None; 2],
            failed: None,
            lookout: Lookout::default(),
        };
        node.drain();
        for step in steps {
            match step {
                Step::Pass(ms, parts) => (0..ms).for_each(|_| {
                    node.tick(parts);
                    for crossed in node.crossed.into_iter().flatten() {
                        let failed = node.failed.map_or(crossed, |failed| failed + PAUSE_AFTER_FAILURE);
                        let late = node.now.saturating_duration_since(crossed.max(failed));
                        assert!(late <= 2 * SHORTEST, "{late:?}");
                    }
                }),
                Step::Fail => {
                    node.lookout.failed(node.now);
                    node.failed = Some(node.now);
                }
                Step::Drain => node.drain(),
            }
        }
    }
}
