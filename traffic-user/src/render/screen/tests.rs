use ratatui::{Terminal, backend::TestBackend};
use traffic_common::Tally;
use traffic_model::{ByDirection, ClassCounter, ContainerId, Snapshot, live_rates::Order, sample};

use super::{state::Section, *};
use crate::render::{ClassNames, dump::Filter};

/// A reading with names of classes, and of no container.
fn named(snapshot: Snapshot) -> Reading {
    Reading { snapshot, classes: names(), containers: ContainerNames::new() }
}

/// What the sample's counters have, with a row for each of `ids`, and `seconds` after the first reading.
fn reading(ids: &[&str], seconds: u64) -> Snapshot {
    let mut snapshot = sample::snapshot();
    snapshot.boottime_ns += seconds * 1_000_000_000;
    let first = snapshot.counters[0].clone();
    snapshot.counters = (1..)
        .zip(ids)
        .map(|(number, id)| {
            let amount = |factor: u64| Tally {
                packets: number * factor * seconds,
                bytes: number * factor * 1000 * seconds,
            };
            ClassCounter {
                container: ContainerId::new(id).unwrap(),
                class: 1,
                tally: ByDirection { incoming: amount(3), outgoing: amount(5) },
                ..first.clone()
            }
        })
        .collect();
    snapshot
}

fn start(kind: Kind) -> Start {
    Start {
        kind,
        filter: Filter::default(),
        order: Order::Total,
        by_class: false,
        by_family: false,
        human: false,
        colours: false,
        ascii: false,
    }
}

fn names() -> ClassNames {
    [(1, "World".to_owned())].into()
}

/// A screen with two readings, the second of which has a second's traffic.
fn screen(kind: Kind, ids: &[&str]) -> Screen {
    let mut screen = Screen::new(start(kind));
    screen.take(named(reading(ids, 1)));
    screen.take(named(reading(ids, 2)));
    screen
}

/// The lines of the screen, without blanks at their ends.
fn lines(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(screen, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|at| format!("ct{at}")).collect()
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        assert_eq!(screen.press(Key::Char(key)), Action::Draw, "{key}");
    }
}

#[test]
fn columns_follow_the_width() {
    for (width, headings) in [
        (50, &["CONTAINER", "IN", "OUT", "LAST 60 S"][..]),
        (80, &["CONTAINER", "IN", "IN PACKETS/S", "OUT", "OUT PACKETS/S", "LAST 60 S"]),
        (120, &["CONTAINER", "IN", "IN PACKETS/S", "OUT", "OUT PACKETS/S", "LAST 60 S"]),
        (200, &["CONTAINER", "IN", "IN PACKETS/S", "OUT", "OUT PACKETS/S", "LAST 60 S"]),
    ] {
        let mut screen = screen(Kind::Rates, &["101", "0b5ae43a-8f0e-4e2d-9a67-3d0c7a6f1c11"]);
        let shown = lines(&mut screen, width, 24);
        assert_eq!(self::headings(&mut screen, width), headings, "{width}: {shown:#?}");
        // The busiest first, whole where there is room.
        let name = if width >= 120 { "0b5ae43a-8f0e-4e2d-9a67-3d0c7a6f1c11" } else { "0b5a" };
        assert!(shown[4].starts_with(name) && shown[5].starts_with("101 "), "{width}: {shown:#?}");
        assert!(shown[4].contains("48.0 kbit/s") && shown[4].contains("80.0 kbit/s"), "{width}: {shown:#?}");
        assert!(shown[4].contains('\u{2588}'), "{width}: {shown:#?}");
        assert!(shown[23].contains("q quit  ? help  by total"), "{width}: {shown:#?}");
    }
}

