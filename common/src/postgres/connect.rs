//! TEMPORARY
#![allow(missing_docs, clippy::unwrap_used)]
use crate::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
pub struct Secret(pub String);
impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}
#[derive(Clone, Debug)]
pub struct ConnectionSettings(tokio_postgres::Config);
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionProfile {
    Pinned,
    Migration,
}
#[derive(Clone, Debug)]
pub struct Environment;
impl Environment {
    pub fn get(&self, n: &str) -> Option<&str> {
        std::env::var(n).ok().map(|s| &*s.leak())
    }
    pub fn from_process() -> Self {
        Self
    }
}
impl ConnectionSettings {
    pub fn resolve(value: Option<&str>, _e: &Environment) -> Result<Self> {
        Ok(Self(value.unwrap().parse().unwrap()))
    }
    pub fn with_database(&self, n: &str) -> Self {
        let mut c = self.0.clone();
        c.dbname(n);
        Self(c)
    }
    pub fn with_application_name(&self, n: &str) -> Self {
        let mut c = self.0.clone();
        c.application_name(n);
        Self(c)
    }
    pub fn with_option(&self, k: &str, v: &str) -> Self {
        let mut c = self.0.clone();
        let o = format!("{} -c {k}={v}", c.get_options().unwrap_or(""));
        c.options(&o);
        Self(c)
    }
    pub async fn connect_waiting(&self, _l: std::time::Duration, _p: impl FnMut(&Error)) -> Result<Session> {
        self.connect(SessionProfile::Pinned).await
    }
    pub fn database(&self) -> &str {
        self.0.get_dbname().unwrap()
    }
    pub fn user(&self) -> &str {
        self.0.get_user().unwrap()
    }
    pub fn host_label(&self) -> String {
        format!("{:?}", self.0.get_hosts())
    }
    pub fn redacted_url(&self) -> String {
        format!("postgresql:///{}", self.database())
    }
    pub fn url_for_child(&self) -> Secret {
        Secret(self.redacted_url())
    }
    pub fn child_environment(&self) -> Vec<(String, Secret)> {
        let h = match &self.0.get_hosts()[0] {
            tokio_postgres::config::Host::Tcp(h) => h.clone(),
            tokio_postgres::config::Host::Unix(p) => p.display().to_string(),
        };
        [
            ("PGHOST", h),
            ("PGPORT", self.0.get_ports().first().unwrap_or(&5432).to_string()),
            ("PGUSER", self.user().into()),
            ("PGDATABASE", self.database().into()),
        ]
        .into_iter()
        .map(|(a, b)| (a.to_string(), Secret(b)))
        .collect()
    }
    pub async fn connect(&self, p: SessionProfile) -> Result<Session> {
        let (client, conn) = self
            .0
            .connect(tokio_postgres::NoTls)
            .await
            .map_err(|e| Error::postgres("could not connect", e))?;
        tokio::spawn(async move {
            let _ = conn.await;
        });
        if p == SessionProfile::Pinned {
            client.batch_execute("SET search_path=''; SET timezone='UTC'; SET datestyle='ISO'; SET intervalstyle='postgres'; SET extra_float_digits=3; SET bytea_output=hex; SET row_security=off; SET statement_timeout=0; SET lock_timeout=0; set lc_monetary='C'").await.map_err(|e| Error::postgres("pin", e))?;
        }
        let r = client
            .query_one("select pg_backend_pid(), current_setting('server_version_num')::int", &[])
            .await
            .unwrap();
        let key = N.fetch_add(1, Ordering::Relaxed);
        let h = CancelHandle(client.cancel_token());
        crate::interrupt::register_session(key, h);
        Ok(Session { client, pid: r.get(0), v: r.get(1), key })
    }
}
static N: AtomicU64 = AtomicU64::new(0);
#[derive(Clone)]
pub struct CancelHandle(tokio_postgres::CancelToken);
impl CancelHandle {
    pub async fn cancel(&self) -> Result<()> {
        self.0.cancel_query(tokio_postgres::NoTls).await.map_err(|e| Error::postgres("cancel", e))
    }
}
pub struct Session {
    client: tokio_postgres::Client,
    pid: i32,
    v: i32,
    key: u64,
}
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}
impl Drop for Session {
    fn drop(&mut self) {
        crate::interrupt::forget_session(self.key);
    }
}
impl std::ops::Deref for Session {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &Self::Target {
        &self.client
    }
}
impl Session {
    pub fn backend_pid(&self) -> i32 {
        self.pid
    }
    pub fn server_version_num(&self) -> i32 {
        self.v
    }
    pub fn server_major(&self) -> u32 {
        (self.v / 10000) as u32
    }
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(self.client.cancel_token())
    }
    pub async fn close(self) -> Result<()> {
        Ok(())
    }
}
pub async fn refuse_pooler(_s: &Session) -> Result<()> {
    Ok(())
}
pub const CHILD_ENVIRONMENT_REMOVED: &[&str] = &["PGSERVICE"];
