//! Takes the rows of COPY out of the conversation with a server before the driver sees them.
//!
//! The server sends each row as a message of its own. Passed through a driver, each costs several steps; here it costs one
//! copy, into the buffer of whoever wants the rows. Everything else, errors and ends of commands among it, goes to the
//! driver as it came, which therefore notices a connection that broke and a COPY that failed as ever.
//!
//! What it must never do: lose its place in the conversation. So it follows every message from the first one on, whether
//! somebody wants rows or not.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::{Error, Result};

/// Bytes that are read at once while somebody wants rows: as many as a Unix socket holds at once, and few enough to stay in
/// the processor's own memory until they are compressed.
const READ_BYTES: usize = 128 * 1024;

/// Bytes that are read at once otherwise.
const SMALL_READ_BYTES: usize = 8 * 1024;

/// Bytes of a lent conversation that may be under way in each direction.
const LOAN_BYTES: usize = 64 * 1024;

/// Type and length.
const HEADER_BYTES: usize = 5;

const COPY_DATA: u8 = b'd';
const COPY_DONE: u8 = b'c';
const COPY_OUT_RESPONSE: u8 = b'H';

/// Who wants rows. Called from the task that drives the connection.
pub trait RowSink: Send {
    /// Where rows are put: COPY text, cut anywhere.
    fn buffer(&mut self) -> &mut Vec<u8>;
    /// Something was put there.
    ///
    /// # Errors
    /// End the connection, and come back from the call that asked for rows.
    fn added(&mut self) -> Result<()>;
    /// All rows of one COPY are there; those of the next one may follow.
    ///
    /// # Errors
    /// As [`RowSink::added`].
    fn end(&mut self) -> Result<()>;
}

/// The place where a session says who wants rows.
#[derive(Clone, Default)]
pub(super) struct TapHandle(Arc<Mutex<Wanted>>);

#[derive(Default)]
struct Wanted {
    sink: Option<Arc<Mutex<dyn RowSink>>>,
    failure: Option<Error>,
    /// The conversation is lent to whoever has the other end, beginning between two messages.
    loan: Option<DuplexStream>,
    /// Whether the other end was given back between two messages.
    is_returned: bool,
    /// The task that drives the connection.
    waker: Option<Waker>,
}

impl TapHandle {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on rows go to `sink`, until the guard is dropped.
    pub(super) fn open(&self, sink: Arc<Mutex<dyn RowSink>>) -> OpenTap<'_> {
        let mut wanted = self.lock();
        (wanted.sink, wanted.failure) = (Some(sink), None);
        OpenTap(self)
    }

    /// Lends the conversation: what is written to the stream goes to the server, and what the server says comes out of it,
    /// until [`TapHandle::returned`] and the end of the stream. The driver must have nothing to ask meanwhile.
    pub(super) fn lend(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(LOAN_BYTES);
        let mut wanted = self.lock();
        (wanted.loan, wanted.is_returned) = (Some(ours), false);
        if let Some(waker) = wanted.waker.take() {
            waker.wake();
        }
        theirs
    }

    /// Says that the conversation that was lent stands between two messages, with nothing left to answer. A loan that ends
    /// without this ends the connection.
    pub(super) fn returned(&self) {
        self.lock().is_returned = true;
    }
}

/// Rows go to a sink as long as it lives. Of those that arrive later, the driver disposes.
pub(super) struct OpenTap<'a>(&'a TapHandle);

impl OpenTap<'_> {
    /// What the sink failed with, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.0.lock().failure.take()
    }
}

impl Drop for OpenTap<'_> {
    fn drop(&mut self) {
        let mut wanted = self.0.lock();
        (wanted.sink, wanted.failure) = (None, None);
    }
}

/// How a conversation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// With messages.
    Plain,
    /// With one byte that says whether encryption follows.
    WithAnswer,
    /// Encrypted: nothing can be told apart here, but it can inside.
    Encrypted,
}

/// Where in the conversation the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Answer,
    Unreadable,
    Header,
    /// So many bytes of a message are for the driver.
    Passing(usize),
    /// So many bytes of a row follow.
    Row(usize),
    /// So many bytes of a message are for nobody.
    Dropping(usize),
}