/// The headings of a screen of this width.
fn headings(screen: &mut Screen, width: u16) -> Vec<String> {
    let shown = lines(screen, width, 24);
    shown[3].split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn totals_have_all_figures_before_the_picture() {
    let start = Start { by_class: true, by_family: true, ..start(Kind::Totals) };
    let mut screen = Screen::new(start);
    let mut reading = reading(&["101", "102"], 7);
    // 1.2 TB.
    reading.counters[0].tally.incoming.bytes = 1_234_567_890_123;
    screen.take(named(reading));
    let figures = ["IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"];
    let at_80 = headings(&mut screen, 80);
    assert_eq!(at_80[at_80.len() - 4..], figures, "{at_80:?}");
    assert!(lines(&mut screen, 80, 24)[4].contains("1234567890123"), "{:#?}", lines(&mut screen, 80, 24));
    let at_100 = headings(&mut screen, 100);
    assert_eq!(at_100[at_100.len() - 5..], [&figures[..], &["LAST 60 S"]].concat(), "{at_100:?}");
    // No figure is cut: where it does not fit, it has a unit.
    let at_50 = headings(&mut screen, 50);
    assert_eq!(at_50[at_50.len() - 2..], ["IN BYTES", "OUT BYTES"], "{at_50:?}");
    assert!(lines(&mut screen, 50, 24)[4].contains("1.12 TiB"), "{:#?}", lines(&mut screen, 50, 24));
}

#[test]
fn names_of_containers_stand_beside_their_ids() {
    let mut screen = Screen::new(start(Kind::Rates));
    let uuid = "0b5ae43a-8f0e-4e2d-9a67-3d0c7a6f1c11";
    let called = [("101", "web \u{1b}[2J"), (uuid, "shop of Meier"), ("103", "")];
    let containers: ContainerNames = called
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(id, name)| (ContainerId::new(id).unwrap(), (*name).to_owned()))
        .collect();
    for seconds in [1, 2] {
        let snapshot = reading(&["101", uuid, "103"], seconds);
        screen.take(Reading { snapshot, classes: names(), containers: containers.clone() });
    }
    let line = |screen: &mut Screen, width, text: &str| -> String {
        lines(screen, width, 24).into_iter().find(|line| line.contains(text)).unwrap_or_default()
    };
    for width in [80, 120, 200] {
        assert_eq!(headings(&mut screen, width)[..2], ["CONTAINER", "NAME"], "{width}");
        assert!(line(&mut screen, width, "shop of Meier").starts_with("0b5ae"), "{width}");
        assert!(line(&mut screen, width, "web \u{fffd}[2J").starts_with("101 "), "{width}");
    }
    assert!(line(&mut screen, 120, "shop of Meier").starts_with(uuid));
    assert!(line(&mut screen, 50, "sho").contains("48.0 kbit/s"), "{:#?}", lines(&mut screen, 50, 24));
    // A name is found, and names are sorted by what is shown for people.
    press(&mut screen, "n");
    let shown = lines(&mut screen, 80, 24);
    assert!(
        shown[4].starts_with("103 ") && shown[5].contains("shop") && shown[6].contains("web"),
        "{shown:#?}"
    );
    press(&mut screen, "/MEIER");
    let shown = lines(&mut screen, 80, 24);
    assert!(shown[4].contains("shop of Meier") && shown[5].is_empty(), "{shown:#?}");
}

#[test]
fn without_unicode_everything_is_ascii() {
    let mut screen = Screen::new(Start { ascii: true, ..start(Kind::Rates) });
    for seconds in [1, 2] {
        let snapshot = reading(&["a-long-name-of-a-container", "b"], seconds);
        let containers = [(ContainerId::new("b").unwrap(), "b\u{fc}ro \u{4f60}".to_owned())].into();
        screen.take(Reading { snapshot, classes: names(), containers });
    }
    for width in [50, 80, 120] {
        let shown = lines(&mut screen, width, 24);
        assert!(shown.iter().all(|line| line.is_ascii()), "{shown:#?}");
        assert!(shown[4].contains('#') || width == 50, "{shown:#?}");
    }
    assert!(lines(&mut screen, 120, 24)[4..6].iter().any(|line| line.contains("b?ro ??")));
}

#[test]
fn every_size_is_drawn() {
    let names = ids(300);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for kind in [Kind::Rates, Kind::Totals] {
        let mut screen = screen(kind, &names);
        screen.by_class = true;
        screen.by_family = true;
        for width in [1, 2, 10, 20, 49, 50, 51, 79, 80, 120, 200, 500] {
            for height in [1, 2, 3, 4, 5, 6, 7, 8, 24, 60] {
                screen.is_helping = false;
                let shown = lines(&mut screen, width, height);
                assert!(shown.iter().any(|line| line.starts_with('c') || width < 10), "{width}x{height}");
                screen.is_helping = true;
                lines(&mut screen, width, height);
            }
        }
    }
}

