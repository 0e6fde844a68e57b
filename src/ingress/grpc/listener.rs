//! The connections that come: a cap on them, and patience when the system has no file descriptors left.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use crate::domain::addresses::Network;

use super::places::{Place, Places};

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at a time; more wait in the system's backlog.
    pub connections_max: usize,
    /// Whether a connection has to prove who it is. Until then it has one of further places.
    pub must_prove: bool,
    /// The most connections that others listen for. They need file descriptors, too.
    pub others_max: usize,
}

impl Limits {
    /// How many connections may be there before they have proved who they are.
    fn unproved_max(self) -> usize {
        if self.must_prove { (self.connections_max / 4).max(UNPROVED_LEAST) } else { 0 }
    }

    /// The places that there are when the system lets so many connections be open.
    fn places(self, open_max: usize) -> Places {
        let (served, unproved) = (self.connections_max, self.unproved_max());
        if unproved == 0 {
            return Places::new(served.min(open_max), None);
        }
        let unproved = (unproved * open_max / (served + unproved)).max(1);
        Places::new(served.min(open_max.saturating_sub(unproved)).max(1), Some(unproved))
    }
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    places: Places,
}

/// Of connections that have not proved who they are there may be so many, however few others there may be.
const UNPROVED_LEAST: usize = 16;

/// File descriptors that connections must leave: for the journal, checkpoints, files, models and brokers, and for the one
/// that has come and waits for a place.
const RESERVED: u64 = 128;
/// Connections that wait to be accepted: after an outage all producers come back at once. The system cuts it to its own
/// limit (`net.core.somaxconn`, 4,096 by default on Linux).
const BACKLOG: u32 = 65_535;

impl Listener {
    /// Binds an address. Raises the limit of file descriptors if it has to, and takes fewer connections if that is not
    /// enough.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(clippy::unused_async, reason = "it needs a runtime, which a caller that awaits has")]
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let reserved = RESERVED.saturating_add(u64::try_from(limits.others_max).unwrap_or(u64::MAX));
        let open_max = with_reserve(limits.connections_max.saturating_add(limits.unproved_max()), reserved);
        Ok(Self { socket, places: limits.places(open_max) })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The connections that come, without an end. `now` is the monotonic clock.
    pub(super) fn connections(self, now: impl Fn() -> Duration) -> impl Stream<Item = Accepted> {
        unfold((self, now), async |(listener, now)| {
            let (stream, address) = listener.accept().await;
            let place = listener.places.enter(Network::of(address.ip()), &now).await;
            Some((Accepted { stream, address, place }, (listener, now)))
        })
    }

    /// The next connection. An error of `accept` is waited out.
    async fn accept(&self) -> (std::net::TcpStream, SocketAddr) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    // Without it small responses wait for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    match stream.into_std() {
                        Ok(stream) => return (stream, address),
                        // It has failed already.
                        Err(_) => continue,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted: if files ran out, raise the limit \
                     of open files (ulimit -n)");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// As many connections as may be open beside what else needs file descriptors.
fn with_reserve(wanted: usize, reserved: u64) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(reserved);
    let Some(mut soft) = limit.current else { return wanted };
    if soft < needed {
        let raised = limit.maximum.map_or(needed, |hard| hard.min(needed)).max(soft);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            soft = raised;
        }
    }
    let connections = connections(wanted, soft, reserved);
    if connections < wanted {
        tracing::warn!(
            connections,
            descriptors = soft,
            wanted,
            "the limit of file descriptors leaves room for fewer connections than `listen.connections_max` asks for (with \
             [tls] a quarter more, for those that have not proved who they are); raise it (`ulimit -n`, LimitNOFILE), or \
             lower `connections_max`"
        );
    }
    connections
}

/// How many of the wanted connections fit under a limit of file descriptors, of which some are for others.
fn connections(wanted: usize, descriptors: u64, reserved: u64) -> usize {
    // Of few descriptors half are left.
    let room = descriptors.saturating_sub(reserved.min(descriptors.div_ceil(2)));
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}

/// An accepted connection, which belongs to no thread yet.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) address: SocketAddr,
    /// `None`: there is none for it.
    pub(super) place: Option<Place>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let cases = [(1_024, 1_024, 896), (1_024, 1_152, 1_024), (16, 1_024, 16), (1_024, 64, 32), (1_024, 0, 1)];
        for (wanted, descriptors, expected) in cases {
            assert_eq!(connections(wanted, descriptors, RESERVED), expected, "{wanted} of {descriptors}");
        }
        assert_eq!(connections(1_024, 1_024, RESERVED + 80), 816);
    }
}
