//! Sends the same frames as real traffic, out of a container through its interface.

use anyhow::{Context as _, Result, ensure};

use super::{
    Growth, Interface, Way,
    frames::{Frame, Generator},
    kernel::growth,
    reference::{self, judge},
};
use crate::{Amounts, Container, Counters, Lab, traffic::RawSocket, witness::InterfaceStatistics};

/// The longest frame for a veth with an MTU of 1,500 bytes.
const LONGEST: usize = 1514;

/// Container 101 sends generated frames through a raw socket; its neighbour is silent. Each frame must be
/// where the reference expects it, the kernel's interface statistics must show that all arrived, and the
/// neighbour must not have sent anything.
///
/// # Errors
///
/// When a frame cannot be sent, or the statistics differ.
pub fn over_wire(seed: u64, frames: usize) -> Result<(Amounts, Amounts)> {
    let lab = Lab::new("hostile")?;
    let classes = lab.write("classes", reference::CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\n"))?;
    let ours = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let _neighbour = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    lab.run_ok(&["attach"])?;
    let frames = frames_for_wire(seed, frames);
    let sent_bytes: u64 = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
    let before = (Counters::at_rest(&lab)?, statistics(&lab, &ours)?);
    let socket = RawSocket::open(ours.namespace(), "eth0")?;
    for frame in &frames {
        socket.send(&frame.bytes).with_context(|| frame.to_string())?;
    }
    let after = (Counters::at_rest(&lab)?, statistics(&lab, &ours)?);

    let arrived = (after.1.rx_packets - before.1.rx_packets, after.1.rx_bytes - before.1.rx_bytes);
    ensure!(arrived == (frames.len() as u64, sent_bytes), "{arrived:?} arrived of {}", frames.len());
    let mut expected = Growth::new();
    for frame in &frames {
        let (counter, packets, bytes) = judge(&without_outer_tag(frame));
        let sum = expected.entry(counter).or_default();
        *sum = sum.plus(Amounts::outgoing(packets, bytes));
    }
    let was = growth(&before.0)?;
    let mut counted = growth(&after.0)?;
    counted.retain(|counter, amounts| {
        *amounts = amounts.since(was.get(counter).copied().unwrap_or_default());
        // Frames that are flooded to the neighbour count as in, which is correct.
        (amounts.in_packets, amounts.in_bytes) = (0, 0);
        *amounts != Amounts::default()
    });
    ensure!(counted == expected, "counted {counted:#?}, sent {expected:#?}");
    let sum = |growth: Growth| growth.into_values().fold(Amounts::default(), Amounts::plus);
    Ok((sum(expected), sum(counted)))
}

fn statistics(lab: &Lab, container: &Container) -> Result<InterfaceStatistics> {
    InterfaceStatistics::read(lab.host(), container.interface())
}

fn frames_for_wire(seed: u64, number: usize) -> Vec<Frame> {
    let mut generator = Generator::new(seed);
    let mut frames = Vec::with_capacity(number);
    while frames.len() < number {
        let mut frame = generator.frame();
        (frame.way, frame.interface, frame.gso) = (Way::Out, Interface::Own, None);
        frame.bytes.truncate(LONGEST);
        // The kernel drops a frame with an incomplete outer tag before any hook sees it.
        if !(is_tagged(&frame) && frame.bytes.len() < 20) {
            frames.push(frame);
        }
    }
    frames
}

fn is_tagged(frame: &Frame) -> bool {
    matches!(frame.bytes[12..14], [0x81, 0x00] | [0x88, 0xa8])
}

/// On reception the kernel moves the outer tag from the frame into the buffer's metadata.
fn without_outer_tag(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    if is_tagged(&frame) {
        frame.bytes.drain(12..16);
    }
    frame
}
