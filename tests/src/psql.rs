//! PostgreSQL's own client tools as processes: the independent way to look at a database.
//!
//! Every process gets a clean environment: no PG* variable and no psqlrc of the person who runs the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use crate::servers::servers;

/// A client tool of the newest version, such as `pg_dump`, without any PG* variable.
pub fn tool(name: &str) -> Command {
    let path = servers().newest_tools().join(name);
    assert!(path.exists(), "no {}; run `scripts/setup`", path.display());
    let mut command = Command::new(path);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    command.env("LC_ALL", "C").env("PGCLIENTENCODING", "UTF8");
    command
}

/// Runs SQL (or psql commands) and returns the output, unaligned, tuples only; panics with psql's message.
pub fn run(url: &str, sql: &str) -> String {
    try_run(url, sql).unwrap_or_else(|error| panic!("psql {url}: {error}"))
}

/// Runs SQL and stops at the first error, which is psql's message.
pub fn try_run(url: &str, sql: &str) -> Result<String, String> {
    try_run_with(psql(url), sql)
}

pub(crate) fn psql(url: &str) -> Command {
    let mut command = tool("psql");
    // client_min_messages through the environment, since SQL of a test may begin with anything.
    command.env("PGOPTIONS", "-c client_min_messages=warning");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    command
}

pub(crate) fn try_run_with(mut command: Command, sql: &str) -> Result<String, String> {
    command.args(["-f", "-"]); // with this, errors tell the line
    let output = feed(command, sql);
    let stdout = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
    match output.status.success() {
        true => Ok(stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
    }
}

/// Runs a tool to its end; panics with its message unless it succeeds.
pub fn succeed(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).expect("the tools speak UTF-8")
}

fn feed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // In a thread: psql stops reading while nobody reads what it wrote.
    std::thread::scope(|scope| {
        // A broken pipe is psql stopping at an error, which its status tells.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().expect("the child can be waited for")
    })
}

/// A psql that stays connected: for transactions, locks and session settings over several calls.
///
/// Errors don't end it, as they don't end an interactive session. It ends when dropped.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<std::process::ChildStderr>,
    calls: u32,
}

impl Session {
    /// Connects.
    pub fn open(url: &str) -> Session {
        Session::try_open(url).unwrap_or_else(|| panic!("no connection to {url}"))
    }

    /// Connects, if the server lets it.
    pub fn try_open(url: &str) -> Option<Session> {
        let mut command = psql(url);
        command.args(["-v", "ON_ERROR_STOP=0", "-v", "SHOW_CONTEXT=never", "-v", "VERBOSITY=verbose"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut session = Session { child, stdin, stdout, stderr, calls: 0 };
        (session.try_run("SELECT 'connected'").as_deref() == Ok("connected")).then_some(session)
    }

    /// Runs one or more statements; panics with psql's message on an error.
    pub fn run(&mut self, sql: &str) -> String {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs one or more statements. Anything on stderr is an error; it has the SQLSTATE in it.
    pub fn try_run(&mut self, sql: &str) -> Result<String, String> {
        self.send(sql);
        self.receive()
    }

    /// Starts statements without waiting for them, such as one that will block; then [`Session::receive`].
    pub fn send(&mut self, sql: &str) {
        self.calls += 1;
        let mark = self.mark();
        let text = format!("{sql}\n;\n\\echo {mark}\n\\warn {mark}\n");
        let stdin = self.stdin.as_mut().expect("the session is open");
        // A broken pipe is psql gone, which the end of its output tells.
        let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
    }

    /// Waits for what [`Session::send`] started.
    pub fn receive(&mut self) -> Result<String, String> {
        let mark = self.mark();
        let output = until(&mut self.stdout, &mark);
        let error = until(&mut self.stderr, &mark);
        if error.is_empty() { Ok(output) } else { Err(error) }
    }

    /// The server's process id of this session.
    pub fn backend_pid(&mut self) -> i32 {
        self.run("SELECT pg_backend_pid()").parse().expect("a process id")
    }

    fn mark(&self) -> String {
        format!("--end-of-call-{}--", self.calls)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        // psql may wait for a lock: the server then sees the connection end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(stream: &mut impl BufRead, mark: &str) -> String {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).expect("psql speaks UTF-8") == 0 {
            // The session is gone: what there is, is the answer.
            return format!("{text}(psql ended)");
        }
        if line.trim_end() == mark {
            return text.trim_end_matches('\n').to_owned();
        }
        text.push_str(&line);
    }
}

/// Quotes a name. Written again here on purpose: the oracle shares no code with what it judges.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string for any setting of standard_conforming_strings.
pub fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Runs a script file.
pub fn run_file(url: &str, path: &std::path::Path) -> String {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    run(url, &text)
}
