//! `backup schedule`: nightly backups for people who sleep.

pub mod cron;
