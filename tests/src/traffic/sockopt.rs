//! Socket options that neither the standard library nor rustix provides.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};

/// Sets an option with an int value.
pub(super) fn set(socket: impl AsFd, level: i32, option: i32, value: i32) -> Result<()> {
    // SAFETY: the pointer is to an int that outlives the call, and the length is that of an int.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("cannot set a socket option") }
}

/// The first bytes of the kernel's `struct tcp_info`, read by offset: libc's definition lacks the segment
/// counters at its end. The layout only grows at its end.
pub(super) struct TcpInfo([u8; 216]);

impl TcpInfo {
    /// Reads it from the kernel.
    pub(super) fn read(socket: impl AsFd) -> Result<Self> {
        let mut bytes = [0; 216];
        let mut length = 216;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of the buffer.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error()).context("cannot read TCP_INFO");
        }
        anyhow::ensure!(length == 216, "the kernel's TCP_INFO has only {length} bytes");
        Ok(Self(bytes))
    }

    fn u32(&self, offset: usize) -> u64 {
        let mut value = [0; 4];
        value.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(value).into()
    }

    fn u64(&self, offset: usize) -> u64 {
        let mut value = [0; 8];
        value.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_ne_bytes(value)
    }

    /// `tcpi_state`; 7 is closed.
    pub(super) fn state(&self) -> u8 {
        self.0[0]
    }

    /// `tcpi_options`, bit 0: timestamps.
    pub(super) fn timestamps(&self) -> bool {
        self.0[5] & 1 != 0
    }

    /// `tcpi_total_retrans`.
    pub(super) fn retransmissions(&self) -> u64 {
        self.u32(100)
    }

    /// `tcpi_segs_out`: segments, regardless of the number of buffers.
    pub(super) fn segments_out(&self) -> u64 {
        self.u32(136)
    }

    /// `tcpi_segs_in`.
    pub(super) fn segments_in(&self) -> u64 {
        self.u32(140)
    }

    /// `tcpi_data_segs_out`.
    pub(super) fn data_segments_out(&self) -> u64 {
        self.u32(156)
    }

    /// `tcpi_bytes_sent`, including retransmissions.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.u64(200)
    }

    /// `tcpi_bytes_retrans`.
    pub(super) fn bytes_retransmitted(&self) -> u64 {
        self.u64(208)
    }
}
