//! What the system says of a process.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, of all its threads.
    pub cpu: Duration,
    /// Bytes of memory that it holds.
    pub memory: u64,
    /// The most that it held.
    pub memory_max: u64,
}

/// The file descriptors of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// How many are open.
    pub open: usize,
    /// How many there may be.
    pub most: u64,
}

/// A tick of `/proc/PID/stat`: `USER_HZ` is 100 on Linux.
const TICK: Duration = Duration::from_millis(10);

impl Process {
    /// The process of an id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn usage(self) -> anyhow::Result<Usage> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.0);
            fs::read_to_string(&path).with_context(|| format!("process {}: cannot read {path}", self.0))
        };
        parse(&read("stat")?, &read("status")?).with_context(|| format!("process {} has ended", self.0))
    }

    /// Its file descriptors, if the system says so.
    #[must_use]
    pub fn descriptors(self) -> Option<Descriptors> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.0)).ok()?.count();
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.0)).ok()?;
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(Descriptors { open, most: most.split_whitespace().next()?.parse().unwrap_or(u64::MAX) })
    }
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name before the last parenthesis may hold anything; user and system time are the 12th and 13th field after it.
    let mut times = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks = times.next()?.parse::<u32>().ok()?.checked_add(times.next()?.parse().ok()?)?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
    };
    Some(Usage { cpu: TICK * ticks, memory: bytes("VmRSS:")?, memory_max: bytes("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 2 0 0 0 150 25 0 0 20 0 3 0 1 2 3";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let usage = Usage { cpu: Duration::from_millis(1_750), memory: 1 << 20, memory_max: 2 << 20 };
        assert_eq!(parse(stat, status), Some(usage));
        // A process that has ended holds nothing.
        assert_eq!(parse(stat, "Name:\ta\n"), None);
    }

    #[test]
    fn this_process_has_used_something_and_no_process_has_nothing() {
        let process = Process::new(std::process::id());
        assert!(process.usage().unwrap().memory > 0);
        let descriptors = process.descriptors().unwrap();
        assert!(descriptors.open > 2 && descriptors.most >= descriptors.open as u64, "{descriptors:?}");
        assert_eq!(Process::new(u32::MAX).descriptors(), None);
        let error = Process::new(u32::MAX).usage().unwrap_err();
        assert!(error.to_string().contains("process 4294967295"), "{error}");
    }
}
