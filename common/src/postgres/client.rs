//! The driver's client, whose rows hold only text that can be read.
//!
//! Names of roles, databases and tablespaces, and what others' sessions run, are shared by all databases of a server, in the bytes
//! of the encoding that they were made in. A session of another encoding gets them as they are, and the driver's `get` panics on
//! what is no UTF-8. Here such a row is an error of the query. Who can go on without a name asks for its bytes
//! ([`super::shared_text`]).

use std::ops::Deref;

use tokio_postgres::{
    Error, Row, SimpleQueryMessage, ToStatement,
    types::{FromSql, Kind, ToSql, Type},
};

/// The driver's client; the methods of the same names refuse text that is no UTF-8, and all others are the driver's.
#[derive(Debug)]
pub struct Client(tokio_postgres::Client);

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.0
    }
}

impl From<tokio_postgres::Client> for Client {
    fn from(client: tokio_postgres::Client) -> Self {
        Self(client)
    }
}

impl Client {
    /// As the driver's.
    ///
    /// # Errors
    /// The driver's, and text that is no UTF-8.
    pub async fn query<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error>
    where
        T: ?Sized + ToStatement,
    {
        let rows = self.0.query(statement, params).await?;
        rows.iter().try_for_each(read)?;
        Ok(rows)
    }

    /// As the driver's.
    ///
    /// # Errors
    /// The driver's, and text that is no UTF-8.
    pub async fn query_one<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error>
    where
        T: ?Sized + ToStatement,
    {
        let row = self.0.query_one(statement, params).await?;
        read(&row)?;
        Ok(row)
    }

    /// As the driver's.
    ///
    /// # Errors
    /// The driver's, and text that is no UTF-8.
    pub async fn query_opt<T>(
        &self,
        statement: &T,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error>
    where
        T: ?Sized + ToStatement,
    {
        let row = self.0.query_opt(statement, params).await?;
        row.iter().try_for_each(read)?;
        Ok(row)
    }

    /// As the driver's.
    ///
    /// # Errors
    /// The driver's, and text that is no UTF-8.
    pub async fn simple_query(&self, query: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let messages = self.0.simple_query(query).await?;
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                (0..row.len()).try_for_each(|column| row.try_get(column).map(drop))?;
            }
        }
        Ok(messages)
    }

    /// The driver's `simple_query`, for statements of others: their rows may hold any bytes, so a column is read with `try_get`.
    ///
    /// # Errors
    /// The driver's.
    pub async fn run_text(&self, statements: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.0.simple_query(statements).await
    }
}

/// The name of the first column, but for those in `nullable`, that is NULL in this row.
#[must_use]
pub fn null_column<'r>(row: &'r Row, nullable: &[usize]) -> Option<&'r str> {
    let is_null = |index: &usize| matches!(row.try_get::<_, Option<Anything>>(*index), Ok(None));
    let index = (0..row.len()).filter(|index| !nullable.contains(index)).find(is_null)?;
    Some(row.columns()[index].name())
}

/// A value of any type.
struct Anything;

impl FromSql<'_> for Anything {
    fn from_sql(_: &Type, _: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Reads every text of a row.
fn read(row: &Row) -> Result<(), Error> {
    for (index, column) in row.columns().iter().enumerate() {
        match column.type_().kind() {
            Kind::Array(element) if is_text(element) => {
                drop(row.try_get::<_, Option<Vec<Option<&str>>>>(index)?);
            }
            _ if is_text(column.type_()) => drop(row.try_get::<_, Option<&str>>(index)?),
            _ => {}
        }
    }
    Ok(())
}

fn is_text(kind: &Type) -> bool {
    [Type::TEXT, Type::NAME, Type::VARCHAR, Type::BPCHAR, Type::UNKNOWN].contains(kind)
}
