//! What the screen shows at a moment: the last reading, the order, the filter, the place in the list.

use std::collections::BTreeMap;

use traffic_model::{
    ContainerId, Snapshot,
    live_rates::{self, CounterRow, Order, Selection},
};

use super::minute::Minute;
use crate::render::{ClassNames, dump::Filter};

/// A reading, and what classes and containers are called at that time.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The counters.
    pub snapshot: Snapshot,
    /// Names of classes.
    pub classes: ClassNames,
    /// Names of containers, of those that have another one than their id.
    pub containers: ContainerNames,
}

/// What people call containers.
pub type ContainerNames = BTreeMap<ContainerId, String>;

/// What the figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rates since the last reading: `trafctl top`.
    Rates,
    /// The counters themselves: `trafctl dump --watch`.
    Totals,
}

/// How a screen begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// What the figures are.
    pub kind: Kind,
    /// Which counters.
    pub filter: Filter,
    /// The order of rows.
    pub order: Order,
    /// A row for each class.
    pub by_class: bool,
    /// A row for each family.
    pub by_family: bool,
    /// Totals in KiB, MiB and so on.
    pub human: bool,
    /// Whether the terminal takes colours.
    pub colours: bool,
    /// Whether the terminal shows only ASCII.
    pub ascii: bool,
}

/// A key, whatever the terminal calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// The character with Ctrl.
    Ctrl(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first row.
    Home,
    /// To the last row.
    End,
}

/// What whoever drives the screen must do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Draw again.
    Draw,
    /// Draw everything anew: something else wrote to the terminal.
    Redraw,
    /// End.
    Quit,
    /// Give the terminal back to the shell for a while.
    Suspend,
}

/// What the list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Classes,
    Faults,
    Interfaces,
}

/// The order of rows in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorting {
    By(Order),
    Name,
}

/// The state of a screen.
#[derive(Debug)]
pub struct Screen {
    pub(super) kind: Kind,
    pub(super) filter: Filter,
    pub(super) sorting: Sorting,
    pub(super) by_class: bool,
    pub(super) by_family: bool,
    pub(super) human: bool,
    pub(super) in_bytes: bool,
    pub(super) colours: bool,
    pub(super) ascii: bool,
    pub(super) section: Section,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
    /// What is looked for in names, and whether it is being typed.
    pub(super) search: String,
    pub(super) is_typing: bool,
    /// The first row shown.
    pub(super) top: usize,
    /// How many rows were shown last, and how many there are.
    pub(super) page: usize,
    pub(super) row_count: usize,
    pub(super) classes: ClassNames,
    pub(super) containers: ContainerNames,
    /// The last reading, and the traffic since the one before it.
    pub(super) reading: Option<Snapshot>,
    pub(super) passed: Vec<CounterRow>,
    pub(super) rates: Option<live_rates::LiveRates>,
    pub(super) minute: Minute,
    /// Why there is no newer reading.
    pub(super) problem: Option<String>,
}

impl Screen {
    /// A screen without a reading.
    pub fn new(start: Start) -> Self {
        Self {
            kind: start.kind,
            filter: start.filter,
            sorting: match start.kind {
                Kind::Rates => Sorting::By(start.order),
                Kind::Totals => Sorting::Name,
            },
            by_class: start.by_class,
            by_family: start.by_family,
            human: start.human,
            in_bytes: false,
            colours: start.colours,
            ascii: start.ascii,
            section: Section::Classes,
            is_paused: false,
            is_helping: false,
            search: String::new(),
            is_typing: false,
            top: 0,
            page: 1,
            row_count: 0,
            classes: ClassNames::new(),
            containers: ContainerNames::new(),
            reading: None,
            passed: Vec::new(),
            rates: None,
            minute: Minute::default(),
            problem: None,
        }
    }

    /// Takes a reading. While paused, the screen stays as it is; what passed is in the next one.
    pub fn take(&mut self, reading: Reading) {
        if self.is_paused {
            return;
        }
        self.problem = None;
        self.classes = reading.classes;
        self.containers = reading.containers;
        let reading = reading.snapshot;
        if let Some(earlier) = &self.reading {
            let is_same = (&earlier.boot_id, earlier.epoch) == (&reading.boot_id, reading.epoch);
            if !is_same {
                self.minute.clear();
            }
            let selection = Selection { wanted: self.filter.wanted.clone(), ..Selection::default() };
            let rates = live_rates::between(earlier, &reading, &selection);
            self.passed = live_rates::by_counter(earlier, &reading, &selection.wanted);
            self.minute.add(&self.passed, rates.seconds);
            self.rates = Some(rates);
        }
        self.reading = Some(reading);
    }

    /// Notes that a reading failed. What was read before stays, marked as old.
    pub fn miss(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// Acts on a key.
    pub fn press(&mut self, key: Key) -> Action {
        match key {
            Key::Ctrl('c' | 'd') => return Action::Quit,
            Key::Ctrl('z') => return Action::Suspend,
            Key::Ctrl('l') => return Action::Redraw,
            _ if self.is_typing => self.type_search(key),
            _ if self.is_helping => self.is_helping = false,
            Key::Char('q') => return Action::Quit,
            Key::Char('?' | 'h') => self.is_helping = true,
            Key::Char('/') => self.is_typing = true,
            Key::Escape => self.search.clear(),
            Key::Char(' ') => self.is_paused = !self.is_paused,
            Key::Char('t') => self.sort(Sorting::By(Order::Total)),
            Key::Char('i') => self.sort(Sorting::By(Order::In)),
            Key::Char('o') => self.sort(Sorting::By(Order::Out)),
            Key::Char('p') => self.sort(Sorting::By(Order::Packets)),
            Key::Char('n') => self.sort(Sorting::Name),
            Key::Char('c') => self.by_class = !self.by_class,
            Key::Char('f') => self.by_family = !self.by_family,
            Key::Char('b') => self.in_bytes = !self.in_bytes,
            Key::Tab if self.kind == Kind::Totals => self.turn_section(),
            _ => self.scroll(key),
        }
        Action::Draw
    }

    fn sort(&mut self, sorting: Sorting) {
        self.sorting = sorting;
        self.top = 0;
    }

    fn turn_section(&mut self) {
        self.section = match self.section {
            Section::Classes => Section::Faults,
            Section::Faults => Section::Interfaces,
            Section::Interfaces => Section::Classes,
        };
        self.top = 0;
    }

    fn type_search(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.search.chars().count() < 64 => self.search.push(c),
            Key::Backspace => drop(self.search.pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.search.clear();
                self.is_typing = false;
            }
            Key::Ctrl('u') => self.search.clear(),
            _ => return self.scroll(key),
        }
        self.top = 0;
    }

    fn scroll(&mut self, key: Key) {
        let page = self.page.max(1);
        let last = self.row_count.saturating_sub(page);
        self.top = match key {
            Key::Up | Key::Char('k') => self.top.saturating_sub(1),
            Key::Down | Key::Char('j') => self.top + 1,
            Key::PageUp => self.top.saturating_sub(page),
            Key::PageDown => self.top + page,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            _ => self.top,
        }
        .min(last);
    }
}
