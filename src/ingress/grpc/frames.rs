//! A limit on HTTP/2 frames that carry nothing: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM, empty DATA and frames
//! of unknown kinds. A client needs few of them; each costs the gateway work, and HTTP/2 itself does not limit them.
//!
//! It reads the headers of frames in what comes in, and nothing else. What a client may send grows with time, and with what
//! the gateway sends it: whoever gets many answers has to widen many windows.
//!
//! HTTP/2 gives a frame on when it is whole. How a long one comes on until then is seen here only: see [`Coming`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many may come at once.
const BURST: u64 = 1_000;
/// And so many in each second after that.
const PER_SECOND: u64 = 200;
/// And one for so many bytes that the gateway sent. The answer to a PING is smaller, so a flood does not pay for itself.
const BYTES_SENT: u64 = 32;
/// What is counted in: parts of a frame.
const PART: u64 = 1_000;

/// How many bytes of messages came on one connection, in frames that are whole and in the one that is not.
#[derive(Debug, Default)]
pub(super) struct Coming(AtomicU64);

impl Coming {
    /// How many in all.
    pub(super) fn all(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const DATA: u8 = 0;

/// What came on one connection.
pub(super) struct Frames {
    /// The bytes of the preface that are still to come, then those of the frame that is being passed over.
    left: usize,
    header: [u8; Self::HEADER_BYTES],
    came: usize,
    /// Whether the frame that is being passed over carries a part of a message.
    is_of_message: bool,
    coming: Arc<Coming>,
    /// What may still come, in parts.
    budget: u64,
    refilled: Duration,
}

impl Frames {
    const HEADER_BYTES: usize = 9;
    /// `PRI * HTTP/2.0`, two line ends, `SM`, two line ends.
    const PREFACE_BYTES: usize = 24;

    /// Nothing came until now.
    pub(super) fn new(now: Duration) -> Self {
        let (left, budget) = (Self::PREFACE_BYTES, BURST * PART);
        let header = [0; Self::HEADER_BYTES];
        Self { left, header, came: 0, is_of_message: false, coming: Arc::default(), budget, refilled: now }
    }

    /// How the parts of messages come on.
    pub(super) fn coming(&self) -> Arc<Coming> {
        Arc::clone(&self.coming)
    }

    /// The gateway sent so many bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.budget = (self.budget + bytes as u64 * PART / BYTES_SENT).min(BURST * PART);
    }

    /// Takes what came. Whether it was too much. The clock is read only where it matters.
    pub(super) fn take(&mut self, bytes: &[u8], now: impl Fn() -> Duration) -> bool {
        let mut of_messages = 0;
        let is_too_much = self.pass(bytes, &mut of_messages, now);
        self.coming.0.fetch_add(of_messages, Ordering::Relaxed);
        is_too_much
    }

    /// The same; adds up the bytes of messages.
    fn pass(&mut self, mut bytes: &[u8], of_messages: &mut u64, now: impl Fn() -> Duration) -> bool {
        loop {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            if self.is_of_message {
                *of_messages += passed as u64;
            }
            bytes = bytes.get(passed..).unwrap_or_default();
            if bytes.is_empty() {
                return false;
            }
            let taken = bytes.len().min(Self::HEADER_BYTES - self.came);
            let (header, rest) = bytes.split_at(taken);
            if let Some(place) = self.header.get_mut(self.came..self.came + taken) {
                place.copy_from_slice(header);
            }
            (self.came, bytes) = (self.came + taken, rest);
            if self.came < Self::HEADER_BYTES {
                return false;
            }
            self.came = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.is_of_message = kind == DATA;
            if is_of_no_use(kind, flags, self.left) && self.is_too_much(&now) {
                return true;
            }
        }
    }

    fn is_too_much(&mut self, now: &impl Fn() -> Duration) -> bool {
        if self.budget < PART {
            let now = now();
            let elapsed = u64::try_from(now.saturating_sub(self.refilled).as_millis()).unwrap_or(u64::MAX);
            self.budget =
                self.budget.saturating_add(elapsed.saturating_mul(PER_SECOND * PART / 1_000)).min(BURST * PART);
            self.refilled = now;
        }
        match self.budget.checked_sub(PART) {
            Some(left) => {
                self.budget = left;
                false
            }
            None => true,
        }
    }
}

/// Whether a frame carries neither a call nor a part of a message.
fn is_of_no_use(kind: u8, flags: u8, length: usize) -> bool {
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS | CONTINUATION => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const EMPTY: [u8; 9] = [0; 9];
    const LAST: [u8; 9] = [0, 0, 0, 0, 1, 0, 0, 0, 1];

    fn begun() -> Frames {
        let mut frames = Frames::new(Duration::ZERO);
        assert!(!frames.take(PREFACE, || Duration::ZERO));
        frames
    }

    /// How many of a frame are taken before it is too much, with bytes sent for each.
    fn taken(frames: &mut Frames, frame: &[u8], sent: usize, at: Duration) -> usize {
        let most = 100_000;
        (0..most)
            .find(|_| {
                let is_too_much = frames.take(frame, || at);
                frames.sent(sent);
                is_too_much
            })
            .unwrap_or(most)
    }

    #[test]
    fn a_flood_ends_and_what_a_client_needs_does_not() {
        let zero = Duration::ZERO;
        assert_eq!(taken(&mut begun(), &PING, 0, zero), 1_000);
        // Answers to PINGs do not pay for them.
        assert!(taken(&mut begun(), &PING, PING.len(), zero) < 3_000);
        assert_eq!(taken(&mut begun(), &EMPTY, 0, zero), 1_000);
        for kind in [2, 3, 4, 8, 10, 200] {
            let frame = [0, 0, 0, kind, 0, 0, 0, 0, 0];
            assert_eq!(taken(&mut begun(), &frame, 0, zero), 1_000, "{kind}");
        }
        // The last, empty part of a call; calls themselves; messages.
        assert_eq!(taken(&mut begun(), &LAST, 0, zero), 100_000);
        assert_eq!(taken(&mut begun(), &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82], 0, zero), 100_000);
        assert_eq!(taken(&mut begun(), &[0, 0, 2, 0, 0, 0, 0, 0, 1, 7, 7], 0, zero), 100_000);
        // Whoever gets answers widens windows: one for each small answer.
        assert_eq!(taken(&mut begun(), &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0], 40, zero), 100_000);
    }

    #[test]
    fn time_gives_room_again_up_to_the_burst() {
        let mut frames = begun();
        assert_eq!(taken(&mut frames, &EMPTY, 0, Duration::ZERO), 1_000);
        assert_eq!(taken(&mut frames, &EMPTY, 0, Duration::from_secs(1)), 200);
        assert_eq!(taken(&mut frames, &EMPTY, 0, Duration::from_secs(2)), 200);
        assert_eq!(taken(&mut frames, &EMPTY, 0, Duration::from_secs(3_600)), 1_000);
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let message = [&[0, 1, 0, 0, 0, 0, 0, 0, 1][..], &[6; 256]].concat();
        let all = [PREFACE, &PING, &message, &PING, &LAST, &PING].concat();
        for size in 1..all.len() {
            let mut frames = Frames::new(Duration::ZERO);
            assert!(all.chunks(size).all(|part| !frames.take(part, || Duration::ZERO)));
            assert_eq!(frames.budget, (BURST - 3) * PART, "{size}");
            assert_eq!(frames.coming().all(), 256, "{size}");
        }
    }

    #[test]
    fn a_long_frame_comes_on_byte_by_byte() {
        let (mut frames, zero) = (begun(), || Duration::ZERO);
        let coming = frames.coming();
        let message = [&[0, 1, 0, 0, 0, 0, 0, 0, 1][..], &[6; 256]].concat();
        frames.take(&message[..109], zero);
        assert_eq!(coming.all(), 100);
        frames.take(&message[109..], zero);
        assert_eq!(coming.all(), 256);
        // Other frames carry nothing of a message.
        frames.take(&[0, 0, 200, 4, 0, 0, 0, 0, 0, 1, 2, 3], zero);
        assert_eq!(coming.all(), 256);
    }
}