#[test]
fn a_figure_is_whole_or_not_there_at_any_width() {
    for kind in [Kind::Rates, Kind::Totals] {
        let mut screen = screen(kind, &["101", "102"]);
        // Totals get a unit where the exact number does not fit.
        let mut whole = Vec::new();
        for human in [true, false] {
            screen.human = human;
            let shown = lines(&mut screen, 200, 24);
            whole.extend(shown.iter().flat_map(|line| words(line)).map(str::to_owned));
        }
        for (width, height) in (1..200).flat_map(|width| [(width, 24), (width, 4)]) {
            let shown = lines(&mut screen, width, height);
            // Below the node and its time, above the keys.
            let figures = shown[1..usize::from(height) - 1].iter().flat_map(|line| words(line));
            let cut: Vec<&str> = figures
                .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
                .filter(|word| *word != "101" && *word != "102" && !whole.iter().any(|one| one == word))
                .filter(|word| width >= 8 || !"101 102".contains(word))
                .collect();
            assert!(cut.is_empty(), "{kind:?} {width}: {cut:?} in {shown:#?}");
        }
    }
    let mut screen = screen(Kind::Rates, &["101"]);
    let shown = lines(&mut screen, 30, 24);
    assert!(shown[4].ends_with('\u{2026}'), "{shown:#?}");
}

/// Figures with their units.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split("  ").map(str::trim).filter(|word| !word.is_empty())
}

