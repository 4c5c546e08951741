//! Random histories of a node, compared with the sum of all its traffic.

use std::time::Duration;

use proptest::prelude::*;

use crate::{GapReason, Ledger, LedgerConfig, testing::*};

/// An event between two drains.
#[derive(Clone, Debug)]
enum Event {
    Traffic {
        container: u8,
        class: u8,
        bytes: u32,
    },
    Pass {
        seconds: u16,
    },
    SetClock {
        by_s: i32,
    },
    Drain,
    RestartDaemon,
    /// Drains first, because nothing counted after the last drain can be known.
    Reboot,
    NewMaps,
    NewSlot {
        container: u8,
    },
    NewTable,
    Maintain {
        limited: bool,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0_u8..3, 0_u8..3, 1_u32..1_000_000)
            .prop_map(|(container, class, bytes)| Event::Traffic { container, class, bytes }),
        6 => (1_u16..4000).prop_map(|seconds| Event::Pass { seconds }),
        1 => (-20_000_i32..20_000).prop_map(|by_s| Event::SetClock { by_s }),
        6 => Just(Event::Drain),
        1 => Just(Event::RestartDaemon),
        1 => Just(Event::Reboot),
        1 => Just(Event::NewMaps),
        1 => (0_u8..3).prop_map(|container| Event::NewSlot { container }),
        1 => Just(Event::NewTable),
        2 => any::<bool>().prop_map(|limited| Event::Maintain { limited }),
    ];
    proptest::collection::vec(event, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// After any history, the ledger holds every byte once, every summed level holds the same, and the audit
    /// finds no problem at any time, even in a ledger that began in the middle.
    #[test]
    fn any_history_sums_correctly(events in events(), begun_late in 0..80_usize) {
        let (mut file, mut late) = (ledger(), ledger());
        let mut node = Node::balanced(NOON);
        let mut generations = [1_u32; 3];
        let mut next_generation = 2;
        for (at, event) in events.into_iter().enumerate() {
            if at >= begun_late {
                // A torn reading: the classes were read before the last traffic.
                let mut torn = node.snapshot();
                node.pass(1).traffic_in("100", generations[0], 1, [1, 60, 2, 70]);
                torn.interfaces = node.snapshot().interfaces;
                late.ledger.drain(&torn, EVERY_MINUTE).unwrap();
            }
            match event {
                Event::Traffic { container, class, bytes } => {
                    let sums = [1, bytes.into(), 2, u64::from(bytes) * 3];
                    let generation = generations[usize::from(container)];
                    node.traffic_in(&format!("10{container}"), generation, class, sums);
                }
                Event::Pass { seconds } => { node.pass(seconds.into()); }
                Event::SetClock { by_s } => { node.set_clock(by_s.into()); }
                Event::Drain => { node.drain(&mut file.ledger); }
                Event::RestartDaemon => {
                    let path = file.ledger.path().to_owned();
                    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
                    file.ledger.conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
                }
                Event::Reboot => { node.drain(&mut file.ledger); node.reboot(300); }
                Event::NewMaps => { node.drain(&mut file.ledger); node.renew_maps(); }
                Event::NewSlot { container } => {
                    node.drain(&mut file.ledger);
                    if at >= begun_late {
                        node.drain(&mut late.ledger);
                    }
                    let name = format!("10{container}");
                    node.give_away(&name);
                    generations[usize::from(container)] = next_generation;
                    next_generation += 1;
                }
                Event::NewTable => {
                    node.drain(&mut file.ledger);
                    node.table = node.table.wrapping_add(1);
                    node.table_loaded = node.wall;
                }
                Event::Maintain { limited: false } => { file.ledger.maintain(node.wall).unwrap(); }
                Event::Maintain { limited: true } => {
                    file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap();
                }
            }
        }
        node.drain(&mut file.ledger);
        for ledger in [&file.ledger, &late.ledger] {
            prop_assert_eq!(ledger.audit().unwrap().problems, Vec::<String>::new());
        }
        prop_assert_eq!(&sums(&file.ledger, "traffic_5min"), &node.truth);
        prop_assert!(!file.ledger.gaps(None, None).unwrap().iter().any(|gap| gap.reason == GapReason::CounterLost));
    }
}
