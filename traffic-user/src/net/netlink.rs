//! Talking rtnetlink: the list of interfaces, news of them, and the filters on their hooks.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkLayerType, LinkMessage},
    tc::{TcAttribute, TcFilterBpf, TcFilterBpfOption, TcMessage, TcOption},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;
use traffic_common::{Direction, InterfaceStatistics};

use crate::net::interface::NetInterface;

/// A connection to the kernel's rtnetlink, alive as long as this.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
    _connection: Arc<Connection>,
}

/// The task that moves messages between socket and handle.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What news are subscribed to.
const NEWS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// News of an interface, or of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceEvent {
    /// It appeared, or something about it changed.
    Seen(NetInterface),
    /// It is gone.
    Gone {
        /// Its index.
        index: u32,
    },
    /// An address of the node's own came or went.
    Addresses,
}

/// A classifier on a clsact hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFilter {
    /// Lower ones run first.
    pub priority: u16,
    /// Tells filters of one priority apart.
    pub handle: u32,
    /// Name given when it was attached.
    pub name: String,
    /// Id of the program.
    pub program_id: u32,
}

impl Netlink {
    /// Opens a connection in the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket can't be opened.
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _no_messages) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        let connection = Arc::new(Connection(tokio::spawn(connection)));
        Ok(Self { handle, _connection: connection })
    }

    /// Opens a connection that also brings news of interfaces and of the node's own addresses. News can be lost when they come too fast, so whoever
    /// follows them lists all interfaces now and then.
    ///
    /// # Errors
    /// When the socket can't be opened or may not join the group.
    pub fn watch() -> anyhow::Result<(Self, BoxStream<'static, InterfaceEvent>)> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&NEWS).context("cannot subscribe to news of interfaces")?;
        let connection = Arc::new(Connection(tokio::spawn(connection)));
        let events = messages.filter_map(async |(message, _from)| match message.payload {
            netlink_packet_core::NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(interface)) => {
                from_message(&interface).map(InterfaceEvent::Seen)
            }
            netlink_packet_core::NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(interface)) => {
                Some(InterfaceEvent::Gone { index: interface.header.index })
            }
            netlink_packet_core::NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_),
            ) => Some(InterfaceEvent::Addresses),
            _ => None,
        });
        Ok((Self { handle, _connection: connection }, events.boxed()))
    }

    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the listing.
    pub async fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.context("cannot list the interfaces")?;
        Ok(messages.iter().filter_map(from_message).collect())
    }

    /// The node's own addresses, on whatever interface.
    ///
    /// # Errors
    /// When the kernel refuses the listing.
    pub async fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.context("cannot list the addresses")?;
        Ok(messages.iter().filter_map(own_address).collect())
    }

    /// One interface as it is now; `None` when it is gone.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub async fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        let found: Result<Vec<LinkMessage>, _> =
            self.handle.link().get().match_index(index).execute().try_collect().await;
        match found {
            Ok(messages) => Ok(messages.first().and_then(from_message)),
            Err(rtnetlink::Error::NetlinkError(error)) if -error.raw_code() == libc::ENODEV => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot ask for interface {index}")),
        }
    }

    /// The classifiers on a clsact hook; none where there is no such qdisc.
    ///
    /// # Errors
    /// When the kernel refuses the listing for another reason.
    pub async fn bpf_filters(&self, ifindex: u32, direction: Direction) -> anyhow::Result<Vec<BpfFilter>> {
        let index = i32::try_from(ifindex).context("interface indexes fit 31 bits")?;
        let request = self.handle.traffic_filter(index).get();
        let request = match direction {
            Direction::In => request.egress(),
            Direction::Out => request.ingress(),
        };
        let filters: Result<Vec<TcMessage>, _> = request.execute().try_collect().await;
        match filters {
            Ok(filters) => Ok(filters.iter().filter_map(as_bpf_filter).collect()),
            // No qdisc of that kind, or no such interface any more.
            Err(rtnetlink::Error::NetlinkError(error))
                if matches!(
                    -error.raw_code(),
                    libc::EINVAL | libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot list the filters of interface {ifindex}"))
            }
        }
    }
}

/// Where both ends of an interface have an address, the node's is the local one.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn as_bpf_filter(message: &TcMessage) -> Option<BpfFilter> {
    let kind = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == TcFilterBpf::KIND));
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) if kind => Some(options),
        _ => None,
    })?;
    let (mut name, mut program_id) = (None, None);
    for option in options {
        if let TcOption::Bpf(option) = option {
            match option {
                TcFilterBpfOption::ProgName(text) => name = Some(text.clone()),
                TcFilterBpfOption::ProgId(id) => program_id = Some(*id),
                _ => {}
            }
        }
    }
    Some(BpfFilter {
        // The upper half of `tcm_info` is the priority.
        priority: u16::try_from(message.header.info >> 16).ok()?,
        handle: u32::from(message.header.handle),
        name: name?,
        program_id: program_id?,
    })
}

fn from_message(message: &LinkMessage) -> Option<NetInterface> {
    let mut interface = NetInterface {
        index: message.header.index,
        name: String::new(),
        mac: None,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        is_uplink: false,
        statistics: InterfaceStatistics::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(address) => interface.mac = address.as_slice().try_into().ok(),
            // The host receives what the container sends.
            LinkAttribute::Stats64(statistics) => {
                interface.statistics = InterfaceStatistics {
                    packets: by_direction(statistics.tx_packets, statistics.rx_packets),
                    bytes: by_direction(statistics.tx_bytes, statistics.rx_bytes),
                };
            }
            _ => {}
        }
    }
    (!interface.name.is_empty()).then_some(interface)
}

fn by_direction(incoming: u64, outgoing: u64) -> [u64; 2] {
    let mut values = [0; 2];
    values[Direction::In as usize] = incoming;
    values[Direction::Out as usize] = outgoing;
    values
}