#[test]
fn totals_are_the_exact_figures_of_a_dump() {
    let reading = reading(&["101", "102"], 7);
    let mut screen = Screen::new(Start { by_class: true, by_family: true, ..start(Kind::Totals) });
    screen.take(named(reading.clone()));
    let document: serde_json::Value =
        serde_json::from_str(&crate::render::dump::json(&reading, &names()).unwrap()).unwrap();
    let shown = lines(&mut screen, 120, 24);
    for row in document["counters"].as_array().unwrap() {
        let id = row["container"].as_str().unwrap();
        let line = shown.iter().find(|line| line.starts_with(id)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let exact = ["in_bytes", "in_packets", "out_bytes", "out_packets"].map(|name| row[name].to_string());
        assert_eq!(words[..4], [id, "1", "World", row["family"].as_str().unwrap()]);
        assert_eq!(words[4..8], exact, "{shown:#?}");
    }
    // Names come in the order of numbers.
    assert!(shown[4].starts_with("101") && shown[5].starts_with("102"), "{shown:#?}");
    assert_eq!(screen.press(Key::Tab), Action::Draw);
    assert_eq!(screen.section, Section::Faults);
    assert!(lines(&mut screen, 80, 24)[3].starts_with("INTERFACE"));
    screen.press(Key::Tab);
    let shown = lines(&mut screen, 120, 24);
    let interface = &reading.interfaces[0];
    let line = shown.iter().find(|line| line.starts_with(&interface.interface)).unwrap();
    assert!(line.contains(&interface.passed.incoming.wire.bytes.to_string()), "{line}");
}

#[test]
fn keys_sort_filter_and_divide() {
    let mut screen = screen(Kind::Rates, &["b", "a", "web", "10", "9"]);
    let order = |screen: &mut Screen| -> Vec<String> {
        let shown = lines(screen, 80, 24);
        shown[4..9].iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    assert_eq!(order(&mut screen), ["9", "10", "web", "a", "b"]);
    press(&mut screen, "n");
    assert_eq!(order(&mut screen), ["9", "10", "a", "b", "web"]);
    press(&mut screen, "/WE");
    assert_eq!(order(&mut screen)[..2], ["web", ""]);
    // While a text is typed, q is a letter.
    press(&mut screen, "q");
    assert!(lines(&mut screen, 80, 24)[4].starts_with("nothing matches"));
    screen.press(Key::Backspace);
    screen.press(Key::Enter);
    assert!(lines(&mut screen, 80, 24)[23].starts_with("only \"WE\""));
    screen.press(Key::Escape);
    press(&mut screen, "cf");
    let shown = lines(&mut screen, 100, 24);
    assert!(shown[3].contains("CLASS") && shown[3].contains("FAMILY"), "{shown:#?}");
    assert!(shown[4].contains("1 World") && shown[4].contains("ipv4"), "{shown:#?}");
    press(&mut screen, "b");
    assert!(lines(&mut screen, 100, 24)[4].contains("kB/s"));
    for (key, mark) in [('i', "IN\u{25bc}"), ('o', "OUT\u{25bc}"), ('p', "PACKETS/S\u{25bc}")] {
        screen.press(Key::Char(key));
        assert!(lines(&mut screen, 120, 24)[3].contains(mark), "{key}");
    }
    assert_eq!(screen.press(Key::Char('q')), Action::Quit);
    assert_eq!(screen.press(Key::Ctrl('c')), Action::Quit);
    assert_eq!(screen.press(Key::Ctrl('z')), Action::Suspend);
    assert_eq!(screen.press(Key::Ctrl('l')), Action::Redraw);
}

#[test]
fn pages_reach_every_row_and_say_how_many_are_left() {
    let names = ids(50);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut screen = screen(Kind::Rates, &names);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let shown = lines(&mut screen, 80, 24);
        seen.extend(shown[4..23].iter().filter_map(|line| line.split(' ').next().map(str::to_owned)));
        screen.press(Key::PageDown);
    }
    assert_eq!(seen.len(), 50);
    assert!(lines(&mut screen, 80, 24)[23].starts_with("31 above"));
    screen.press(Key::Home);
    assert!(lines(&mut screen, 80, 24)[23].starts_with("31 more"));
    screen.press(Key::End);
    // A larger terminal shows what fits, from the end.
    assert!(!lines(&mut screen, 80, 60)[59].contains("more"));
    lines(&mut screen, 80, 24);
    for _ in 0..1000 {
        screen.press(Key::Down);
    }
    assert!(lines(&mut screen, 80, 24)[22].starts_with("ct1 "));
}

#[test]
fn without_counters_the_screen_says_so_and_goes_on() {
    let mut screen = Screen::new(start(Kind::Rates));
    assert!(lines(&mut screen, 80, 24)[0].starts_with("reading the counters"));
    screen.miss("there are no counters\u{1b}[2J".to_owned());
    let shown = lines(&mut screen, 80, 24);
    assert!(shown[0].starts_with("there are no counters\u{fffd}[2J"), "{shown:#?}");
    screen.take(named(reading(&["a"], 1)));
    screen.miss("purged".to_owned());
    for height in [6, 24] {
        let shown = lines(&mut screen, 80, height);
        assert!(shown[..2].iter().any(|line| line.starts_with("no newer reading: purged")), "{shown:#?}");
    }
    // Other counters: the past is not theirs.
    let mut anew = reading(&["a"], 3);
    anew.epoch += 1;
    screen.take(named(anew));
    let shown = lines(&mut screen, 80, 24);
    assert!(!shown.iter().any(|line| line.contains("no newer")), "{shown:#?}");
    assert!(shown[4].starts_with("a "), "{shown:#?}");
}

#[test]
fn a_pause_keeps_what_is_shown() {
    let mut screen = screen(Kind::Rates, &["a"]);
    press(&mut screen, " ");
    let before = lines(&mut screen, 80, 24);
    assert!(before[0].ends_with("paused"), "{before:#?}");
    screen.take(named(reading(&["a", "b"], 9)));
    assert_eq!(lines(&mut screen, 80, 24), before);
    press(&mut screen, " ");
    screen.take(named(reading(&["a", "b"], 10)));
    assert!(lines(&mut screen, 80, 24)[4].starts_with("b "));
}

#[test]
fn names_of_others_cannot_break_the_screen() {
    let mut screen = screen(Kind::Rates, &["a"]);
    screen.by_class = true;
    for name in [
        "\u{1b}[31m\u{1b}]0;x\u{7}",
        "\u{4f60}\u{597d}\u{4f60}\u{597d}\u{4f60}\u{597d}",
        "\u{202e}abc",
        "a\nb\tc",
    ] {
        screen.classes = [(1, name.to_owned())].into();
        for width in [50, 80] {
            let shown = lines(&mut screen, width, 24);
            assert!(shown.iter().all(|line| !line.contains(char::is_control)), "{shown:?}");
            assert!(shown[4].contains("24.0 kbit/s"), "{width}: {shown:#?}");
        }
    }
}

#[test]
fn without_colours_nothing_is_coloured() {
    use ratatui::style::Color;
    for colours in [false, true] {
        let mut screen = Screen::new(Start { colours, ..start(Kind::Rates) });
        screen.take(named(reading(&["a"], 1)));
        screen.take(named(reading(&["a"], 2)));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(&mut screen, frame)).unwrap();
        let has_colour = terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(has_colour, colours);
    }
}
