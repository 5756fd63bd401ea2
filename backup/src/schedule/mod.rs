//! `backup schedule`: nightly backups for people who sleep.
//!
//! *Pure*, with the time as an argument: [`cron`] (when), [`plan`] (what next), [`alarm`] (is this snapshot strange),
//! [`metrics`], [`page`], [`plot`] (what is seen from outside). Effects: [`job`] (settings become jobs), [`run`] (one run of
//! one job), [`hooks`] (commands, pings, webhooks), [`status`] (what the repositories say), [`serve`] (HTTP), [`notify`]
//! (systemd), and [`daemon`], which holds them together.
//!
//! What it never does: prune after anything but a success that was verified, prune while an alarm is open, or keep in memory
//! what a restart would have to know.

pub mod alarm;
pub mod cli;
pub mod clock;
pub mod cron;
pub mod daemon;
pub mod hooks;
pub mod job;
pub mod metrics;
pub mod notify;
pub mod page;
pub mod plan;
pub mod plot;
mod printed;
pub mod run;
pub mod serve;
pub mod status;
