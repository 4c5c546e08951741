//! The traffic classes of PBA-S (formerly HSPcomplete), in the XML that it imports.
//!
//! Its numbers are one higher than Virtuozzo's: class 1 is "no accounting", which is class 0 in a class file,
//! and class 2 matches every address, which is class 1.

use ipnet::IpNet;

use super::collector::Collector;
use crate::{MAX_CLASS, check_name, parse::network::quote, ranges::Range};

/// Reads `<data><traffclass><id/><name/><range><ip/><prefix/></range>...</traffclass>...</data>`.
pub(super) fn read(text: &str, collector: &mut Collector) {
    if text.is_empty() {
        return;
    }
    let document = match roxmltree::Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            return collector.refuse(0, format!("this is no readable XML: {error}; get the file again"));
        }
    };
    let line = |node: roxmltree::Node<'_, '_>| {
        usize::try_from(document.text_pos_at(node.range().start).row).unwrap_or(0)
    };
    let is_class = |node: &roxmltree::Node<'_, '_>| node.has_tag_name("traffclass");
    for class in document.descendants().filter(is_class) {
        let of = |node: roxmltree::Node<'_, '_>, tag: &str| {
            let child = node.children().find(|child| child.has_tag_name(tag))?;
            Some(child.text().unwrap_or_default().trim().to_owned())
        };
        let id = of(class, "id").unwrap_or_default();
        let number =
            id.parse::<u8>().ok().and_then(|id| id.checked_sub(1)).filter(|&class| class <= MAX_CLASS);
        let Some(number) = number else {
            let message = format!("the class number {} is not 1 or more; correct it", quote(&id));
            collector.refuse(line(class), message);
            continue;
        };
        if let Some(name) = of(class, "name").filter(|name| check_name(name).is_ok()) {
            collector.name(number, &name);
        }
        for range in class.children().filter(|child| child.has_tag_name("range")) {
            let (ip, prefix) = (of(range, "ip").unwrap_or_default(), of(range, "prefix").unwrap_or_default());
            match format!("{ip}/{prefix}").parse::<IpNet>() {
                Ok(network) if network == network.trunc() => {
                    collector.take_for(number, Range::of_network(network));
                }
                // It is called the starting address of a range, so other bits may mean another range.
                Ok(network) => {
                    let message = format!("{network} has host bits set; write {}", network.trunc());
                    collector.refuse(line(range), message);
                }
                Err(_) => {
                    let message =
                        format!("{} is not a network; correct the range", quote(&format!("{ip}/{prefix}")));
                    collector.refuse(line(range), message);
                }
            }
        }
    }
}
