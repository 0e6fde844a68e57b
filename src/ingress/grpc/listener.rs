//! The accept loop: a cap on connections, and patience when the system has no file descriptors left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at a time; more wait in the system's backlog.
    pub connections_max: usize,
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
}

/// File descriptors that connections must leave: for the journal, checkpoints, files, models and brokers.
const RESERVED: u64 = 128;

impl Listener {
    /// Binds an address. Raises the limit of file descriptors if it has to, and takes fewer connections if that is not
    /// enough.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let connections_max = with_reserve(limits.connections_max);
        Ok(Self { socket, slots: Arc::new(Semaphore::new(connections_max)) })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection. An error of `accept` is waited out.
    pub(super) async fn accept(&self) -> Option<Accepted> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    // Without it small responses wait for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    match stream.into_std() {
                        Ok(stream) => return Some(Accepted { stream, address, slot }),
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
fn with_reserve(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(RESERVED);
    let Some(mut soft) = limit.current else { return wanted };
    if soft < needed {
        let raised = limit.maximum.map_or(needed, |hard| hard.min(needed)).max(soft);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            soft = raised;
        }
    }
    let connections = connections(wanted, soft);
    if connections < wanted {
        tracing::warn!(
            connections,
            descriptors = soft,
            "the limit of file descriptors leaves room for fewer connections than `listen.connections_max`; raise it \
             (`ulimit -n`, LimitNOFILE), or lower `connections_max`"
        );
    }
    connections
}

/// How many of the wanted connections fit under a limit of file descriptors.
fn connections(wanted: usize, descriptors: u64) -> usize {
    // Of few descriptors half are left.
    let room = descriptors.saturating_sub(RESERVED.min(descriptors.div_ceil(2)));
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}

/// An accepted connection that is not dealt to a thread yet.
pub(super) struct Accepted {
    stream: std::net::TcpStream,
    address: SocketAddr,
    slot: OwnedSemaphorePermit,
}

/// The same, on the runtime of its thread.
pub(super) struct Arrived {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Accepted {
    /// The connection on the runtime that this is called on.
    pub(super) fn here(self) -> io::Result<Arrived> {
        Ok(Arrived { stream: TcpStream::from_std(self.stream)?, address: self.address, slot: self.slot })
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let cases = [(1_024, 1_024, 896), (1_024, 1_152, 1_024), (16, 1_024, 16), (1_024, 64, 32), (1_024, 0, 1)];
        for (wanted, descriptors, expected) in cases {
            assert_eq!(connections(wanted, descriptors), expected, "{wanted} of {descriptors}");
        }
    }
}
