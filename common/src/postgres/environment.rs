//! What the surroundings of the process say about connections: variables, home directory, user.
//!
//! Captured once, so that everything behind it can be tested with made-up surroundings and never reads the process'
//! own environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// Captured environment variables, home directory and user of the process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    not_utf8: BTreeSet<String>,
    home: Option<PathBuf>,
    user_name: Option<String>,
}

impl Environment {
    /// Captures the environment of this process. Reads `/etc/passwd` for the name of the user.
    pub fn from_process() -> Self {
        let mut variables = BTreeMap::new();
        let mut not_utf8 = BTreeSet::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    variables.insert(name, value);
                }
                Err(_) => {
                    not_utf8.insert(name);
                }
            }
        }
        let effective_uid = rustix::process::geteuid().as_raw();
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = account(&accounts, effective_uid);
        // libpq asks the system for the name, not $USER: `sudo -E` keeps $USER of the caller. The variables are only
        // the fallback for accounts that are not in the file (LDAP).
        let user_name = account
            .as_ref()
            .map(|account| account.name.clone())
            .or_else(|| variables.get("USER").filter(|name| !name.is_empty()).cloned())
            .or_else(|| variables.get("LOGNAME").filter(|name| !name.is_empty()).cloned());
        let home = variables
            .get("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| account.map(|account| account.home));
        Self { variables, not_utf8, home, user_name }
    }

    /// Made-up surroundings: user `name`, no home directory, the given variables.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        user_name: &str,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self {
            variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            user_name: Some(user_name.to_owned()),
            ..Self::default()
        }
    }

    /// The same where the operating system does not name the user.
    #[cfg(test)]
    pub(crate) fn without_user_name(mut self) -> Self {
        self.user_name = None;
        self
    }

    /// The same with a variable that is set to something that is not UTF-8.
    #[cfg(test)]
    pub(crate) fn with_not_utf8(mut self, name: &str) -> Self {
        self.not_utf8.insert(name.to_owned());
        self
    }

    /// The same with another home directory.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// The value of a variable; an empty one counts as unset, as libpq treats most of them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the variable is set to something that is not UTF-8.
    pub fn is_not_utf8(&self, name: &str) -> bool {
        self.not_utf8.contains(name)
    }

    /// The home directory.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The operating system's name of the user.
    pub fn user_name(&self) -> Option<&str> {
        self.user_name.as_deref()
    }
}

impl fmt::Debug for Environment {
    /// Names only: values may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("home", &self.home)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

struct Account {
    name: String,
    home: PathBuf,
}

/// The line of `/etc/passwd` for `uid`: `name:password:uid:gid:comment:home:shell`.
fn account(passwd: &str, uid: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() >= 6 && fields[2].parse() == Ok(uid))
            .then(|| Account { name: fields[0].to_owned(), home: PathBuf::from(fields[5]) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_by_user_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let ann = account(passwd, 1000).expect("found");
        assert_eq!((ann.name.as_str(), ann.home), ("ann", PathBuf::from("/home/ann")));
        assert!(account(passwd, 7).is_none());
    }

    #[test]
    fn debug_shows_no_values() {
        let environment = Environment::from_pairs("ann", [("PGPASSWORD", "hunter2")]);
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}
