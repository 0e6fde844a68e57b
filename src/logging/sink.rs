//! Where log lines go: a thread that writes them, so that a stderr that nobody reads holds nobody up.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// So many lines wait for a slow stderr; what comes on top is lost, and counted.
const WAITING_MAX: usize = 1_024;
/// How long the thread waits for a line before it calls `tick`.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Sink {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Sink {
    /// Starts the thread. `tick` is called on it at least once a second; it may log.
    pub(super) fn start(to: impl Write + Send + 'static, tick: impl Fn() + Send + 'static) -> Self {
        let (lines, received) = mpsc::sync_channel(WAITING_MAX);
        let sink = Self { lines, lost: Arc::default() };
        let lost = Arc::clone(&sink.lost);
        // Without the thread there is no log; the program is worth more than that.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || write(to, &received, &lost, tick));
        sink
    }

    /// Waits until what was logged before is written, but no longer than this. Says whether it is. Where the queue is full it
    /// does not wait.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let (done, is_done) = mpsc::sync_channel(1);
        self.lines.try_send(Message::Flush(done)).is_ok() && is_done.recv_timeout(within).is_ok()
    }
}

fn write(mut to: impl Write, received: &Receiver<Message>, lost: &AtomicU64, tick: impl Fn()) {
    loop {
        // Nothing can be done about a stderr that takes nothing.
        match received.recv_timeout(TICK) {
            Ok(Message::Line(line)) => {
                let _ = to.write_all(&line);
            }
            Ok(Message::Flush(done)) => {
                let _ = to.flush();
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        tick();
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(to, "bailiwick: {lost} log lines were lost: stderr did not take them in time");
        }
    }
}

impl Write for &Sink {
    /// One event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !line.is_empty() && self.lines.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Takes nothing until it is let.
    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_what_was_lost_is_counted() {
        let (go, stuck) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::start(Stuck(stuck, Arc::clone(&written)), || {});
        for _ in 0..3 * WAITING_MAX {
            (&sink).write_all(b"a line\n").unwrap();
        }
        drop(go);
        // The queue is full until the thread has come on.
        while !sink.flush(LONG) {
            thread::yield_now();
        }
        // What was lost is told after the line that found room: the next flush comes after that.
        assert!(sink.flush(LONG));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lost: usize = text
            .lines()
            .filter_map(|line| line.strip_prefix("bailiwick: ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        let lines = text.lines().filter(|line| *line == "a line").count();
        assert!(lines >= WAITING_MAX && lost > 0, "{lines} {lost}");
        assert_eq!(lines + lost, 3 * WAITING_MAX);
    }

    #[test]
    fn a_closed_stderr_ends_nothing() {
        let sink = Sink::start(Closed, || {});
        for _ in 0..10 {
            (&sink).write_all(b"a line\n").unwrap();
            assert!(sink.flush(LONG));
        }
        assert_eq!(sink.lost.load(Ordering::Relaxed), 0);
    }
}
