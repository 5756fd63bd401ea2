use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[derive(Default)]
struct Collected {
    buffer: Vec<u8>,
    copies: Vec<Vec<u8>>,
    fails: bool,
}

impl RowSink for Collected {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn added(&mut self) -> Result<()> {
        if self.fails { Err(Error::failed("full")) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        self.copies.push(std::mem::take(&mut self.buffer));
        Ok(())
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// What the driver reads of `sent`, which arrives in pieces of these lengths.
fn read_all(sent: &[u8], cuts: &[usize], begins: Begins, handle: &TapHandle) -> io::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut server, client) = tokio::io::duplex(64);
        let mut tap = Tap::new(client, begins, handle.clone());
        let write = async {
            let (mut rest, mut cuts) = (sent, cuts.iter().cycle());
            while !rest.is_empty() {
                let count = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
                if server.write_all(&rest[..count]).await.is_err() {
                    break;
                }
                rest = &rest[count..];
            }
            drop(server);
        };
        let read = async {
            let mut got = Vec::new();
            if begins == Begins::WithAnswer {
                got.push(tap.read_u8().await?);
            }
            tap.read_to_end(&mut got).await?;
            drop(tap);
            Ok(got)
        };
        tokio::join!(write, read).1
    })
}

proptest! {
    #[test]
    fn rows_go_to_the_sink_and_everything_else_to_the_driver(
        copies in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..6), 0..5),
        other in prop::collection::vec(any::<u8>(), 0..70),
        cuts in prop::collection::vec(1_usize..80, 1..6),
        is_encrypted_inside in any::<bool>(),
    ) {
        let (mut sent, mut for_driver, mut for_sink) = (message(b'R', &other), message(b'R', &other), Vec::new());
        for rows in &copies {
            sent.extend(message(COPY_OUT_RESPONSE, &[0, 0, 1]));
            for row in rows {
                sent.extend(message(COPY_DATA, row));
                // A notice may come between two rows.
                sent.extend(message(b'N', &other));
                for_driver.extend(message(b'N', &other));
            }
            sent.extend(message(COPY_DONE, &[]));
            for part in [message(b'C', b"COPY 1\0"), message(b'Z', b"T")] {
                sent.extend(&part);
                for_driver.extend(&part);
            }
            for_sink.push(rows.concat());
        }
        let begins = if is_encrypted_inside { Begins::WithAnswer } else { Begins::Plain };
        if is_encrypted_inside {
            sent.insert(0, b'N');
            for_driver.insert(0, b'N');
        }
        let handle = TapHandle::default();
        let sink = Arc::new(Mutex::new(Collected::default()));
        let open = handle.open(sink.clone());
        prop_assert_eq!(read_all(&sent, &cuts, begins, &handle).unwrap(), for_driver);
        drop(open);
        prop_assert_eq!(&sink.lock().unwrap().copies, &for_sink);
        // Nobody wants the rows: the driver gets all of it.
        prop_assert_eq!(read_all(&sent, &cuts, begins, &handle).unwrap(), sent);
    }

    #[test]
    fn no_bytes_make_the_tap_panic(sent in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1_usize..40, 1..4)) {
        let handle = TapHandle::default();
        let open = handle.open(Arc::new(Mutex::new(Collected::default())));
        let _ = read_all(&sent, &cuts, Begins::Plain, &handle);
        drop(open);
    }
}

#[test]
fn a_sink_that_fails_ends_the_connection_and_says_why() {
    let handle = TapHandle::default();
    let open = handle.open(Arc::new(Mutex::new(Collected { fails: true, ..Collected::default() })));
    assert!(read_all(&message(COPY_DATA, b"1\n"), &[9], Begins::Plain, &handle).is_err());
    assert_eq!(open.failure().unwrap().message(), "full");
}

#[test]
fn what_is_encrypted_is_not_looked_at() {
    let sent = [b"S".as_slice(), &message(COPY_DATA, b"no row")].concat();
    let handle = TapHandle::default();
    let open = handle.open(Arc::new(Mutex::new(Collected::default())));
    assert_eq!(read_all(&sent, &[3], Begins::WithAnswer, &handle).unwrap(), sent);
    assert_eq!(read_all(&sent[1..], &[3], Begins::Encrypted, &handle).unwrap(), sent[1..]);
    drop(open);
}
