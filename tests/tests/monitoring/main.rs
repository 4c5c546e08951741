//! `contrib/prometheus` and `contrib/grafana`: their form, and what their queries give on a real node.

mod dashboards;
mod expected;
mod new_customer;
mod queries;
mod rules;
mod schema;
