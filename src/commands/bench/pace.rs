//! A clock that rings on time. Tokio's rings to the millisecond, which is longer than most answers take.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;

/// Where there is no such clock, Tokio's.
#[cfg(not(target_os = "linux"))]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn sleep(&self, time: std::time::Duration) -> std::io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::time::Duration;

    use rustix::fd::OwnedFd;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// Waits to the microsecond.
    pub(in super::super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        /// A timer of the runtime that runs.
        #[allow(deprecated, reason = "sound with an `OwnedFd`, which stays open as long as it is registered")]
        pub(in super::super) fn new() -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            Ok(Self(AsyncFd::new(timer)?))
        }

        /// Waits for a time. None is no wait.
        pub(in super::super) async fn sleep(&self, time: Duration) -> io::Result<()> {
            if time.is_zero() {
                return Ok(());
            }
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec::try_from(time).map_err(|_| io::Error::other("too long"))?;
            timerfd_settime(
                self.0.get_ref(),
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: zero, it_value: value },
            )?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut rings = [0; 8];
                match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut rings)?)) {
                    Ok(rung) => return rung.map(drop),
                    Err(_not_yet) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn it_rings_after_the_time_and_again() {
        let (timer, clock) = (Timer::new().unwrap(), Clock::start());
        for times in 1..=3 {
            timer.sleep(Duration::from_micros(700)).await.unwrap();
            assert!(clock.now() >= Duration::from_micros(700) * times);
        }
        timer.sleep(Duration::ZERO).await.unwrap();
    }
}