/// A stream with a tap.
pub struct Tap<S> {
    inner: S,
    handle: TapHandle,
    place: Place,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    loan: Option<Loan>,
}

/// A conversation that somebody else has.
struct Loan {
    stream: DuplexStream,
    /// What goes to the server next.
    to_server: Vec<u8>,
}

/// How a loan went on.
enum Lent {
    /// It is over, and the driver has the conversation again.
    Over,
    /// The server ended the connection.
    ServerGone,
}

impl<S> Tap<S> {
    pub(super) fn new(inner: S, begins: Begins, handle: TapHandle) -> Self {
        let place = match begins {
            Begins::Plain => Place::Header,
            Begins::WithAnswer => Place::Answer,
            Begins::Encrypted => Place::Unreadable,
        };
        Self { inner, handle, place, buffer: Vec::new(), start: 0, end: 0, loan: None }
    }

    /// Works through what was read; stops when `out` is full or more has to be read.
    fn sort(&mut self, wanted: &mut Wanted, out: &mut ReadBuf<'_>) -> Result<()> {
        let mut sink = wanted.sink.as_ref().map(|sink| sink.lock().unwrap_or_else(PoisonError::into_inner));
        let mut has_added = false;
        while self.start < self.end {
            let there = &self.buffer[self.start..self.end];
            match self.place {
                Place::Answer | Place::Unreadable => break,
                Place::Header => {
                    if there.len() < HEADER_BYTES {
                        break;
                    }
                    let length = message_length(there)?;
                    match (there[0], sink.as_deref_mut()) {
                        (COPY_DATA, Some(sink)) => {
                            let taken = take_whole_rows(there, sink.buffer());
                            has_added |= taken > 0;
                            self.start += taken;
                            if taken == 0 {
                                self.start += HEADER_BYTES;
                                self.place = Place::Row(length - HEADER_BYTES);
                            }
                        }
                        (COPY_DONE, Some(sink)) => {
                            if std::mem::take(&mut has_added) {
                                sink.added()?;
                            }
                            sink.end()?;
                            self.place = Place::Dropping(length);
                        }
                        (COPY_OUT_RESPONSE, Some(_)) => self.place = Place::Dropping(length),
                        _ => self.place = Place::Passing(length),
                    }
                }
                Place::Passing(left) => {
                    let count = left.min(there.len()).min(out.remaining());
                    if count == 0 {
                        break;
                    }
                    out.put_slice(&there[..count]);
                    self.start += count;
                    self.place = if count == left { Place::Header } else { Place::Passing(left - count) };
                }
                Place::Row(left) => {
                    let count = left.min(there.len());
                    // Without a sink the wish was withdrawn in the middle of a row.
                    if let Some(sink) = sink.as_deref_mut() {
                        sink.buffer().extend_from_slice(&there[..count]);
                        has_added = true;
                    }
                    self.start += count;
                    self.place = if count == left { Place::Header } else { Place::Row(left - count) };
                }
                Place::Dropping(left) => {
                    let count = left.min(there.len());
                    self.start += count;
                    self.place = if count == left { Place::Header } else { Place::Dropping(left - count) };
                }
            }
        }
        match sink.as_deref_mut() {
            Some(sink) if has_added => sink.added(),
            _ => Ok(()),
        }
    }

    /// Makes room behind what is left over, for `bytes` in all.
    fn make_room(&mut self, bytes: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
    }
}

/// All bytes of the message at the start of `there`, type and length included.
fn message_length(there: &[u8]) -> Result<usize> {
    let length = u32::from_be_bytes([there[1], there[2], there[3], there[4]]);
    if length < 4 {
        return Err(Error::failed("the server sent a message that is shorter than its own length"));
    }
    Ok(length as usize + 1)
}

