//! What a server warns of when somebody logs in: a password that expires soon, one that is stored as MD5, a setting of the role
//! that it does not know. Each session hears it again, and each child program prints it: a person is told once.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::session::Notice;

/// Tells a person.
type Teller = Box<dyn Fn(&str) + Send + Sync>;

static TELLER: OnceLock<Teller> = OnceLock::new();
static HEARD: Mutex<Vec<Notice>> = Mutex::new(Vec::new());

/// Says who tells a person. Once in a process; before, nobody is told.
pub fn tell_with(teller: impl Fn(&str) + Send + Sync + 'static) {
    // A second one would be told the same.
    let _ = TELLER.set(Box::new(teller));
}

/// Which of them a person was told by whoever started this program, a line each.
const TOLD: &str = "SAFE_RUN_TOLD_AT_LOGIN";

/// For the environment of a child that is one of our programs: it tells nobody what a person was told here.
pub fn told() -> (&'static str, String) {
    let all = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    let firsts: Vec<&str> = all.iter().filter_map(|notice| notice.message.lines().next()).collect();
    (TOLD, firsts.join("\n"))
}

/// A warning that came with a login. The same one may have another detail later, such as the time that is left.
pub(super) fn heard(notice: Notice) {
    let mut all = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    if all.iter().any(|one| one.code == notice.code && one.message == notice.message) {
        return;
    }
    let told = std::env::var(TOLD).unwrap_or_default();
    let is_told = notice.message.lines().next().is_some_and(|first| told.lines().any(|line| line == first));
    if let (Some(tell), false) = (TELLER.get(), is_told) {
        let detail = notice.detail.as_ref().map_or(String::new(), |detail| format!(" ({detail})"));
        tell(&format!("the server says at login: {}{detail}", notice.message));
    }
    all.push(notice);
}

/// What a child program wrote to stderr, without the warnings of its login that a person was told.
pub(super) fn without_told(stderr: &str) -> String {
    let all = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    without(stderr, &all)
}

/// Pure. libpq writes `WARNING:  message`, then `DETAIL:  …` and `HINT:  …`, in the server's language.
fn without(stderr: &str, told: &[Notice]) -> String {
    let text = |line: &str| line.split_once(":  ").map(|(_, text)| text.trim_end().to_owned());
    let mut rest = String::with_capacity(stderr.len());
    let mut after: Option<&Notice> = None;
    for line in stderr.split_inclusive('\n') {
        let begins = text(line)
            .and_then(|text| told.iter().find(|notice| notice.message.lines().next() == Some(&text)));
        if begins.is_some() {
            after = begins;
            continue;
        }
        let is_more = after.is_some_and(|notice| {
            let is_known = text(line).is_some_and(|text| {
                [&notice.detail, &notice.hint].into_iter().flatten().any(|known| *known == text)
            });
            is_known || line.starts_with("DETAIL:  ") || line.starts_with("HINT:  ")
        });
        if !is_more {
            after = None;
            rest.push_str(line);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(message: &str, detail: Option<&str>) -> Notice {
        Notice {
            severity: "WARNING".to_owned(),
            code: "01000".to_owned(),
            message: message.to_owned(),
            detail: detail.map(str::to_owned),
            hint: None,
        }
    }

    #[test]
    fn what_was_told_at_login_is_left_out_of_a_childs_words_and_nothing_else_is() {
        let told =
            [notice("role password will expire soon", Some("in 5 hours")), notice("läuft ab", Some("bald"))];
        let stderr = "WARNING:  role password will expire soon\nDETAIL:  in 4 hours\nHINT:  renew it\n\
                      pg_dump: warning: there are circular foreign-key constraints\n\
                      WARNUNG:  läuft ab\nDETAIL:  bald\n\
                      WARNING:  something else\nDETAIL:  of it\n\
                      DETAIL:  role password will expire soon, perhaps\n";
        assert_eq!(
            without(stderr, &told),
            "pg_dump: warning: there are circular foreign-key constraints\nWARNING:  something else\nDETAIL:  of it\n\
             DETAIL:  role password will expire soon, perhaps\n"
        );
        assert_eq!(without(stderr, &[]), stderr);
        assert_eq!(without("", &told), "");
    }
}
