//! What listens at the port and is no server that lets us in: each answer to the first packet, and what is told about it.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use super::answer::answer;

/// What is sent back.
enum Reply {
    /// The server's refusal, with this SQLSTATE.
    Error(&'static str),
    /// These bytes.
    Bytes(&'static [u8]),
    /// These bytes, and the connection stays.
    Stay(&'static [u8]),
    /// These bytes, and others after the first query.
    Talk(&'static [u8], &'static [u8]),
    /// Nothing: the connection is closed.
    Close,
}

const CASES: &[(&str, &str, Reply)] = &[
    ("a server that starts", "sslmode=disable", Reply::Error("57P03")),
    ("a server that stops", "sslmode=disable", Reply::Error("57P01")),
    ("a server without memory", "sslmode=disable", Reply::Error("53200")),
    ("a server without a place", "sslmode=disable", Reply::Error("53300")),
    ("a server with a fault", "sslmode=disable", Reply::Error("XX000")),
    ("a role that is unknown", "sslmode=disable", Reply::Error("28000")),
    ("a pooler that takes no options", "sslmode=disable&options=-cwork_mem%3D9MB", Reply::Error("08P01")),
    ("a way to log in that is not known", "sslmode=disable", Reply::Bytes(b"R\0\0\0\x08\0\0\0\x07")),
    ("another service", "sslmode=disable", Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n")),
    ("a service that lets everybody in and knows no SQL", "sslmode=disable", Reply::Stay(
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.0\0Z\0\0\0\x05IC\0\0\0\x0dSELECT 0\0Z\0\0\0\x05I",
    )),
    ("a service that lets everybody in and answers with nothing", "sslmode=disable", Reply::Talk(
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.0\0Z\0\0\0\x05I",
        b"C\0\0\0\x0dSELECT 0\0Z\0\0\0\x05I",
    )),
    ("a service that says what nobody asked for", "sslmode=disable", Reply::Stay(b"Z\0\0\0\x05I")),
    ("nobody who answers", "sslmode=disable", Reply::Close),
    ("nobody who answers TLS", "sslmode=require", Reply::Close),
    ("a server without TLS", "sslmode=require", Reply::Bytes(b"N")),
    ("TLS that is none", "sslmode=require", Reply::Bytes(b"Sno handshake at all, and long enough to be read as one")),
];

fn error(sqlstate: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mthe server's own words\0\0");
    let length = u32::try_from(fields.len() + 4).expect("a short message");
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// Reads the first packet, answers, and waits for the other side to go.
fn serve(mut stream: TcpStream, reply: &Reply) {
    let mut length = [0_u8; 4];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let rest = u32::from_be_bytes(length).saturating_sub(4);
    let mut packet = vec![0_u8; rest as usize];
    if stream.read_exact(&mut packet).is_err() {
        return;
    }
    let bytes = match reply {
        Reply::Error(sqlstate) => error(sqlstate),
        Reply::Bytes(bytes) | Reply::Stay(bytes) | Reply::Talk(bytes, _) => bytes.to_vec(),
        Reply::Close => return,
    };
    // The other side may be gone already.
    let written = stream.write_all(&bytes);
    if let Reply::Talk(_, second) = reply {
        let mut beginning = [0_u8; 5];
        if stream.read_exact(&mut beginning).is_ok() {
            let _ = written.and_then(|()| stream.write_all(second));
        }
    } else if !matches!(reply, Reply::Stay(_)) {
        let _ = written.and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    }
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// What is answered to [`CASES`], and the hints that were given meanwhile.
pub fn answers() -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut said, mut given) = (String::new(), String::new());
    for (name, parameters, reply) in CASES {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it listens").port().to_string();
        let url = format!("postgresql://u@127.0.0.1:{port}/db?{parameters}");
        let (answered, hints) = std::thread::scope(|scope| {
            let stop = std::sync::atomic::AtomicBool::new(false);
            let stopped = std::sync::Arc::new(stop);
            let until = stopped.clone();
            scope.spawn(move || {
                for stream in listener.incoming() {
                    if until.load(std::sync::atomic::Ordering::SeqCst) {
                        break;
                    }
                    serve(stream.expect("a connection"), reply);
                }
            });
            let answered = answer(folder.path(), &["backup", "check", "-d", &url]);
            stopped.store(true, std::sync::atomic::Ordering::SeqCst);
            // The listener waits for one more.
            drop(TcpStream::connect(format!("127.0.0.1:{port}")));
            answered
        });
        let answered = answered.split_once('\n').map_or("", |(_, rest)| rest).replace(&port, "<port>");
        writeln!(said, "{name}:\n{answered}").expect("a string");
        given.push_str(&hints);
    }
    // The connection is taken, and nothing is said in it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("it listens").port().to_string();
    let url = format!("postgresql://u@127.0.0.1:{port}/db?sslmode=disable");
    let (answered, hints) = answer(folder.path(), &["backup", "check", "--wait=1s", "-d", &url]);
    said.push_str(&answered.replace(&port, "<port>"));
    given.push_str(&hints);
    // The address is taken by somebody else.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it listens").to_string();
    let url = super::answer::NOWHERE;
    let words = ["backup", "schedule", "--cron", "0 3 * * *", "--listen", &address, "-d", url];
    let (answered, hints) = answer(folder.path(), &words);
    said.push_str(&answered.replace(&address, "<taken>"));
    (said, given + &hints)
}
