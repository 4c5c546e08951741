//! Operators who assign at the same time, in every order of their first steps.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use super::*;

/// A table in memory. Each call takes effect between two steps of its caller.
#[derive(Default)]
struct Memory {
    rows: RefCell<Vec<Entry>>,
    calls: Cell<usize>,
    /// The call whose answer is lost.
    lost: Option<usize>,
}

/// More calls than any test makes.
const MANY_CALLS: usize = 1000;

/// Waits for the next step.
async fn step() {
    let mut is_over = false;
    poll_fn(|_| if std::mem::replace(&mut is_over, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Memory {
    async fn answer(&self) -> Result<(), StoreError> {
        self.calls.set(self.calls.get() + 1);
        let is_lost = Some(self.calls.get()) == self.lost;
        step().await;
        if is_lost { Err(StoreError::Away("lost".to_owned())) } else { Ok(()) }
    }

    /// Who has what. No more answers are lost.
    fn live(&self) -> Vec<Assignment> {
        self.calls.set(MANY_CALLS);
        let all = finish(all(self)).unwrap();
        all.into_iter().filter(|one| !one.is_removed).map(|one| one.assignment).collect()
    }
}

impl Table for Memory {
    async fn rows(&self) -> Result<Vec<Entry>, StoreError> {
        step().await;
        let rows = self.rows.borrow().clone();
        self.answer().await.map(|()| rows)
    }

    async fn add(&self, entry: &Entry) -> Result<(), StoreError> {
        step().await;
        self.rows.borrow_mut().push(entry.clone());
        self.answer().await
    }

    async fn pause(&self) {
        step().await;
    }
}

fn finish<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

/// Runs two by turns. The bits of `order` say whose the first steps are; then the first one ends before the other.
fn both<'a, T>(
    order: u32,
    mut one: Pin<&'a mut dyn Future<Output = T>>,
    mut two: Pin<&'a mut dyn Future<Output = T>>,
) -> [T; 2] {
    let mut done = [None, None];
    for at in 0.. {
        let second = if at < ORDERED { order >> at & 1 == 1 } else { done[0].is_some() };
        let (work, done) = if second { (&mut two, &mut done[1]) } else { (&mut one, &mut done[0]) };
        if done.is_none()
            && let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            *done = Some(value);
        }
        if at >= ORDERED && second && done.is_some() {
            break;
        }
    }
    done.map(Option::unwrap)
}

/// Steps whose order is tried in every way.
const ORDERED: u32 = 14;

fn of(tenant: &str, container: &str, until: Option<i64>) -> Assignment {
    let (tenant, container) = (tenant.to_owned(), container.to_owned());
    Assignment { number: 0, tenant, container, node: None, from: 600, until }
}

#[test]
fn of_two_who_assign_a_container_at_once_at_most_one_has_it() {
    let (one, two) = (of("a", "101", None), of("b", "101", Some(1200)));
    let mut won = [0, 0, 0];
    for order in 0..1 << ORDERED {
        let table = Memory::default();
        let made = both(order, pin!(assign_in(&table, &one)), pin!(assign_in(&table, &two)));
        let count = made.iter().filter(|made| made.is_ok()).count();
        won[count] += 1;
        let live = table.live();
        assert_eq!(live.len(), count, "{order:b}: {made:?} {live:?}");
        assert!(made.iter().flatten().all(|made| live.contains(made)), "{order:b}: {made:?} {live:?}");
        for refused in made.into_iter().filter_map(Result::err) {
            let text = refused.to_string();
            assert!(text.contains("while") || text.contains("repeat the command"), "{order:b}: {text}");
        }
    }
    assert!(won[1] > won[0] && won[2] == 0, "{won:?}");
}

#[test]
fn two_who_assign_different_containers_at_once_have_different_numbers() {
    let (one, two) = (of("a", "101", None), of("b", "102", None));
    for order in 0..1 << ORDERED {
        let table = Memory::default();
        let made = both(order, pin!(assign_in(&table, &one)), pin!(assign_in(&table, &two)));
        let [one, two] = made.map(Result::unwrap);
        assert_ne!(one.number, two.number, "{order:b}");
        assert_eq!(table.live().len(), 2, "{order:b}");
    }
}

#[test]
fn whoever_loses_an_answer_does_not_think_to_have_it_alone() {
    let (one, two) = (of("a", "101", None), of("b", "101", None));
    for lost in 1..8 {
        for order in (0..1 << ORDERED).step_by(5) {
            let table = Memory { lost: Some(lost), ..Memory::default() };
            let made = both(order, pin!(assign_in(&table, &one)), pin!(assign_in(&table, &two)));
            let live = table.live();
            let count = made.iter().filter(|made| made.is_ok()).count();
            assert!(count < 2, "{lost} {order:b}: {made:?}");
            assert!(made.iter().flatten().all(|made| live.contains(made)), "{lost} {order:b}: {made:?}");
        }
    }
}

#[test]
fn an_assignment_ends_at_the_earliest_of_its_ends() {
    for order in 0..1 << ORDERED {
        let table = Memory::default();
        let made = finish(assign_in(&table, &of("a", "101", None))).unwrap();
        let (early, late) = (unassign_in(&table, made.number, 900), unassign_in(&table, made.number, 1200));
        let [early, late] = both(order, pin!(early), pin!(late));
        assert_eq!(early.unwrap().unwrap().until, Some(900), "{order:b}");
        let text = |error: &StoreError| error.to_string();
        assert!(
            late.as_ref().map_or_else(|error| text(error).contains("no assignment 1"), Option::is_some),
            "{order:b}: {late:?}"
        );
        assert_eq!(table.live()[0].until, Some(900), "{order:b}");
        // What never held is removed for ever.
        assert_eq!(finish(unassign_in(&table, 1, 600)).unwrap(), None);
        assert!(table.live().is_empty() && finish(unassign_in(&table, 1, 600)).is_err());
        assert_eq!(finish(assign_in(&table, &of("b", "101", None))).unwrap().number, 2);
    }
}

#[test]
fn one_of_two_with_the_same_number_can_be_ended() {
    let table = Memory::default();
    for (id, until) in [(1, Some(900)), (2, None)] {
        let assignment = Assignment { number: 7, ..of("a", "101", until) };
        finish(table.add(&Entry { assignment, id, is_removed: false })).unwrap();
    }
    assert_eq!(finish(unassign_in(&table, 7, 900)).unwrap().unwrap().until, Some(900));
    assert!(finish(unassign_in(&table, 7, 900)).is_err());
}
