//! Reads the input on a thread of its own, so that neither a slow pipe nor a slow server holds the other up. At
//! most a few pieces wait between the two.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::BytesMut;
use tokio::sync::mpsc;
use weir_runtime::Os;

use super::{Cutter, Malformed, Record};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// How many pieces wait.
const PIECES: usize = 8;

/// What one piece of input gave.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Records, and how far into the input they reach, in bytes.
    Records(VecDeque<Record>, u64),
    /// The input is not what it should be.
    Malformed(Malformed),
    /// The input cannot be read.
    Failed(io::Error),
}

/// Starts reading `path`, or stdin. The size of the file, if it is one, and the batches; after the last one, or
/// after an error, the channel ends.
pub(crate) fn read(
    os: &dyn Os,
    path: Option<&Path>,
    mut cutter: Box<dyn Cutter>,
) -> io::Result<(Option<u64>, mpsc::Receiver<Batch>)> {
    let (source, size): (Box<dyn Read + Send>, _) = match path {
        Some(path) => {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
            }
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        }
        None => (Box::new(io::stdin()), None),
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    os.block(Box::new(move || run(source, cutter.as_mut(), &sender)));
    Ok((size, receiver))
}

fn run(mut source: impl Read, cutter: &mut dyn Cutter, sender: &mpsc::Sender<Batch>) {
    let mut buffer = BytesMut::new();
    let mut read_bytes: u64 = 0;
    loop {
        let kept = buffer.len();
        buffer.resize(kept + PIECE_BYTES, 0);
        let result = source.read(buffer.get_mut(kept..).unwrap_or_default());
        let got = match result {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                buffer.truncate(kept);
                continue;
            }
            Err(error) => {
                let _ = sender.blocking_send(Batch::Failed(error));
                return;
            }
        };
        buffer.truncate(kept + got);
        read_bytes += got as u64;
        let last = got == 0;
        let mut records = VecDeque::new();
        let result = cutter.cut(&mut buffer, last, &mut records);
        // What came before a mistake was fine and is sent.
        let done = read_bytes.saturating_sub(buffer.len() as u64);
        if !records.is_empty() && sender.blocking_send(Batch::Records(records, done)).is_err() {
            return;
        }
        if let Err(malformed) = result {
            let _ = sender.blocking_send(Batch::Malformed(malformed));
            return;
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Lines;

    #[test]
    fn what_was_read_before_a_mistake_is_delivered_first() {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut cutter = Lines::new(Some(b":".to_vec()));
        run(&b"a:1\nb:2\nnone\nc:3\n"[..], &mut cutter, &sender);
        drop(sender);
        let Some(Batch::Records(records, _)) = receiver.blocking_recv() else { panic!("no records") };
        assert_eq!(records.len(), 2);
        let Some(Batch::Malformed(malformed)) = receiver.blocking_recv() else { panic!("no mistake") };
        assert_eq!(malformed.line, 3);
        assert!(receiver.blocking_recv().is_none());
    }

    #[test]
    fn a_line_longer_than_a_piece_is_one_record() {
        let (sender, mut receiver) = mpsc::channel(8);
        let long = vec![b'x'; 3 * PIECE_BYTES + 5];
        run(&long[..], &mut Lines::new(None), &sender);
        let Some(Batch::Records(records, bytes)) = receiver.blocking_recv() else { panic!("no records") };
        assert_eq!(bytes, long.len() as u64);
        assert_eq!(records.front().and_then(|r| r.value.as_deref()), Some(&long[..]));
    }
}
