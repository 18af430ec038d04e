//! The database's file, on the process's own disk: so that a test can cut its power.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use redb::StorageBackend;
use weir_io::File;

/// A redb database in a [`File`].
pub(crate) struct Backend(Arc<dyn File>);

impl Backend {
    /// Over an open file. Whoever opens it holds the lock of its folder.
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self(file)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(out.len());
        let read = self.0.read_at(&mut buffer, out.len(), offset)?;
        if read != out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.copy_from_slice(&buffer);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
