//! What the end-to-end tests, the demo and the benchmarks share.
//!
//! Observers are independent of the tool: [`victim`] programs time and count with their own clock and at the
//! far end; [`stats`] turns counts into verdicts with stated confidence; [`residue`] looks for what the tool
//! left behind without asking the tool.

pub mod bench;
pub mod cgroup_lab;
pub mod container_lab;
pub mod demo;
pub mod disk_lab;
pub mod disk_parity;
pub mod dm_lab;
pub mod driver;
pub mod e2e;
pub mod gallery;
pub mod kernel_log;
pub mod net_lab;
pub mod offspring;
pub mod parity;
pub mod postgres_lab;
pub mod process;
pub mod residue;
pub mod service_lab;
pub mod stats;
pub mod systemd_lab;
pub mod victim;
