//! Carries the bytes of one connection, in both directions, over ways with their [troubles](crate::trouble).
//!
//! Each direction has a queue, in which a piece stays for as long as it is on its way, and which is as long as what TCP
//! would have on its way: a sender that nobody listens to has to wait.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio::{select, try_join};
use weir_tests::dice::Dice;

use crate::trouble::{Trouble, Way};

/// A piece, in bytes at most.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces on their way, at most.
const PIECES: usize = 64;
/// What passes at a time where it trickles, in bytes at most, and how long it is until the next does, in milliseconds.
const FEW_BYTES: u64 = 64;
const PAUSE_MS_MAX: u64 = 8;

/// What is on its way: bytes, or what whoever sent it was broken by.
struct Piece {
    due: Instant,
    bytes: io::Result<Vec<u8>>,
}

/// Carries all that passes between `near`, who has dialled, and `far`, until both directions have ended, or one breaks.
pub(crate) async fn connection(
    there: Way,
    back: Way,
    mut near: TcpStream,
    mut far: TcpStream,
    mut dice: Dice,
) {
    let one_more = Dice::new(dice.roll());
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.split();
    let carried =
        try_join!(direction(there, near_in, far_out, dice), direction(back, far_in, near_out, one_more));
    if carried.is_err() {
        // Both ends are reset. One that is gone already needs it no more.
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Carries one direction to its end.
///
/// # Errors
/// The connection breaks, for both of its ends.
async fn direction(way: Way, from: ReadHalf<'_>, to: WriteHalf<'_>, mut dice: Dice) -> io::Result<()> {
    let (pieces, arriving) = mpsc::channel(PIECES);
    let taken_up = take_up(way.clone(), from, pieces, Dice::new(dice.roll()));
    let handed_on = hand_on(way, arriving, to, dice);
    tokio::pin!(handed_on);
    select! {
        () = taken_up => handed_on.await,
        // Its end is the end, whatever else is sent.
        ended = &mut handed_on => ended,
    }
}

/// Takes up what is sent, until its end.
async fn take_up(way: Way, mut from: ReadHalf<'_>, pieces: mpsc::Sender<Piece>, mut dice: Dice) {
    let (mut due, mut buffer) = (Instant::now(), vec![0; PIECE_BYTES]);
    loop {
        let bytes =
            from.read(&mut buffer).await.map(|count| buffer.get(..count).unwrap_or_default().to_vec());
        let last = bytes.as_ref().map_or(true, Vec::is_empty);
        // Nothing overtakes what is in front of it.
        due = due.max(Instant::now() + way.delay(&mut dice));
        if pieces.send(Piece { due, bytes }).await.is_err() || last {
            return;
        }
    }
}

/// Hands on what arrives, until its end.
async fn hand_on(
    mut way: Way,
    mut arriving: mpsc::Receiver<Piece>,
    mut to: WriteHalf<'_>,
    mut dice: Dice,
) -> io::Result<()> {
    while let Some(piece) = arriving.recv().await {
        // A sleep takes a millisecond, however short it is.
        if piece.due > Instant::now() {
            sleep_until(piece.due).await;
        }
        way.until_open().await;
        let bytes = piece.bytes?;
        if bytes.is_empty() || way.breaks(Trouble::HalfClosed, &mut dice) {
            break;
        }
        let resets = way.breaks(Trouble::Resetting, &mut dice);
        let passes = if resets { dice.below(bytes.len() as u64) } else { bytes.len() as u64 };
        let passes = usize::try_from(passes).unwrap_or(bytes.len());
        let bytes = bytes.get(..passes).unwrap_or_default();
        if write(&way, &mut to, bytes, &mut dice).await.is_err() {
            // The receiver is gone. The sender hears of it on the way back.
            return Ok(());
        }
        if resets {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    // Who is gone needs no end.
    let _ = to.shutdown().await;
    Ok(())
}

async fn write(way: &Way, to: &mut WriteHalf<'_>, mut bytes: &[u8], dice: &mut Dice) -> io::Result<()> {
    let mut trickles = way.meets(Trouble::Trickling);
    while trickles && !bytes.is_empty() {
        let few = usize::try_from(1 + dice.below(FEW_BYTES)).unwrap_or(1).min(bytes.len());
        let (now, later) = bytes.split_at(few);
        to.write_all(now).await?;
        bytes = later;
        sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX))).await;
        trickles = way.meets(Trouble::Trickling);
    }
    to.write_all(bytes).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::net::TcpListener;
    use tokio::task::yield_now;

    use super::*;
    use crate::trouble::Ways;
    use crate::who::Who;

    const ONE: Who = Who::Broker(1);
    const OTHER: Who = Who::Broker(2);

    /// Who has dialled, and who was dialled.
    async fn connected(ways: &Ways) -> (TcpStream, TcpStream) {
        let (front, back) = (listener().await, listener().await);
        let one = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
        let near = front.accept().await.unwrap().0;
        let far = TcpStream::connect(back.local_addr().unwrap()).await.unwrap();
        let other = back.accept().await.unwrap().0;
        tokio::spawn(connection(ways.way(ONE, OTHER), ways.way(OTHER, ONE), near, far, Dice::new(1)));
        (one, other)
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// Sends piece after piece, as long as it can.
    async fn send_on(one: &mut TcpStream) {
        while one.write_all(b"a frame of some length").await.is_ok() {
            yield_now().await;
        }
        pending::<()>().await
    }

    #[tokio::test]
    async fn what_is_late_arrives_as_it_was_sent() {
        for trouble in [Trouble::Slow, Trouble::Trickling] {
            let ways = Ways::default();
            ways.begin(trouble, ONE, OTHER);
            let (mut one, mut other) = connected(&ways).await;
            let sent: Vec<u8> = (0..500_u32).flat_map(u32::to_le_bytes).collect();
            let mut arrived = Vec::new();
            one.write_all(&sent).await.unwrap();
            drop(one);
            other.read_to_end(&mut arrived).await.unwrap();
            assert!(arrived == sent, "{trouble:?}");
            assert_eq!(ways.met().len(), 1, "{trouble:?}: {:?}", ways.met());
        }
    }

    #[tokio::test]
    async fn what_is_held_up_one_way_passes_when_it_may_and_answers_pass_before() {
        let ways = Ways::default();
        ways.begin(Trouble::Stalled, ONE, OTHER);
        let (mut one, mut other) = connected(&ways).await;
        one.write_all(b"there").await.unwrap();
        while ways.met().is_empty() {
            yield_now().await;
        }
        other.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        one.read_exact(&mut back).await.unwrap();
        assert_eq!(other.try_read(&mut [0; 5]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        ways.end(Trouble::Stalled, ONE, OTHER);
        let mut there = [0; 5];
        other.read_exact(&mut there).await.unwrap();
        assert_eq!((&there, &back), (b"there", b"back"));
    }

    #[tokio::test]
    async fn a_reset_reaches_both_ends() {
        let ways = Ways::default();
        ways.begin(Trouble::Resetting, ONE, OTHER);
        let (mut one, mut other) = connected(&ways).await;
        let mut arrived = Vec::new();
        let ended = select! {
            ended = other.read_to_end(&mut arrived) => ended,
            () = send_on(&mut one) => unreachable!("it never ends"),
        };
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        // What it wrote may have met the reset already.
        assert!(one.read(&mut [0]).await.is_ok_and(|count| count == 0) || one.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn what_ends_for_the_receiver_goes_on_for_the_sender() {
        let ways = Ways::default();
        ways.begin(Trouble::HalfClosed, ONE, OTHER);
        let (mut one, mut other) = connected(&ways).await;
        let mut arrived = Vec::new();
        let ended = select! {
            ended = other.read_to_end(&mut arrived) => ended,
            () = send_on(&mut one) => unreachable!("it never ends"),
        };
        assert_eq!(ended.unwrap(), arrived.len());
        other.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        one.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    }

    #[tokio::test]
    async fn an_end_passes_and_so_does_a_reset() {
        let ways = Ways::default();
        let (one, mut other) = connected(&ways).await;
        drop(one);
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        let (one, mut other) = connected(&ways).await;
        one.set_zero_linger().unwrap();
        drop(one);
        assert_eq!(other.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
