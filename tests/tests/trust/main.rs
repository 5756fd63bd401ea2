//! Nobody's code runs with our rights, nobody's secret is told, and every word that is said is true.

mod bad_input;
mod bombs;
mod dependencies;
mod early_ends;
mod false_alarms;
mod foreign;
mod foreign_words;
mod hints;
mod import_graph;
mod least_privilege;
mod loans;
mod overloads;
mod owners_code;
mod paths;
mod places;
mod reading_is_safe;
mod release;
mod rights;
mod rights_of_an_owner;
mod rights_of_commands;
mod secrets;
mod sizes;
mod swaps;
mod verdicts;
mod words;
mod wrong_engine;
