//! SIGINT and SIGTERM: cancel what runs on the server, let every step clean up, and end with 130 or 143.
//!
//! A signal does not kill: it sets a flag that flows look at between steps, and cancels the statements that are running
//! so that they return now. Once an undo has begun, signals wait for its end: half an undo is the worst of all states.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{Error, ErrorKind, Result};

const NONE: u8 = 0;
const INT: u8 = 1;
const TERM: u8 = 2;

static RECEIVED: AtomicU8 = AtomicU8::new(NONE);
static UNDOING: AtomicU8 = AtomicU8::new(0);
static SESSIONS: Mutex<Vec<(u64, Cancel)>> = Mutex::new(Vec::new());
static CHILDREN: Mutex<Vec<rustix::process::Pid>> = Mutex::new(Vec::new());

/// Asks the server to cancel what one session runs.
pub(crate) type Cancel = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// The two signals that end a run in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or the system shutting down.
    Terminate,
}

/// Whether a signal came in.
pub fn received() -> Option<Signal> {
    match RECEIVED.load(Ordering::SeqCst) {
        INT => Some(Signal::Interrupt),
        TERM => Some(Signal::Terminate),
        _ => None,
    }
}

/// Ends the flow here when a signal came in; for between steps that change nothing.
pub fn check() -> Result<()> {
    match received() {
        Some(signal) if UNDOING.load(Ordering::SeqCst) == 0 => Err(error(signal)),
        _ => Ok(()),
    }
}

/// The error that a run ends with after `signal`.
pub fn error(signal: Signal) -> Error {
    match signal {
        Signal::Interrupt => Error::new(ErrorKind::Interrupted, "interrupted"),
        Signal::Terminate => Error::new(ErrorKind::Terminated, "terminated"),
    }
}

/// If a signal came in, it is the reason for `error`, whatever the cancelled statement said.
pub fn explain(error: Error) -> Error {
    match received() {
        Some(signal)
            if !matches!(
                error.kind(),
                ErrorKind::Unknown | ErrorKind::Interrupted | ErrorKind::Terminated
            ) =>
        {
            let mut explained = self::error(signal);
            if let Some(state) = error.database_state() {
                explained = explained.with_database_state(state);
            }
            explained
        }
        _ => error,
    }
}

/// From now on signals are noted but cancel nothing, until the returned guard is dropped.
///
/// Waits until the cancel requests of an earlier signal have arrived: one that comes late would cancel the undo's own first
/// statement, and leave it undone.
pub async fn begin_undo() -> UndoGuard {
    UNDOING.fetch_add(1, Ordering::SeqCst);
    let guard = UndoGuard(());
    loop {
        let mut arrived = std::pin::pin!(ARRIVED.notified());
        arrived.as_mut().enable();
        if ON_THEIR_WAY.load(Ordering::SeqCst) == 0 {
            return guard;
        }
        arrived.await;
    }
}

/// Cancel requests that were sent, or are about to be, and may not have been seen by the server yet.
static ON_THEIR_WAY: AtomicU64 = AtomicU64::new(0);
static ARRIVED: Notify = Notify::const_new();

/// One cancel request, or the decision to send some.
struct OnItsWay(());

impl OnItsWay {
    fn new() -> Self {
        ON_THEIR_WAY.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        ON_THEIR_WAY.fetch_sub(1, Ordering::SeqCst);
        ARRIVED.notify_waiters();
    }
}

/// While it lives, signals wait.
#[derive(Debug)]
pub struct UndoGuard(());

impl Drop for UndoGuard {
    fn drop(&mut self) {
        UNDOING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A child process that gets the signals too, as the leader of its own group, until the guard is dropped.
#[derive(Debug)]
pub struct ChildGuard(rustix::process::Pid);

impl ChildGuard {
    /// Registers a process group by its leader's id.
    pub fn register(pid: rustix::process::Pid) -> Self {
        lock(&CHILDREN).push(pid);
        Self(pid)
    }

    /// Like [`ChildGuard::register`], for a process id as the standard library gives it.
    pub fn register_id(id: u32) -> Option<Self> {
        rustix::process::Pid::from_raw(id.cast_signed()).map(Self::register)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        lock(&CHILDREN).retain(|pid| *pid != self.0);
    }
}

/// Kills a process group by its leader's id: for a child of ours that had its time.
pub fn kill_group(id: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(id.cast_signed()) {
        // One that has just ended is no error.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// A session that is cancelled when a signal comes in, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration(u64);

impl Registration {
    pub(crate) fn new(cancel: Cancel) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&SESSIONS).push((key, cancel));
        Self(key)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&SESSIONS).retain(|(key, _)| *key != self.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for signals for as long as the process lives; run it beside the flow.
pub async fn listen(told: impl Fn(Signal, bool) + Send + 'static) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let received = tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
        };
        let code = if received == Signal::Interrupt { INT } else { TERM };
        // The first signal decides the exit code.
        let _ = RECEIVED.compare_exchange(NONE, code, Ordering::SeqCst, Ordering::SeqCst);
        // Before the question: either an undo sees this, or it is seen here.
        let _deciding = OnItsWay::new();
        let undoing = UNDOING.load(Ordering::SeqCst) > 0;
        told(received, undoing);
        if undoing {
            continue;
        }
        let number = if received == Signal::Interrupt {
            rustix::process::Signal::INT
        } else {
            rustix::process::Signal::TERM
        };
        for pid in lock(&CHILDREN).clone() {
            // A child that has just ended is no error.
            let _ = rustix::process::kill_process_group(pid, number);
        }
        let cancels: Vec<Cancel> = lock(&SESSIONS).iter().map(|(_, cancel)| cancel.clone()).collect();
        for cancel in cancels {
            let on_its_way = OnItsWay::new();
            tokio::spawn(async move {
                // A server that can't be reached for a cancel is found out by the statement itself.
                let _ = cancel().await;
                drop(on_its_way);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_undo_waits_for_the_cancel_requests_of_an_earlier_signal() {
        let on_its_way = OnItsWay::new();
        let undo = tokio::spawn(begin_undo());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!undo.is_finished());
        drop(on_its_way);
        drop(undo.await.unwrap());
        drop(begin_undo().await);
    }
}
