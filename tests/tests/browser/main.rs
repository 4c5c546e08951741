//! The web page in a real browser: headless Chromium, driven over WebDriver, against the real daemon.
//!
//! Every test ends with two checks: no message on the console, and no request to another host.

mod drops;
mod file;
mod pages;
mod parts;
mod proxy;
mod site;
mod statement;
mod store;