/// Copies the rows of all messages that `there` begins with and that are whole; gives the bytes of these messages.
fn take_whole_rows(there: &[u8], rows: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while let Some(&[COPY_DATA, a, b, c, d]) = there.get(at..at + HEADER_BYTES) {
        let next = at + 1 + u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(row) = there.get(at + HEADER_BYTES..next) else { break };
        rows.extend_from_slice(row);
        at = next;
    }
    at
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tap<S> {
    /// Passes on what the two sides of a loan say, until one of them ends.
    fn pass_on(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Lent>> {
        loop {
            let Some(loan) = &mut self.loan else { return Poll::Ready(Ok(Lent::Over)) };
            let mut has_moved = false;
            if loan.to_server.is_empty() {
                let mut bytes = [0; SMALL_READ_BYTES];
                let mut asked = ReadBuf::new(&mut bytes);
                if Pin::new(&mut loan.stream).poll_read(context, &mut asked)?.is_ready() {
                    if asked.filled().is_empty() {
                        let is_whole = self.handle.lock().is_returned && self.start == self.end;
                        self.loan = None;
                        return Poll::Ready(match is_whole {
                            true => Ok(Lent::Over),
                            false => Err(io::Error::other("a lent conversation ended in the middle")),
                        });
                    }
                    loan.to_server.extend_from_slice(asked.filled());
                    has_moved = true;
                }
            }
            if !loan.to_server.is_empty()
                && let Poll::Ready(count) = Pin::new(&mut self.inner).poll_write(context, &loan.to_server)?
            {
                loan.to_server.drain(..count);
                has_moved = true;
            }
            // What is not sent yet wakes us when there is room.
            let _ = Pin::new(&mut self.inner).poll_flush(context)?;
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
                self.buffer.resize(self.buffer.len().max(SMALL_READ_BYTES), 0);
                let mut said = ReadBuf::new(&mut self.buffer);
                if Pin::new(&mut self.inner).poll_read(context, &mut said)?.is_ready() {
                    self.end = said.filled().len();
                    if self.end == 0 {
                        self.loan = None;
                        return Poll::Ready(Ok(Lent::ServerGone));
                    }
                    has_moved = true;
                }
            }
            if self.start < self.end
                && let Poll::Ready(count) =
                    Pin::new(&mut loan.stream).poll_write(context, &self.buffer[self.start..self.end])?
            {
                self.start += count;
                has_moved = true;
            }
            if !has_moved {
                return Poll::Pending;
            }
        }
    }

    /// Begins a loan where one is wanted and the conversation stands between two messages.
    fn take_loan(&mut self, wanted: &mut Wanted) {
        if matches!(self.place, Place::Header)
            && self.start == self.end
            && let Some(stream) = wanted.loan.take()
        {
            self.loan = Some(Loan { stream, to_server: Vec::new() });
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let before = out.filled().len();
        match tap.place {
            Place::Unreadable => return Pin::new(&mut tap.inner).poll_read(context, out),
            Place::Answer => {
                // The driver asks for exactly one byte.
                ready!(Pin::new(&mut tap.inner).poll_read(context, out))?;
                if let Some(answer) = out.filled().get(before) {
                    tap.place = if *answer == b'S' { Place::Unreadable } else { Place::Header };
                }
                return Poll::Ready(Ok(()));
            }
            _ => {}
        }
        let handle = tap.handle.clone();
        loop {
            let mut wanted = handle.lock();
            tap.take_loan(&mut wanted);
            if tap.loan.is_some() {
                drop(wanted);
                match ready!(tap.pass_on(context))? {
                    Lent::Over => continue,
                    Lent::ServerGone => return Poll::Ready(Ok(())),
                }
            }
            if let Err(error) = tap.sort(&mut wanted, out) {
                wanted.failure = Some(error);
                return Poll::Ready(Err(io::Error::other("the rows could not be taken")));
            }
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            tap.make_room(if wanted.sink.is_some() { READ_BYTES } else { SMALL_READ_BYTES });
            if wanted.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                wanted.waker = Some(context.waker().clone());
            }
            drop(wanted);
            let mut unread = ReadBuf::new(&mut tap.buffer[tap.end..]);
            ready!(Pin::new(&mut tap.inner).poll_read(context, &mut unread))?;
            let count = unread.filled().len();
            if count == 0 {
                // The end, which the driver knows to be too early or not.
                return Poll::Ready(Ok(()));
            }
            tap.end += count;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Tap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

#[cfg(test)]
mod tests;
