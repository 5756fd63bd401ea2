//! `backup schedule` as a process of a test: started, asked over HTTP, and ended by a signal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::protected_run::{kill, until};

/// A running scheduler. Killed when dropped.
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Daemon {
    /// Starts the command, and collects what it says.
    pub fn start(mut command: Command) -> Daemon {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let heard = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut heard = heard.lock().expect("no holder panics");
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Daemon { child, said, reader: Some(reader) }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    /// Waits until it has said this so many times.
    #[track_caller]
    pub fn says_times(&self, text: &str, times: usize) {
        let has = || self.said().matches(text).count() >= times;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(text, has)));
        assert!(waited.is_ok(), "never said {times} times: {text}\n{}", self.said());
    }

    /// The address of its status page.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.says("http://");
        let said = self.said();
        let rest = said.split("http://").nth(1).expect("it was said");
        rest.split('/').next().expect("there is a first part").parse().expect("an address")
    }

    /// Asks its server.
    pub fn get(&self, path: &str) -> Answer {
        get(self.address(), path, &[])
    }

    /// Sends a signal such as `HUP`.
    pub fn signal(&self, name: &str) {
        kill(name, &self.child.id().to_string());
    }

    /// Sends a signal, waits for its end, and returns its exit code and all that it said.
    #[track_caller]
    pub fn end(mut self, signal: &str) -> (i32, String) {
        self.signal(signal);
        let status = self.child.wait().expect("the child can be waited for");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        (status.code().unwrap_or(-1), self.said())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Of one that has ended already nothing is left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One GET request with further headers.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out can be set");
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        request.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A server on loopback that answers 200 to everything, and keeps what it was asked: first line and body.
pub struct Listener {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Default for Listener {
    fn default() -> Self {
        Listener::new()
    }
}

impl Listener {
    /// Listens on a free port for as long as the process lives.
    pub fn new() -> Listener {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let address = listener.local_addr().expect("it is bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Some(request) = take_request(stream) {
                    keep.lock().expect("no holder panics").push(request);
                }
            }
        });
        Listener { address, heard }
    }

    /// A URL below it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn heard(&self) -> Vec<(String, String)> {
        self.heard.lock().expect("no holder panics").clone()
    }
}

fn take_request(stream: TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    reader
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        .ok()?;
    Some((first.trim().to_owned(), String::from_utf8_lossy(&body).into_owned()))
}
