//! Work on the file that is shared out among its readers.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
};

use common::{Error, Result, interrupt};
use sqlite::file::Reader;

/// Does `work` with every item, on a thread for each reader; the results are in the order of the items.
///
/// # Errors
/// The first of `work`; a signal came in.
pub fn share_out<T: Send, R: Send>(
    readers: &mut [Reader],
    items: Vec<T>,
    work: impl Fn(&Reader, T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if readers.is_empty() {
        return Err(Error::failed("the readers of the file are in use"));
    }
    let items: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |reader: &mut Reader| -> Result<Vec<(usize, R)>> {
        let mut results = Vec::new();
        while let Some((place, item)) = next() {
            interrupt::check()?;
            results.push((place, work(reader, item)?));
        }
        Ok(results)
    };
    let run = &run;
    let found: Vec<Result<Vec<(usize, R)>>> = thread::scope(|scope| {
        // A reader is for one thread at a time, and so is lent as a whole.
        let threads: Vec<_> = readers.iter_mut().map(|reader| scope.spawn(move || run(reader))).collect();
        let died = |_| Err(Error::failed("a reader of the file died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
    });
    let mut results = Vec::new();
    for part in found {
        results.extend(part?);
    }
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
