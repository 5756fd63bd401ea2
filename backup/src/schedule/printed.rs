//! What commands of the user's print, passed on to the scheduler's own log: line by line, and what a terminal would act on as escapes.

use std::time::Duration;

use common::{cli::Output, ident::printable};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    task::JoinHandle,
};

/// Longest line, in bytes; what is longer becomes several.
const LINE: usize = 64 << 10;

/// How long a line without an end is waited for: what still runs may never end it.
const PART: Duration = Duration::from_millis(200);

/// How long the rest may take to arrive when the command has ended. What it left running may keep its output open for ever.
const REST: Duration = Duration::from_secs(1);

/// Two tasks that pass a command's output on.
pub(super) struct Printed([Option<JoinHandle<()>>; 2]);

impl Printed {
    /// Takes those outputs of the command that are pipes.
    pub(super) fn of(child: &mut Child, output: &Output) -> Self {
        let told = child.stdout.take().map(|stream| tokio::spawn(pass_on(stream, output.clone())));
        let more = child.stderr.take().map(|stream| tokio::spawn(pass_on(stream, output.clone())));
        Self([told, more])
    }

    /// Waits for what the command printed, not for what it left running: that is passed on as long as this program runs.
    pub(super) async fn end(self) {
        let all = async {
            for task in self.0.into_iter().flatten() {
                let _ = task.await;
            }
        };
        // Late lines come later, and a task that failed has nothing more to say.
        let _ = tokio::time::timeout(REST, all).await;
    }
}

async fn pass_on(mut stream: impl AsyncRead + Unpin, output: Output) {
    let mut bytes = [0; 8 << 10];
    let mut line: Vec<u8> = Vec::new();
    loop {
        let read = stream.read(&mut bytes);
        let read = match tokio::time::timeout(if line.is_empty() { Duration::MAX } else { PART }, read).await
        {
            // An output that can't be read has ended.
            Ok(read) => read.unwrap_or(0),
            Err(_) => {
                tell(&line, &output);
                line.clear();
                continue;
            }
        };
        line.extend(&bytes[..read]);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            tell(&line[..end], &output);
            line.drain(..=end);
        }
        if !line.is_empty() && (read == 0 || line.len() > LINE) {
            tell(&line, &output);
            line.clear();
        }
        if read == 0 {
            return;
        }
    }
}

fn tell(line: &[u8], output: &Output) {
    let text = String::from_utf8_lossy(line);
    let text = text.strip_suffix('\r').unwrap_or(&text);
    output.event(&shown(text), &serde_json::json!({"event": "command", "text": text}));
}

/// A line for a terminal: tabs stay.
fn shown(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left_of_a_line() {
        assert_eq!(shown("\u{1b}[2Jgone\t\u{202e}x\r1"), "\\u{1b}[2Jgone\t\\u{202e}x\\r1");
        assert_eq!(shown("plain: größe"), "plain: größe");
    }
}
