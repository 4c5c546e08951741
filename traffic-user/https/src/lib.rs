//! Requests to other machines by HTTP/1.1, and the TLS that they and the store share.
//!
//! - `tls`: which authorities are trusted.
//! - `client`: one request, with an end for every wait and a bound on what is read. No redirect is followed:
//!   what is meant for one address goes to no other.
//!
//! What is sent, and what an answer means, is up to the caller.

mod client;
mod tls;

pub use client::{Answer, Client, Limits, Reply, Request, Server};
pub use tls::{config, provider, roots};
