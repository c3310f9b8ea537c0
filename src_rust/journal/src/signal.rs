//! A file descriptor that becomes readable when something was published.
//!
//! The writer raises it, an event loop watches it: neither waits for the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{read, write, Errno};

/// Bytes taken at a time when clearing: one eventfd value, or as many pipe bytes.
const CLEAR_BYTES: usize = 64;

/// One bit that can be watched with `poll`.
pub(crate) struct Signal {
    reader: OwnedFd,
    /// The other end of a pipe; an eventfd has none.
    writer: Option<OwnedFd>,
}

impl Signal {
    /// An eventfd.
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{eventfd, EventfdFlags};
        let reader = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            reader,
            writer: None,
        })
    }

    /// A pipe, where there is no eventfd.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        Self::pipe()
    }

    #[cfg(any(test, not(target_os = "linux")))]
    fn pipe() -> io::Result<Self> {
        use rustix::fs::{fcntl_setfl, OFlags};
        use rustix::io::{fcntl_setfd, FdFlags};
        let (reader, writer) = rustix::pipe::pipe()?;
        for end in [&reader, &writer] {
            fcntl_setfd(end, FdFlags::CLOEXEC)?;
            fcntl_setfl(end, OFlags::NONBLOCK)?;
        }
        Ok(Self {
            reader,
            writer: Some(writer),
        })
    }

    /// Makes the descriptor readable. A full pipe or counter is already readable.
    pub(crate) fn raise(&self) {
        let end = self.writer.as_ref().unwrap_or(&self.reader);
        let one = 1_u64.to_ne_bytes();
        while write(end, &one) == Err(Errno::INTR) {}
    }

    /// Makes it unreadable again; call it before looking at what was published.
    pub(crate) fn clear(&self) {
        let mut taken = [0_u8; CLEAR_BYTES];
        loop {
            match read(&self.reader, &mut taken) {
                Ok(CLEAR_BYTES) | Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    /// The descriptor to watch for reading.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{poll, PollFd, PollFlags, Timespec};

    fn readable(signal: &Signal) -> bool {
        let fd = signal.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    #[test]
    fn raised_until_cleared_by_eventfd_and_by_pipe() {
        for signal in [Signal::new().unwrap(), Signal::pipe().unwrap()] {
            assert!(!readable(&signal));
            for _ in 0..20_000 {
                signal.raise();
            }
            assert!(readable(&signal));
            signal.clear();
            assert!(!readable(&signal));
            signal.clear();
            signal.raise();
            assert!(readable(&signal));
        }
    }
}
