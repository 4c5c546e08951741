//! Real traffic on a node in namespaces, counted by trafctl and by an independent witness. They must agree to
//! the packet and to the byte, and each test ends with the balance: interface traffic = classes + faults.

mod classes;
mod copies;
mod edges;
mod flood;
mod large;
mod machine;
mod node;
mod routed;
mod tcp;
mod udp;
