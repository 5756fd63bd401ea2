//! Protected runs: what fails is undone, what was killed is recovered, and the histories of other tools are kept.

mod at_once;
mod checks;
mod clone;
mod clone_copying;
mod command;
mod crash_points;
mod fences;
mod files;
mod foreign_histories;
mod foreign_tools;
mod hostile;
mod input;
mod layouts_adopted;
mod layouts_locks;
mod layouts_states;
mod ledger;
mod locks;
mod precopy;
mod real_tools;
mod recovery;
mod replay;
mod report;
mod signals;
mod transaction;
mod undo_constellations;
mod way_out;
