//! The one module with `unsafe`: reads into memory that was not zeroed first, two system calls that the safe
//! crates lack or cannot express, and the mapping of a file. Nothing here decides anything.
#![expect(
    unsafe_code,
    reason = "reads into uninitialised memory, raw system calls and maps have no safe form"
)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::{BufMut, BytesMut};
use memmap2::Mmap;

/// What one `pread` or `preadv2` may take at most: the kernel cuts longer ones at this many bytes anyway.
const READ_BYTES_MAX: usize = 0x7fff_f000;

/// Appends up to `len` bytes from `pos` on to `buf`; short only at the end of the file.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize> {
    buf.reserve(len);
    let mut done = 0;
    while done < len {
        let n = match rustix::io::pread(fd, spare(buf, len - done), pos + done as u64) {
            Ok((read, _)) => read.len(),
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        if n == 0 {
            break;
        }
        // SAFETY: `pread` has just initialised the first `n` bytes of the spare capacity.
        unsafe { buf.advance_mut(n) };
        done += n;
    }
    Ok(done)
}

/// The same from the page cache alone, in one call: `None` if the first byte is not there, or if the file
/// system cannot say.
pub(crate) fn read_cached(
    fd: BorrowedFd<'_>,
    buf: &mut BytesMut,
    len: usize,
    pos: u64,
) -> io::Result<Option<usize>> {
    buf.reserve(len);
    let offset = libc::off_t::try_from(pos).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let n = loop {
        let spare = spare(buf, len);
        let iovec = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
        // SAFETY: `fd` is open for as long as it is borrowed; `iovec` describes memory that is ours alone and
        // writable for `iov_len` bytes until the call returns, and the kernel keeps no pointer to it. The
        // memory may be uninitialised: no reference to it is made, the kernel only writes it.
        let n = unsafe { libc::preadv2(fd.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_NOWAIT) };
        if n >= 0 {
            break n as usize;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Not cached; or a file system or kernel without the flag, where everything counts as not cached.
            Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(None),
            _ => return Err(error),
        }
    };
    // SAFETY: the kernel has just initialised the first `n` bytes of the spare capacity.
    unsafe { buf.advance_mut(n) };
    Ok(Some(n))
}

/// The first `len` bytes behind what `buf` holds; the caller has reserved them.
fn spare(buf: &mut BytesMut, len: usize) -> &mut [MaybeUninit<u8>] {
    let spare = buf.spare_capacity_mut();
    let len = len.min(spare.len()).min(READ_BYTES_MAX);
    spare.split_at_mut(len).0
}

/// Starts writing the dirty pages of a range, without waiting for them.
pub(crate) fn start_writeback(fd: BorrowedFd<'_>, pos: u64, len: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let pos = libc::off_t::try_from(pos).map_err(invalid)?;
    let len = libc::off_t::try_from(len).map_err(invalid)?;
    // SAFETY: no memory is passed, and `fd` is open for as long as it is borrowed.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), pos, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // It is only advice; a kernel without it writes back by itself.
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

/// Maps a file for reading.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map stays valid as long as nobody cuts or changes the file under it. That is what
    // `File::map` demands of its caller (correctness rule 37): only small files that are written once under
    // another name, synced, renamed into place and never opened for writing again.
    unsafe { Mmap::map(file) }
}
