//! Real traffic on a node in namespaces, counted by trafctl and by a witness that knows nothing of it. The two must
//! agree to the packet and to the byte, and each test ends with the sums: classes + faults = passed.

mod classes;
mod large;
mod machine;
mod node;
mod routed;
mod tcp;
mod udp;
