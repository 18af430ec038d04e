//! A record on its way in.

/// A record to be sent: borrowed, because it is packed into its batch before `send` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) partition: Option<i32>,
}

impl<'a> Record<'a> {
    /// A record with this value, no key and no headers.
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: Some(value.as_ref()), ..Self::default() }
    }

    /// A record without a value: on a compacted topic it deletes the key.
    pub fn tombstone(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: Some(key.as_ref()), ..Self::default() }
    }

    /// The key. An empty key is a key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Names and values that travel with it, in order.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        self.headers = headers;
        self
    }

    /// When the event happened: milliseconds since 1970 UTC. Otherwise the time of sending.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Exactly this partition, whatever the partitioner would say.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The most that the record takes in a batch, in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        // Tags and lengths: at most 6 bytes a field, 22 for the deltas.
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + value.len() + 18).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers + 40
    }
}

impl<'a> From<&'a str> for Record<'a> {
    fn from(value: &'a str) -> Self {
        Self::new(value)
    }
}

impl<'a> From<&'a [u8]> for Record<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::new(value)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Record<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::new(value)
    }
}
