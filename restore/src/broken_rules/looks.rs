//! What the server's looks at the rows of a rule say about it, and what the rules of heirs do.

use common::{Error, Result, ident::literal, ident::printable, interrupt, postgres::Session};

use super::{Rule, of_server, queries::INHERITS};

/// Why a rule is NOT VALID that a row was seen to break.
const BROKEN: &str = "because rows break it";

/// The server's looks at the rows of one rule. One that was disturbed says nothing about them: there is another one.
#[derive(Debug, Default)]
pub struct Looks {
    disturbed: u32,
    /// Why it can't be valid, where the rule of an heir is not.
    below: Option<String>,
}

impl Looks {
    /// How often a look is tried that somebody disturbs.
    const MOST: u32 = 2;

    /// Why `rule` can't hold for all rows, after a look ended with `error`; none where the look has to be tried again.
    ///
    /// # Errors
    /// The connection is gone, or a signal came in: nothing is known of the rows.
    pub fn after(&mut self, rule: &Rule, error: Error) -> Result<Option<String>> {
        let Some((state, message)) =
            of_server(&error).map(|server| (server.code().code().to_owned(), printable(server.message())))
        else {
            return Err(error);
        };
        if state == "57014" {
            interrupt::check()?;
        }
        // None can be valid above one that is NOT VALID, whatever ended this look: 42P17 at the latest.
        if let Some(why) = &self.below {
            return Ok(Some(why.clone()));
        }
        // Canceled by somebody, a lock, a deadlock, a conflict: about the rows it says nothing.
        if ["57014", "55P03", "40P01", "40001"].contains(&&*state) {
            self.disturbed += 1;
            if self.disturbed < Self::MOST {
                return Ok(None);
            }
            return Ok(Some(format!(
                "because the server's look at the rows was ended {} times ({message}); nothing is known to break it, and ALTER {} {} \
                 VALIDATE CONSTRAINT {} looks again",
                self.disturbed,
                rule.kind(),
                rule.on,
                rule.name
            )));
        }
        let breaks = ["22", "23", "P0"].iter().any(|class| state.starts_with(class));
        Ok(Some(if breaks {
            BROKEN.to_owned()
        } else {
            format!("because the server could not look at the rows: {message}")
        }))
    }
}

/// The rules that came back NOT VALID, and why.
#[derive(Debug, Default)]
pub struct Left(Vec<(Rule, String)>);

impl Left {
    /// One more.
    pub fn add(&mut self, rule: Rule, why: String) {
        self.0.push((rule, why));
    }

    /// The looks at the rows of `rule`, whose heirs came first: what rows of theirs were seen to break, rows break here too, and of
    /// what nobody saw there, nothing is known here.
    ///
    /// # Errors
    /// The server can't be asked which tables inherit from its table.
    pub async fn looks(&self, session: &Session, rule: &Rule) -> Result<Looks> {
        let mut looks = Looks::default();
        if rule.is_domain || rule.definition.ends_with(" NO INHERIT") {
            return Ok(looks);
        }
        for (heir, why) in &self.0 {
            if heir.is_domain || heir.name != rule.name || !inherits(session, heir, rule).await? {
                continue;
            }
            if why == BROKEN {
                looks.below = Some(BROKEN.to_owned());
                break;
            }
            looks.below.get_or_insert_with(|| {
                format!(
                    "because it is NOT VALID on {}, which inherits from this table; ALTER TABLE {} VALIDATE CONSTRAINT {} looks at \
                     the rows of both",
                    heir.on, rule.on, rule.name
                )
            });
        }
        Ok(looks)
    }
}

/// Whether the table of one inherits from that of the other. As a text statement: code of somebody else may have been here.
async fn inherits(session: &Session, heir: &Rule, rule: &Rule) -> Result<bool> {
    let [heir, rule] = [heir, rule].map(|rule| literal(&rule.on.to_string()));
    let found = session.simple_query(&INHERITS.replace("$HEIR", &heir).replace("$TABLE", &rule)).await;
    let found = found.map_err(|source| Error::postgres("could not look for the heirs of a table", source))?;
    Ok(found.iter().any(|message| matches!(message, common::postgres::SimpleQueryMessage::Row(_))))
}
