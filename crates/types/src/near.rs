//! Which replica a reader reads who says where it stands: one rule for the brokers and for their clients.

/// The broker that is read instead of the leader: one that stands where the reader does and is in sync, where the leader does
/// not stand there itself. Of several each has its partitions. `None`: the leader is read.
pub fn near<B: Copy>(
    partition: i32,
    leader: B,
    in_sync: &[B],
    stands_there: impl Fn(&B) -> bool,
) -> Option<B> {
    if stands_there(&leader) {
        return None;
    }
    let there: Vec<B> = in_sync.iter().copied().filter(stands_there).collect();
    let turn = usize::try_from(partition).unwrap_or(0);
    there.get(turn % there.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_where_the_reader_stands_is_read_and_the_leader_if_that_does() {
        let in_rack = |rack: &'static [i32]| move |broker: &i32| rack.contains(broker);
        let in_sync = [1, 2, 3, 4];
        assert_eq!(near(0, 1, &in_sync, in_rack(&[3, 4, 5])), Some(3));
        assert_eq!(near(1, 1, &in_sync, in_rack(&[3, 4, 5])), Some(4), "they share");
        assert_eq!(near(2, 1, &in_sync, in_rack(&[3, 4, 5])), Some(3));
        assert_eq!(near(0, 1, &in_sync, in_rack(&[1, 2])), None, "the leader stands there");
        assert_eq!(near(0, 1, &in_sync, in_rack(&[5])), None, "it is not in sync");
    }
}
