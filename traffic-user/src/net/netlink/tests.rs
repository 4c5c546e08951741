//! Requests against a kernel that is scripted to misbehave.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What the scripted kernel does when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The interfaces of these indexes, and the end.
    Dump(Vec<u32>),
    /// The same, marked as interrupted.
    Interrupted(Vec<u32>),
    /// First what an earlier request asked for, then [`Self::Dump`].
    LateThenDump(Vec<u32>),
    /// Nothing.
    Silence,
    /// A refusal.
    Refusal(i32),
    /// Bytes that are no message.
    Garbage,
    /// The socket's buffer ran over, and the answer is lost.
    Overrun,
}

struct Scripted {
    answers: VecDeque<Answer>,
    pending: VecDeque<io::Result<Vec<u8>>>,
}

impl Scripted {
    fn netlink(answers: impl IntoIterator<Item = Answer>) -> Netlink {
        let scripted = Self { answers: answers.into_iter().collect(), pending: VecDeque::new() };
        Netlink::over(Box::new(scripted), Duration::from_millis(5))
    }
}

fn link_message(index: u32, flags: u16, sequence: u32) -> Vec<u8> {
    let mut body = [0; 16];
    body[2] = 1;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let request = Request::new(16, 0, &body).attribute(3, format!("veth{index}\0").as_bytes());
    let mut bytes = request.finish(sequence).unwrap();
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn done(flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = Request::new(message::DONE, 0, &[0; 4]).finish(sequence).unwrap();
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

impl Transport for Scripted {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let sequence = message::u32_at(request, 8).unwrap();
        let dump = |indexes: Vec<u32>, flags: u16, sequence: u32| -> Vec<u8> {
            let mut bytes: Vec<u8> =
                indexes.into_iter().flat_map(|index| link_message(index, 2, sequence)).collect();
            bytes.extend(done(2 | flags, sequence));
            bytes
        };
        self.pending.clear();
        match self.answers.pop_front().unwrap_or(Answer::Silence) {
            Answer::Dump(indexes) => self.pending.push_back(Ok(dump(indexes, 0, sequence))),
            Answer::Interrupted(indexes) => {
                self.pending.push_back(Ok(dump(indexes, message::DUMP_INTERRUPTED, sequence)));
            }
            Answer::LateThenDump(indexes) => {
                self.pending.push_back(Ok(dump(vec![99], 0, sequence.wrapping_sub(1))));
                self.pending.push_back(Ok(dump(indexes, 0, sequence)));
            }
            Answer::Silence => {}
            Answer::Refusal(errno) => {
                let request = Request::new(message::ERROR, 0, &(-errno).to_ne_bytes());
                self.pending.push_back(request.finish(sequence));
            }
            Answer::Garbage => self.pending.push_back(Ok(vec![0xff; 40])),
            Answer::Overrun => {
                self.pending.push_back(Err(io::Error::from_raw_os_error(libc::ENOBUFS)));
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], _deadline: Instant) -> io::Result<usize> {
        let datagram = self.pending.pop_front().unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

fn indexes(netlink: &Netlink) -> Result<Vec<u32>, String> {
    let listed = netlink.interfaces().map_err(|error| format!("{error:#}"))?;
    Ok(listed.into_iter().map(|interface| interface.index).collect())
}

#[test]
fn an_interrupted_dump_is_repeated() {
    let netlink = Scripted::netlink([
        Answer::Interrupted(vec![1]),
        Answer::Interrupted(vec![1, 3]),
        Answer::Dump(vec![1, 2, 3]),
    ]);
    assert_eq!(indexes(&netlink), Ok(vec![1, 2, 3]));
}

#[test]
fn a_dump_that_is_interrupted_for_ever_ends() {
    let netlink = Scripted::netlink(std::iter::repeat_n(Answer::Interrupted(vec![7]), 100));
    assert_eq!(indexes(&netlink), Ok(vec![7]));
}

#[test]
fn a_late_reply_is_not_taken_for_this_one() {
    let netlink = Scripted::netlink([Answer::Silence, Answer::LateThenDump(vec![4])]);
    let error = indexes(&netlink).unwrap_err();
    assert!(error.starts_with("cannot list the interfaces"), "{error}");
    assert_eq!(indexes(&netlink), Ok(vec![4]));
}

#[test]
fn absence_is_what_the_kernel_says_and_nothing_else() {
    let netlink =
        Scripted::netlink([Answer::Refusal(libc::ENODEV), Answer::Refusal(libc::ENOBUFS), Answer::Silence]);
    assert!(netlink.interface(7).unwrap().is_none());
    assert!(netlink.interface(7).is_err());
    assert!(netlink.interface(7).is_err());
}

#[test]
fn a_kernel_that_does_not_answer_for_one_other_end_is_not_asked_for_more() {
    let netlink = Scripted::netlink([Answer::Silence, Answer::Refusal(libc::ENODEV)]);
    let veth = |index: u32| NetInterface {
        index,
        kind: "veth".to_owned(),
        peer: Some(index + 100),
        peer_namespace: Some(3),
        ..NetInterface::default()
    };
    let mut listed = [veth(7), veth(8), veth(9)];
    assert!(listed[0].is_counted_on_the_other_end());
    netlink.add_other_ends(&mut listed, |_| true);
    assert_eq!(listed, [veth(7), veth(8), veth(9)]);
    // The second answer is still there.
    assert!(netlink.interface(7).unwrap().is_none());
}

#[test]
fn a_dump_that_ends_with_an_error_is_an_error() {
    struct Broken;
    impl Transport for Broken {
        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn receive(&mut self, buffer: &mut [u8], _: Instant) -> io::Result<usize> {
            let bytes = Request::new(message::DONE, 0, &(-libc::ENOMEM).to_ne_bytes()).finish(1)?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }
    let netlink = Netlink::over(Box::new(Broken), PATIENCE);
    let error = netlink.interfaces().unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().raw_os_error(), Some(libc::ENOMEM));
}

fn answer() -> impl Strategy<Value = Answer> {
    let list = || proptest::collection::vec(1..50_u32, 0..5);
    prop_oneof![
        list().prop_map(Answer::Dump),
        list().prop_map(Answer::Interrupted),
        list().prop_map(Answer::LateThenDump),
        Just(Answer::Silence),
        (1..130_i32).prop_map(Answer::Refusal),
        Just(Answer::Garbage),
        Just(Answer::Overrun),
    ]
}

proptest! {
    /// Whatever the kernel answers, each request ends, and a listing is the answer to its own request.
    #[test]
    fn every_request_ends(answers in proptest::collection::vec(answer(), 0..30)) {
        let netlink = Scripted::netlink(answers.clone());
        for _ in 0..answers.len() {
            if let Ok(listed) = indexes(&netlink) {
                prop_assert!(!listed.contains(&99), "an answer to another request was taken");
            }
        }
    }
}
